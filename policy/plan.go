package policy

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// Input is everything a plan follows from.
type Input struct {
	Settings Settings
	Cluster  Cluster
	Facts    Facts
	// Own says what among the facts is this connection's own doing.
	Own Own
	// NoPolicyRouting is for hosts with one routing table and no rules (macOS, Windows): there the plan
	// has no rules and no throw routes, and wins by prefixes that are longer than the host's own.
	NoPolicyRouting bool
	// Virtual is what twins are made of; the zero value means that there are none.
	Virtual Virtual
	// Overlay are the Peer's /31 and /127, as [ProposeOverlay] returned them. The gateway's address in
	// each goes through the tunnel whatever else is decided.
	Overlay []netip.Prefix
	// Protected are addresses that must never enter the tunnel: those really dialled (API server, its
	// proxy, gateway endpoints) and the host's resolvers. What the facts show to be in need of
	// protection need not be repeated.
	Protected []Protected
}

// Own names the marks of this connection on the host. Zero fields match nothing.
type Own struct {
	Interface string
	Table     uint32
}

// Protected is a prefix, mostly one address, that keeps the route it has.
type Protected struct {
	Prefix netip.Prefix `json:"prefix"`
	Reason string       `json:"reason"`
}

// ProtectAddr protects one address. A zone is dropped, an IPv4-mapped address unmapped.
func ProtectAddr(a netip.Addr, reason string) Protected { return Protected{hostPrefix(a), reason} }

// Plan is what is to be done, and why. Equal inputs give equal plans, every list is sorted, and
// nothing in it depends on the order of facts or settings. A plan is always safe to apply: what is
// in conflict is left out of it.
type Plan struct {
	// AllowedIPs are the gateway's destinations on the wire, as few prefixes as possible: the addresses of
	// the cluster that are reached by their own, and those of every twin that no workload has.
	AllowedIPs []netip.Prefix `json:"allowedIPs"`
	// Routes are the content of our routing table. Longest-prefix match over them gives exactly what
	// programs may send into the tunnel: the cluster's addresses in AllowedIPs, the direct twins and the
	// pools; protected addresses are not in it, nor in the first of these. What is carved out of a tunnel
	// route is a throw. Without policy routing they are beside the host's own routes, and longest-prefix
	// match over both gives the same; none equals a route of the host.
	Routes []PlannedRoute `json:"routes"`
	// Rules are the policy routing rules that lead to our table.
	Rules PlannedRules `json:"rules"`
	// Conflicts are all overlaps of a cluster subnet with a route of somebody else, settled or not.
	Conflicts []Conflict `json:"conflicts"`
	// Yielded are the wanted addresses that others keep, by a setting, because nothing settles who gets
	// them, or because a connected network has them, as few prefixes as possible. Names that resolve into
	// them are withheld, and connections into them that went through the tunnel are reset.
	Yielded []netip.Prefix `json:"yielded"`
	// Virtualized are the wanted addresses that programs reach by virtual ones only, as few prefixes as
	// possible: names that resolve into them are answered with the virtual addresses.
	Virtualized []netip.Prefix `json:"virtualized,omitempty"`
	// Protected are those protected prefixes that would otherwise have gone through the tunnel.
	Protected []Protected `json:"protected"`
	// Twins are the prefixes under which the cluster's subnets can be reached beside their own, sorted, each
	// in one way; none lies in another.
	Twins []Twin `json:"twins,omitempty"`
	// PeerTwins are those of Twins that the gateway has, as its Peer is told: each undivided, with what
	// workloads have in its midst. A Peer has room for all of them.
	PeerTwins []Twin `json:"peerTwins,omitempty"`
	// Undivided are the twins that those in Twins are parts of, which are to be kept; see [Virtual.Keep].
	Undivided []Twin `json:"-"`
	// Vias are the workloads whose agents have the other twins, sorted.
	Vias []Via `json:"vias,omitempty"`
	// Pools are what the virtual addresses of pooled twins are taken from, one per family that has such
	// twins.
	Pools []netip.Prefix `json:"pools,omitempty"`
	// Warnings are sentences for people: what could not be read, what is less than was asked for.
	Warnings []string `json:"warnings"`
	// Trace is a line of key=value pairs per family, for logs.
	Trace []string `json:"trace"`
}

// RouteKind is what a planned route does.
type RouteKind string

// Route kinds.
const (
	// RouteTunnel sends the prefix into the tunnel.
	RouteTunnel RouteKind = "tunnel"
	// RouteThrow hands the prefix to the rules behind ours, as if our table did not exist.
	RouteThrow RouteKind = "throw"
)

// PlannedRoute is one route of our table.
type PlannedRoute struct {
	Prefix netip.Prefix `json:"prefix"`
	Kind   RouteKind    `json:"kind"`
	Reason string       `json:"reason"`
}

// PlannedRules holds the rule of each family.
type PlannedRules struct {
	V4 PlannedRule `json:"v4,omitzero"`
	V6 PlannedRule `json:"v6,omitzero"`
}

// PlannedRule is the rule that leads to our table.
type PlannedRule struct {
	// Priority is 1 or more; 0 means that the family needs no rule.
	Priority int    `json:"priority,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// SkipMarks are the marks by which other tunnels keep their own packets out of their own routes;
	// packets that carry one must not be caught by our rule either. Values are not 0 and within their
	// masks.
	SkipMarks []Mark `json:"skipMarks,omitempty"`
}

// Equal reports whether two plans say the same.
func (p Plan) Equal(q Plan) bool { return reflect.DeepEqual(p, q) }

// Unsettled returns the conflicts that no setting settles: under "error", the reason not to connect.
func (p Plan) Unsettled() []Conflict {
	var out []Conflict
	for _, c := range p.Conflicts {
		if len(c.Open) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// NewPlan decides. It never fails: what cannot be had is left out, and a conflict or a warning says so.
func NewPlan(in Input) Plan { return new(Planner).Plan(in) }

// decide is NewPlan with a look at every route.
func decide(in Input, w wishes) Plan {
	v := newView(in.Facts, in.Own)
	s, claims := v.sweep(in, w)
	s.run()

	p := Plan{
		AllowedIPs:  s.onWire().prefixes(),
		Routes:      s.hostRoutes(),
		Conflicts:   s.conflicts(),
		Yielded:     joined(joined(s.open, s.yielded), s.lan).prefixes(),
		Virtualized: s.virtual.orNone(),
		Protected:   s.effective(s.protect),
		Twins:       s.twins,
		PeerTwins:   s.gateways,
		Undivided:   s.undivided,
		Vias:        viasOf(s.twins, s.undivided),
		Pools:       poolsFor(in.Virtual, s.twins),
		Warnings:    slices.Clone(in.Facts.Warnings),
	}
	p.Rules.V4 = s.rule(IPv4, claims)
	p.Rules.V6 = s.rule(IPv6, claims)
	p.Warnings = append(p.Warnings, s.warnings(p.Protected)...)
	p.Warnings = append(p.Warnings, s.virtualWarnings()...)
	slices.Sort(p.Warnings)
	p.Warnings = append([]string{}, slices.Compact(p.Warnings)...)
	p.Trace = []string{p.trace(IPv4, p.Rules.V4), p.trace(IPv6, p.Rules.V6)}
	return p
}

// sweep returns a sweep that is ready to run, and the claims it weighs.
func (v *view) sweep(in Input, w wishes) (*sweep, map[Family][]claim) {
	if in.NoPolicyRouting {
		v.single = v.singleRoutes()
	}
	s := &sweep{v: v, rules: expanded(in.Settings.Routing, w.wants), onConflict: in.Settings.OnConflict, onConflictFrom: in.Settings.OnConflictFrom}
	s.undivided = v.twins(in, w.wants)
	s.twins, s.gateways = bordersOf(s.rules, w.wants).divide(s.undivided, w.wants)
	s.wants = reachable(w.wants, s.twins)
	s.vips = vipRanges(in.Virtual, s.twins)
	interest := w.interest
	if len(s.vips) > 0 {
		interest = joined(interest, rangesOf(prefixesOfVIPs(s.vips)...))
	}
	claims := v.claims(interest)
	s.protect = v.protected(in, claims, interest)
	s.add(in)
	s.addClaims(claims[IPv4])
	s.addClaims(claims[IPv6])
	s.addClaims(v.ipsecClaims(in.Facts.IPsec, interest))
	return s, claims
}

// wishes are what an input is about, whatever the host is like.
type wishes struct {
	wants    []want
	interest rangeSet // all addresses that may go through the tunnel
	virtual  rangeSet // where twins are
}

func wishesOf(in Input) wishes {
	w := wishes{wants: withHidden(wants(in.Cluster, in.Settings), in.Settings)}
	var all []netip.Prefix
	for _, x := range w.wants {
		all = append(all, x.prefix)
	}
	for _, p := range in.Overlay {
		if p.IsValid() {
			all = append(all, hostPrefix(GatewayAddr(p.Addr())))
		}
	}
	w.interest = rangesOf(all...)
	for _, p := range []netip.Prefix{in.Virtual.V4, in.Virtual.V6} {
		if p.IsValid() {
			w.virtual = joined(w.virtual, rangesOf(p))
		}
	}
	return w
}

// trace sums up one family.
func (p *Plan) trace(f Family, rule PlannedRule) string {
	var tunnels, throws, conflicts, open, protected int
	for _, r := range p.Routes {
		switch {
		case familyOf(r.Prefix.Addr()) != f:
		case r.Kind == RouteTunnel:
			tunnels++
		default:
			throws++
		}
	}
	for _, c := range p.Conflicts {
		if familyOf(c.Subnet.Addr()) == f {
			conflicts++
			open += min(1, len(c.Open))
		}
	}
	for _, x := range p.Protected {
		if familyOf(x.Prefix.Addr()) == f {
			protected++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "family=%s tunnel=%d throw=%d conflicts=%d open=%d protected=%d", strings.ToLower(f.String()), tunnels, throws, conflicts, open, protected)
	if n := familyCount(f, p.Virtualized); n > 0 {
		fmt.Fprintf(&b, " virtualized=%d", n)
	}
	if n := agentTwins(f, p.Vias); n > 0 {
		fmt.Fprintf(&b, " agentTwins=%d", n)
	}
	if rule.Priority > 0 {
		fmt.Fprintf(&b, " rule=%d", rule.Priority)
	}
	return b.String()
}

// agentTwins counts the twins of a family that agents have.
func agentTwins(f Family, vias []Via) int {
	n := 0
	for _, v := range vias {
		n += familyCount(f, virtualPrefixes(v.Twins))
	}
	return n
}

// familyCount counts the prefixes of a family.
func familyCount(f Family, prefixes []netip.Prefix) int {
	n := 0
	for _, p := range prefixes {
		if familyOf(p.Addr()) == f {
			n++
		}
	}
	return n
}
