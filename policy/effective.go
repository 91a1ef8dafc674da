package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// Effective is what is in force of one key, and where it came from.
type Effective struct {
	Key string `json:"key"`
	// Value is the value as a file would have it, also a default.
	Value string `json:"value"`
	// Entries are those of a list, each with its origin; empty for a key that is no list.
	Entries []Said `json:"entries,omitempty"`
	// Sources are what the value was made of, highest precedence first, each once.
	Sources []Origin `json:"sources"`
	// Overridden is what sources of lower precedence say in vain, highest precedence first.
	Overridden []Said `json:"overridden,omitempty"`
	// Narrowed is what was cut back because the team's Policy enforces the key.
	Narrowed []Narrowing `json:"narrowed,omitempty"`
}

// Said is a value as a file would have it, and who says so.
type Said struct {
	Value  string `json:"value"`
	Origin Origin `json:"origin"`
}

// EffectiveSettings returns what [Merge] makes of layers key by key, in the order of [Keys], and what it
// drops. It fails as Merge does.
func EffectiveSettings(layers ...Layer) ([]Effective, error) {
	m, err := newMerger(layers)
	if err != nil {
		return nil, err
	}
	s, err := m.settings()
	if err != nil {
		return nil, err
	}
	if m.team != nil {
		m.inForce["enforce"] = m.teamList("enforce")
	}
	var out []Effective
	for _, k := range keys {
		out = append(out, m.effective(k, s.Routing))
	}
	return out, nil
}

// effective describes one key, once the settings are made; routing are their rules.
func (m *merger) effective(k Key, routing []RoutingRule) Effective {
	e := Effective{Key: k.Path, Overridden: m.overridden(k)}
	for _, o := range m.from[k.Path] {
		if !slices.Contains(e.Sources, o) {
			e.Sources = append(e.Sources, o)
		}
	}
	var texts []string
	for _, x := range m.inForce[k.Path] {
		said := Said{x.text, x.origin}
		if k.contradicted(x, routing) {
			e.Overridden = append(e.Overridden, said)
			continue
		}
		texts = append(texts, x.text)
		if k.Type.IsList() {
			e.Entries = append(e.Entries, said)
		}
	}
	e.Value = k.inFile(texts)
	for _, n := range m.narrowed {
		if n.Key == k.Path {
			e.Narrowed = append(e.Narrowed, n)
		}
	}
	return e
}

// overridden returns what the layers below the deciding one say. What takes effect all the same, because
// it is enforced, is not among it.
func (m *merger) overridden(k Key) []Said {
	var out []Said
	decided := false
	for i := range m.layers {
		l := &m.layers[i]
		if !l.says(k) || k.PolicyOnly() {
			continue
		}
		if origin := l.origin(k.Path); decided && !slices.Contains(m.from[k.Path], origin) {
			out = append(out, Said{k.written(l), origin})
		}
		decided = decided || !k.Type.IsList() || !isExtension(k.list(&l.Settings))
	}
	return out
}

// written is what a layer says of a key, as a file would have it.
func (k Key) written(l *Layer) string {
	if !k.Type.IsList() {
		return k.InFile(cmp.Or(k.text(&l.Settings), k.Default))
	}
	return k.inFile(k.list(&l.Settings))
}

// inFile is the value made of texts, one for a key that is no list, as a file would have it.
func (k Key) inFile(texts []string) string {
	if k.Type.IsList() && len(texts) == 0 {
		return "[]"
	}
	if k.Type.Fields() != nil {
		return k.InFile(strings.Join(texts, ","))
	}
	return k.InFile(strings.Join(texts, ", "))
}

// contradicted reports whether an entry that allows, yields or virtualizes a subnet lost against one that
// says something else.
func (k Key) contradicted(e entry, routing []RoutingRule) bool {
	subnet, resolve := e.text, string(ResolveAllow)
	switch k.Path {
	case "routing.conflicts":
		subnet, resolve, _ = strings.Cut(e.text, "=")
	case "routing.allowConflictingSubnets":
	default:
		return false
	}
	return !slices.Contains(routing, routingRule(subnet, Resolve(resolve), e.origin))
}

// EffectiveText is what a person reads of settings and their sources: a line per key, and below it what
// needs a line of its own.
func EffectiveText(settings []Effective) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, e := range settings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.Key, e.Value, joinOrigins(e.Sources))
		for _, x := range e.Entries {
			if len(e.Sources) > 1 {
				fmt.Fprintf(w, "  \t%s\t%s\n", x.Value, x.Origin)
			}
		}
		for _, x := range e.Overridden {
			fmt.Fprintf(w, "  overridden\t%s\t%s\n", x.Value, x.Origin)
		}
		for _, n := range e.Narrowed {
			fmt.Fprintf(w, "  cut back\t%s\t%s; %s enforces the key\n", cmp.Or(n.Value, `""`), n.Origin, n.By.Position)
		}
	}
	w.Flush()
	return b.String()
}

func joinOrigins(origins []Origin) string {
	var texts []string
	for _, o := range origins {
		texts = append(texts, o.String())
	}
	return strings.Join(texts, ", ")
}
