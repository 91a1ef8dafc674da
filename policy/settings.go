package policy

import (
	"net/netip"
	"slices"
	"time"
)

// DefaultLookupTimeout bounds one question to the cluster's resolver unless settings say otherwise.
const DefaultLookupTimeout = 4 * time.Second

// Settings are the effective settings of a connection, parsed, with every list sorted and free of
// repetitions. [Merge] makes them.
type Settings struct {
	// Routing is all of the section routing, as one list of rules.
	Routing []RoutingRule `json:"routing,omitempty"`
	// OnConflict is what becomes of overlaps that no rule settles: [ResolveError], also if empty,
	// [ResolveYield] or [ResolveVirtualize]; and who said so.
	OnConflict     Resolve `json:"onConflict,omitempty"`
	OnConflictFrom Origin  `json:"onConflictFrom,omitzero"`
	// ServiceSubnets and PodSubnets replace what the gateway discovered; empty means they do not.
	ServiceSubnets []netip.Prefix `json:"serviceSubnets,omitempty"`
	PodSubnets     []netip.Prefix `json:"podSubnets,omitempty"`
	// VirtualSubnet and VirtualIPv6Subnet are what virtual addresses are taken from; not valid means
	// that ChooseVirtual finds one.
	VirtualSubnet     netip.Prefix `json:"virtualSubnet,omitzero"`
	VirtualIPv6Subnet netip.Prefix `json:"virtualIPv6Subnet,omitzero"`
	DNS               DNSSettings  `json:"dns"`
	// MTU is in bytes of the inner IP packet; 0 means it is derived from the route.
	MTU int `json:"mtu,omitempty"`
	// Narrowed is what was asked for beyond what the team's Policy enforces, and is not in force.
	Narrowed []Narrowing `json:"narrowed,omitempty"`
}

// DNSSettings say which names are asked of the cluster.
type DNSSettings struct {
	Namespaces []string `json:"namespaces,omitempty"`
	// IncludeSuffixes are lower case, without a trailing dot.
	IncludeSuffixes []Suffix `json:"includeSuffixes,omitempty"`
	// LookupTimeout is never zero in merged settings.
	LookupTimeout time.Duration `json:"lookupTimeout"`
}

// Suffix is a domain asked of the cluster, and who said so.
type Suffix struct {
	Name   string `json:"name"`
	Origin Origin `json:"origin"`
}

// Resolve is what a routing rule does with its prefix.
type Resolve string

// What a rule can do.
const (
	// ResolveAllow lets the cluster take its addresses from whoever else routes them.
	ResolveAllow Resolve = "allow"
	// ResolveAlso sends the prefix through the tunnel although it is no subnet of the cluster.
	ResolveAlso Resolve = "also"
	// ResolveNever leaves the prefix with the route it has.
	ResolveNever Resolve = "never"
	// ResolveYield leaves what others route in the prefix to them; the rest of it is the cluster's.
	ResolveYield Resolve = "yield"
	// ResolveVirtualize hides what others route in the prefix behind virtual addresses; the rest of it is
	// reached by its own.
	ResolveVirtualize Resolve = "virtualize"
	// ResolveVia hides the whole prefix behind virtual addresses, whoever routes it, and has the workload
	// in [RoutingRule.Via] reach it. It comes from proxyVia.
	ResolveVia Resolve = "via"
	// ResolveError refuses to connect over a conflict. It is a default only, never a rule's.
	ResolveError Resolve = "error"
)

// RoutingRule is one prefix and what is to become of it.
type RoutingRule struct {
	// Prefix is not valid where Symbol stands for the prefixes.
	Prefix  netip.Prefix `json:"prefix,omitzero"`
	Symbol  Symbol       `json:"symbol,omitempty"`
	Resolve Resolve      `json:"resolve"`
	// Via is the workload of a [ResolveVia] in the normal form of [Workload]; "" means the gateway, too.
	Via    string `json:"via,omitempty"`
	Origin Origin `json:"origin"`
	// Enforced says that no other source may say otherwise: the team's Policy enforces it.
	Enforced bool `json:"enforced,omitempty"`
}

// takes reports whether a rule of its kind takes something from the host.
func (r RoutingRule) takes() bool { return r.Resolve == ResolveAllow || r.Resolve == ResolveAlso }

// leaves reports whether a rule leaves what others route to them.
func (r RoutingRule) leaves() bool {
	return r.Resolve == ResolveYield || r.Resolve == ResolveVirtualize
}

// decides reports whether a rule says who has what the cluster and others both claim.
func (r RoutingRule) decides() bool { return r.Resolve == ResolveAllow || r.leaves() }

// subnet is the rule's prefix or symbol as it was written.
func (r RoutingRule) subnet() string {
	if r.Symbol != "" {
		return string(r.Symbol)
	}
	return r.Prefix.String()
}

// Without returns the settings without what source would take from the host: its allowed and
// also-proxied prefixes and its domains. It is how a plan looks before the user agreed to a cluster's
// Policy. What is never proxied, yielded or reached by virtual addresses takes nothing and stays.
func (s Settings) Without(source Source) Settings {
	s.Routing = slices.DeleteFunc(slices.Clone(s.Routing), func(r RoutingRule) bool {
		return r.Origin.Source == source && r.takes()
	})
	s.DNS.IncludeSuffixes = slices.DeleteFunc(slices.Clone(s.DNS.IncludeSuffixes), func(x Suffix) bool { return x.Origin.Source == source })
	return s
}

// rules returns the prefixes of all rules of one kind, symbols left out.
func (s Settings) rules(want Resolve) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range s.Routing {
		if r.Resolve == want && r.Symbol == "" {
			out = append(out, r.Prefix)
		}
	}
	return out
}
