package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Enforcement only narrows. For each key that the cluster's Policy enforces, what other sources say is
// cut back to what the Policy itself says:
//
//	prefixes that take something      the parts inside those of the Policy
//	prefixes that are left alone      those of the Policy in any case
//	onConflict                        the stricter one
//	names                             those within the Policy's
//	conflicts                         an allow within the Policy's; yield and virtualize always stand
//	proxyVia                          the Policy's
//	everything else                   the Policy's
//
// Keys that say the same in other words are no way round: an allow is one in allowConflictingSubnets and
// in conflicts, an also-proxied prefix inside an enforced never goes, and so does an allow inside an
// enforced yield or virtualize, however specific they are. Between yield and virtualize the user chooses:
// both leave what others route to them.

// Narrowing is something asked for that the team's Policy does not let be.
type Narrowing struct {
	Key string `json:"key"`
	// Value is what was asked for, as it would be written.
	Value string `json:"value"`
	// Origin is who asked, By the Policy that says no.
	Origin Origin `json:"origin"`
	By     Origin `json:"by"`
}

func (n Narrowing) String() string {
	return fmt.Sprintf("%s %s (%s) goes beyond what %s enforces and is cut back to that", n.Key, cmp.Or(n.Value, `""`), n.Origin, n.By.Position)
}

// enforceable reads a key that can be enforced.
func enforceable(path string) (string, error) { return oneOf(enforceablePaths()...)(path) }

// enforceablePaths are the keys that a workstation can set at all.
func enforceablePaths() []string {
	var out []string
	for _, k := range keys {
		if !k.PolicyOnly() {
			out = append(out, k.Path)
		}
	}
	return out
}

// findEnforced notes the layer that enforces.
func (m *merger) findEnforced() {
	for i := range m.layers {
		if l := &m.layers[i]; l.Source == SourcePolicy && len(l.Settings.Enforce) > 0 {
			m.team = l
		}
	}
}

// enforcers is where the list of enforced keys comes from.
func (m *merger) enforcers() []Origin {
	if m.team == nil {
		return []Origin{{Source: SourceDefault}}
	}
	return []Origin{m.team.origin("enforce")}
}

// enforces reports whether the team's Policy enforces a key.
func (m *merger) enforces(path string) bool {
	return m.team != nil && slices.ContainsFunc(m.team.Settings.Enforce, func(e string) bool {
		return strings.TrimPrefix(e, extend) == path
	})
}

// narrow records that something is cut back.
func (m *merger) narrow(path string, e entry) {
	m.narrowed = append(m.narrowed, Narrowing{path, e.text, e.origin, m.team.origin(path)})
}

// enforcedScalar returns what is in force of a scalar: value, or the Policy's.
func (m *merger) enforcedScalar(path, value string) string {
	if !m.enforces(path) {
		return value
	}
	k, _ := KeyByPath(path)
	team := k.text(&m.team.Settings)
	if team == "" {
		team = k.Default
	}
	if value == team || path == "routing.onConflict" && value == string(ResolveError) {
		return value
	}
	m.narrow(path, entry{value, m.from[path][0]})
	m.from[path] = []Origin{m.team.origin(path)}
	return team
}

// Keys that matter to each other.
const (
	keyAllow     = "routing.allowConflictingSubnets"
	keyNever     = "routing.neverProxySubnets"
	keyConflicts = "routing.conflicts"
	keyProxyVia  = "proxyVia"
)

// enforcedList returns what is in force of a list.
func (m *merger) enforcedList(path string, entries []entry) []entry {
	team, enforced := m.bounds(path)
	if !enforced {
		return entries
	}
	var out []entry
	for _, e := range entries {
		if e.origin.Source == SourcePolicy {
			out = append(out, e)
			continue
		}
		kept := within(path, e, team)
		if len(kept) != 1 || kept[0].text != e.text {
			m.narrow(path, e)
		}
		out = append(out, kept...)
	}
	if !m.enforces(path) {
		return distinct(out)
	}
	noSubnets := len(out) == 0 && strings.HasPrefix(path, "cluster.") // would mean the discovered ones
	if path == keyNever || path == keyConflicts || path == keyProxyVia || noSubnets {
		out = append(out, m.teamList(path)...)
	}
	m.from[path] = append(m.from[path], m.team.origin(path))
	return distinct(out)
}

// bounds returns the team's entries that those of others have to lie within, and whether they have to.
func (m *merger) bounds(path string) ([]entry, bool) {
	if path == keyAllow || path == keyConflicts {
		if m.enforces(keyAllow) || m.enforces(keyConflicts) {
			return m.teamAllows(), true
		}
		return nil, false
	}
	if m.enforces(path) {
		return m.teamList(path), true
	}
	return nil, false
}

// teamAllows returns the subnets that the team allows to be taken, in whatever words.
func (m *merger) teamAllows() []entry {
	out := m.teamList(keyAllow)
	for _, e := range m.teamList(keyConflicts) {
		if subnet, allowed := strings.CutSuffix(e.text, "="+string(ResolveAllow)); allowed {
			out = append(out, entry{subnet, e.origin})
		}
	}
	return out
}

// enforced marks a rule of the team's that it enforces by key.
func (m *merger) enforced(key string, r RoutingRule) RoutingRule {
	r.Enforced = r.Origin.Source == SourcePolicy && m.enforces(key)
	return r
}

// obey drops what other sources say inside a prefix that the team enforces to be left alone or to its owner.
func (m *merger) obey(rules []RoutingRule) []RoutingRule {
	return slices.DeleteFunc(slices.Clone(rules), func(r RoutingRule) bool {
		against, key := RoutingRule.leaves, keyConflicts
		if r.Resolve == ResolveAlso {
			against, key = func(e RoutingRule) bool { return e.Resolve == ResolveNever }, keyNever
		}
		forbids := func(e RoutingRule) bool {
			return e.Enforced && against(e) && e.Prefix.IsValid() && r.Prefix.IsValid() && covers(e.Prefix, r.Prefix)
		}
		forbidden := r.takes() && r.Origin.Source != SourcePolicy && slices.ContainsFunc(rules, forbids)
		if forbidden {
			m.narrow(key, entry{string(r.Resolve) + " " + r.subnet(), r.Origin})
		}
		return forbidden
	})
}

// teamList returns the entries of the enforcing Policy, without what extends or is extended.
func (m *merger) teamList(path string) []entry {
	k, _ := KeyByPath(path)
	var out []entry
	for j, text := range k.list(&m.team.Settings) {
		out = append(out, entry{strings.TrimPrefix(text, extend), m.team.origin(entryKey(path, j), path)})
	}
	return out
}

// within returns what of an entry the team's entries let be.
func within(path string, e entry, team []entry) []entry {
	switch path {
	case keyNever:
		return []entry{e}
	case keyConflicts:
		return conflictWithin(e, team)
	case "dns.includeSuffixes":
		if slices.ContainsFunc(team, func(t entry) bool { return e.text == t.text || strings.HasSuffix(e.text, "."+t.text) }) {
			return []entry{e}
		}
		return nil
	case "dns.namespaces", keyProxyVia:
		if slices.ContainsFunc(team, func(t entry) bool { return e.text == t.text }) {
			return []entry{e}
		}
		return nil
	}
	return subnetWithin(e, team)
}

// subnetWithin returns the part of a prefix or symbol inside those of the team.
func subnetWithin(e entry, team []entry) []entry {
	var out []entry
	for _, t := range team {
		switch {
		case insideSubnet(e.text, t.text):
			return []entry{e}
		case insideSubnet(t.text, e.text):
			out = append(out, entry{t.text, e.origin}) // it was asked for, as a part of more
		}
	}
	return out
}

// insideSubnet reports whether inner, a prefix or a symbol, is a part of outer for sure.
func insideSubnet(inner, outer string) bool {
	if inner == outer || outer == string(SymbolAll) && slices.Contains(symbols, inner) {
		return true
	}
	i, err := netip.ParsePrefix(inner)
	o, err2 := netip.ParsePrefix(outer)
	return err == nil && err2 == nil && covers(o, i)
}

// conflictWithin keeps what leaves the subnet to others, and an allow inside what the team allows.
func conflictWithin(e entry, allowed []entry) []entry {
	subnet, resolve, _ := strings.Cut(e.text, "=")
	if resolve != string(ResolveAllow) {
		return []entry{e}
	}
	kept := subnetWithin(entry{subnet, e.origin}, allowed)
	for i := range kept {
		kept[i].text += "=" + string(ResolveAllow)
	}
	return kept
}

// distinct keeps the first of equal entries.
func distinct(entries []entry) []entry {
	seen := map[string]bool{}
	return slices.DeleteFunc(entries, func(e entry) bool {
		again := seen[e.text]
		seen[e.text] = true
		return again
	})
}
