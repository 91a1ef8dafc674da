package policy

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Layer is the settings of one source.
type Layer struct {
	Source Source
	// Name is how messages and provenance call the source where Positions has nothing, such as
	// "Policy culvert/default".
	Name     string
	Settings v1alpha1.Settings
	// Positions may be nil, as for a Policy of the cluster.
	Positions Positions
}

// Merge puts layers together, highest precedence first. A list replaces those of lower precedence,
// unless its entries begin with "+": then it extends them; a scalar replaces. Defaults fill the rest.
// A layer with a bad value is an error, and so are entries of proxyVia with addresses in common; nothing
// is returned then.
func Merge(layers ...Layer) (Settings, Provenance, error) {
	m, err := newMerger(layers)
	if err != nil {
		return Settings{}, nil, err
	}
	s, err := m.settings()
	if err != nil {
		return Settings{}, nil, err
	}
	return s, m.from, nil
}

// newMerger checks the layers and brings them to normal form.
func newMerger(layers []Layer) (*merger, error) {
	var problems []error
	layers = slices.Clone(layers)
	for i := range layers {
		normal, err := layers[i].normal()
		problems = append(problems, err)
		layers[i].Settings = normal
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	m := &merger{layers: layers, from: Provenance{}, inForce: map[string][]entry{}}
	m.findEnforced()
	m.from["enforce"] = m.enforcers()
	return m, nil
}

type merger struct {
	layers   []Layer // in normal form
	from     Provenance
	team     *Layer // that enforces something; nil if none does
	narrowed []Narrowing
	inForce  map[string][]entry // what was made of each key; a scalar is one entry
}

func (m *merger) settings() (Settings, error) {
	s := Settings{
		Routing:           m.routing(),
		OnConflict:        Resolve(m.scalar("routing.onConflict")),
		OnConflictFrom:    m.from["routing.onConflict"][0],
		VirtualSubnet:     m.prefix("cluster.virtualIPSubnet"),
		VirtualIPv6Subnet: m.prefix("cluster.virtualIPv6Subnet"),
		ServiceSubnets:    prefixesOf(m.list("cluster.serviceSubnets")),
		PodSubnets:        prefixesOf(m.list("cluster.podSubnets")),
		DNS:               m.dns(),
		MTU:               m.integer("transport.mtu"),
	}
	s.Narrowed = m.narrowed
	return s, checkVia(s, nil)
}

// routing merges all that says what becomes of prefixes into one list of rules, sorted.
func (m *merger) routing() []RoutingRule {
	var rules []RoutingRule
	for _, section := range []struct {
		key     string
		resolve Resolve
	}{
		{"routing.allowConflictingSubnets", ResolveAllow},
		{"routing.alsoProxySubnets", ResolveAlso},
		{"routing.neverProxySubnets", ResolveNever},
	} {
		for _, e := range m.list(section.key) {
			rules = append(rules, m.enforced(section.key, routingRule(e.text, section.resolve, e.origin)))
		}
	}
	for _, e := range m.list("routing.conflicts") {
		subnet, resolve, _ := strings.Cut(e.text, "=")
		rules = append(rules, m.enforced("routing.conflicts", routingRule(subnet, Resolve(resolve), e.origin)))
	}
	for _, e := range m.list(keyProxyVia) {
		rules = append(rules, m.enforced(keyProxyVia, viaRule(e.text, e.origin)))
	}
	rules = settle(m.obey(rules), RoutingRule.subnet)
	slices.SortFunc(rules, compareRules)
	return rules
}

func (m *merger) dns() DNSSettings {
	d := DNSSettings{LookupTimeout: m.duration("dns.lookupTimeout")}
	for _, e := range m.list("dns.namespaces") {
		d.Namespaces = append(d.Namespaces, e.text)
	}
	for _, e := range m.list("dns.includeSuffixes") {
		d.IncludeSuffixes = append(d.IncludeSuffixes, Suffix{e.text, e.origin})
	}
	slices.Sort(d.Namespaces)
	slices.SortFunc(d.IncludeSuffixes, func(a, b Suffix) int { return strings.Compare(a.Name, b.Name) })
	return d
}

// entry is one entry of a merged list.
type entry struct {
	text   string
	origin Origin
}

// list merges a list and cuts it back to what the team enforces.
func (m *merger) list(path string) []entry {
	entries := m.enforcedList(path, m.merged(path, m.layers))
	m.inForce[path] = entries
	return entries
}

// merged merges a list out of layers. Of equal entries the one of highest precedence is kept.
func (m *merger) merged(path string, layers []Layer) []entry {
	k, _ := KeyByPath(path)
	var out []entry
	seen := map[string]bool{}
	for i := range layers {
		l := &layers[i]
		texts := k.list(&l.Settings)
		if texts == nil {
			continue
		}
		m.from[path] = append(m.from[path], l.origin(path))
		for j, text := range texts {
			if text = strings.TrimPrefix(text, extend); !seen[text] {
				seen[text] = true
				out = append(out, entry{text, l.origin(entryKey(path, j), path)})
			}
		}
		if !isExtension(texts) {
			return out
		}
	}
	m.from[path] = append(m.from[path], Origin{Source: SourceDefault})
	return out
}

// scalar returns the value of highest precedence as text, or the default, or what the team enforces.
func (m *merger) scalar(path string) string {
	value := m.enforcedScalar(path, m.highest(path))
	m.inForce[path] = []entry{{value, m.from[path][0]}}
	return value
}

// highest returns the value of highest precedence as text, or the default.
func (m *merger) highest(path string) string {
	k, _ := KeyByPath(path)
	for i := range m.layers {
		l := &m.layers[i]
		if !l.says(k) {
			continue
		}
		m.from[path] = []Origin{l.origin(path)}
		if text := k.text(&l.Settings); text != "" {
			return text
		}
		break // said to be zero, which is the default of every scalar that can be zero
	}
	if m.from[path] == nil {
		m.from[path] = []Origin{{Source: SourceDefault}}
	}
	return k.Default
}

// says reports whether a layer in normal form says anything of a key, also if it says zero.
func (l *Layer) says(k Key) bool {
	if k.Type.IsList() {
		return k.list(&l.Settings) != nil
	}
	_, said := l.Positions[k.Path]
	return said || k.text(&l.Settings) != ""
}

func (m *merger) integer(path string) int {
	n, err := strconv.Atoi(m.scalar(path))
	if err != nil {
		panic("policy: " + path + ": " + err.Error())
	}
	return n
}

func (m *merger) duration(path string) time.Duration {
	d, err := time.ParseDuration(m.scalar(path))
	if err != nil {
		panic("policy: " + path + ": " + err.Error())
	}
	return d
}

// prefix returns a prefix, not valid for none.
func (m *merger) prefix(path string) netip.Prefix {
	text := m.scalar(path)
	if text == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(text)
}

// origin returns where the first of the keys that has a position was written.
func (l *Layer) origin(paths ...string) Origin {
	for _, p := range paths {
		if at, ok := l.Positions[p]; ok {
			return Origin{l.Source, at}
		}
	}
	return Origin{l.Source, Position{Name: l.Name}}
}

func prefixesOf(entries []entry) []netip.Prefix {
	var out []netip.Prefix
	for _, e := range entries {
		out = append(out, netip.MustParsePrefix(e.text))
	}
	slices.SortFunc(out, comparePrefix)
	return out
}

func compareRules(a, b RoutingRule) int {
	return cmp.Or(
		comparePrefix(a.Prefix, b.Prefix),
		strings.Compare(string(a.Symbol), string(b.Symbol)),
		strings.Compare(string(a.Resolve), string(b.Resolve)),
		strings.Compare(a.Origin.String(), b.Origin.String()),
		strings.Compare(a.Via, b.Via),
	)
}
