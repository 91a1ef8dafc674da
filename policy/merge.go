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
// A layer with a bad value is an error, and nothing is returned then.
func Merge(layers ...Layer) (Settings, Provenance, error) {
	var problems []error
	layers = slices.Clone(layers)
	for i := range layers {
		normal, err := layers[i].normal()
		problems = append(problems, err)
		layers[i].Settings = normal
	}
	if err := errors.Join(problems...); err != nil {
		return Settings{}, nil, err
	}
	m := merger{layers: layers, from: Provenance{}}
	return m.settings(), m.from, nil
}

type merger struct {
	layers []Layer // in normal form
	from   Provenance
}

func (m *merger) settings() Settings {
	s := Settings{
		ServiceSubnets: prefixesOf(m.list("cluster.serviceSubnets")),
		PodSubnets:     prefixesOf(m.list("cluster.podSubnets")),
		DNS:            m.dns(),
		MTU:            m.integer("transport.mtu"),
	}
	for _, section := range []struct {
		key     string
		resolve Resolve
	}{
		{"routing.allowConflictingSubnets", ResolveAllow},
		{"routing.alsoProxySubnets", ResolveAlso},
		{"routing.neverProxySubnets", ResolveNever},
	} {
		for _, e := range m.list(section.key) {
			s.Routing = append(s.Routing, RoutingRule{netip.MustParsePrefix(e.text), section.resolve, e.origin})
		}
	}
	slices.SortFunc(s.Routing, compareRules)
	return s
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

// list merges a list. Of equal entries the one of highest precedence is kept.
func (m *merger) list(path string) []entry {
	k, _ := KeyByPath(path)
	var out []entry
	seen := map[string]bool{}
	for i := range m.layers {
		l := &m.layers[i]
		texts := *k.field(&l.Settings).(*[]string)
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

// scalar returns the value of highest precedence as text, or the default.
func (m *merger) scalar(path string) string {
	k, _ := KeyByPath(path)
	for i := range m.layers {
		l := &m.layers[i]
		text := k.text(&l.Settings)
		if _, said := l.Positions[path]; !said && text == "" {
			continue
		}
		m.from[path] = []Origin{l.origin(path)}
		if text != "" {
			return text
		}
		break // said to be zero, which is the default of every scalar that can be zero
	}
	if m.from[path] == nil {
		m.from[path] = []Origin{{Source: SourceDefault}}
	}
	return k.Default
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
		strings.Compare(string(a.Resolve), string(b.Resolve)),
		strings.Compare(a.Origin.String(), b.Origin.String()),
	)
}
