package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Outcome is what becomes of packets to one address.
type Outcome string

// Outcomes.
const (
	// OutcomeTunnel: they go through the tunnel.
	OutcomeTunnel Outcome = "tunnel"
	// OutcomeOutside: the address is none of the cluster's; they go the way they always had.
	OutcomeOutside Outcome = "outside"
	// OutcomeProtected, OutcomeNever, OutcomeLAN: they keep their way because it carries the tunnel or
	// the host's own life, because a setting says so, because the network is a connected one.
	OutcomeProtected Outcome = "protected"
	OutcomeNever     Outcome = "never"
	OutcomeLAN       Outcome = "lan"
	// OutcomeYielded and OutcomeOpen: another network keeps them, because a setting says so or because
	// no setting settles who gets them.
	OutcomeYielded Outcome = "yielded"
	OutcomeOpen    Outcome = "open"
	// OutcomeVirtual: they keep their way, and names that lead to the address are answered with a virtual
	// one.
	OutcomeVirtual Outcome = "virtual"
)

var outcomes = map[verdict]Outcome{
	notWanted: OutcomeOutside, toTunnel: OutcomeTunnel, keepProtected: OutcomeProtected, keepNever: OutcomeNever,
	keepLAN: OutcomeLAN, keepYielded: OutcomeYielded, keepOpen: OutcomeOpen,
	keepVirtual: OutcomeVirtual,
}

// Explanation says what becomes of packets to one address, and why.
type Explanation struct {
	Addr    netip.Addr `json:"addr"`
	Outcome Outcome    `json:"outcome"`
	// Reason is one sentence without a full stop, never empty.
	Reason string `json:"reason"`
	// Subnet is the cluster's prefix around the address, or around the one that it stands for, and its
	// kind; not valid outside the cluster.
	Subnet netip.Prefix `json:"subnet,omitzero"`
	Kind   SubnetKind   `json:"kind,omitempty"`
	// Twin is the address that stands for this one on the wire, Real the one that this one stands for
	// there; not valid if there is none. Where Pooled is set programs cannot use the former, but an
	// address that is leased from Pool when a name leads there. An address of Pool has neither: only the
	// lease knows what it stands for.
	Twin   netip.Addr   `json:"twin,omitzero"`
	Real   netip.Addr   `json:"real,omitzero"`
	Pooled bool         `json:"pooled,omitempty"`
	Pool   netip.Prefix `json:"pool,omitzero"`
	// Via is the workload whose agent packets to the twin, or to the virtual address that this one is, go
	// through; "" for the gateway.
	Via string `json:"via,omitempty"`
	// Route is the route of our table that packets to the address follow; its prefix is not valid if
	// there is none.
	Route PlannedRoute `json:"route,omitzero"`
	// Rule leads to our table; its priority is 0 if there is none for the family.
	Rule PlannedRule `json:"rule,omitzero"`
	// Host is the route that an ordinary packet takes when ours does not catch it; nil if there is none.
	Host *Claim `json:"host,omitempty"`
	// Claims are all routes of others that bear on the address, default routes left out, in the order
	// in which the kernel would come to them, and behind them all IPsec policies: one of those takes the
	// packet whatever its route says.
	Claims []Claim `json:"claims"`
}

// Explain says what a plan of the same input does with one address. A zone is dropped, an IPv4-mapped
// address unmapped.
func Explain(in Input, a netip.Addr) Explanation {
	a = a.Unmap().WithZone("")
	v := newView(in.Facts, in.Own)
	s, claims := v.sweep(in, wishesOf(in))
	s.asked = a
	s.run()
	e := Explanation{Addr: a, Outcome: outcomes[s.verdict(s.answer)], Reason: s.reason(s.answer), Claims: []Claim{}}
	if ref := s.answer[itemWant]; ref != 0 {
		w := s.wants[s.index(ref)]
		e.Subnet, e.Kind = w.prefix, w.kind
	}
	s.explainVirtual(&e, in.Virtual)
	for _, r := range s.hostRoutes() {
		if r.Prefix.Contains(a) {
			e.Route = r // sorted short to long
		}
	}
	if e.Rule = s.rule(IPv4, claims); a.Is6() {
		e.Rule = s.rule(IPv6, claims)
	}
	v.explainHost(&e, in.Facts.IPsec)
	return e
}

// explainVirtual fills in what stands for the address, or what it stands for.
func (s *sweep) explainVirtual(e *Explanation, v Virtual) {
	pool := v.pool(familyOf(e.Addr))
	leased := slices.ContainsFunc(s.vips, func(x vipRange) bool { return x.prefix == pool })
	if s.explainTwin(e); e.Pooled {
		e.Pool = pool
	}
	switch subnet := v.subnet(familyOf(e.Addr)); {
	case e.Real.IsValid() || e.Twin.IsValid() || !subnet.IsValid() || !subnet.Contains(e.Addr):
	case leased && pool.Contains(e.Addr):
		e.Pooled, e.Pool = true, pool
	case e.Outcome == OutcomeOutside:
		e.Reason = fmt.Sprintf("no twin: it is in the virtual subnet %s and stands for nothing", subnet)
	}
}

// explainTwin fills in the twin of a real address, or the reverse. An address that is both is what
// programs use it for.
func (s *sweep) explainTwin(e *Explanation) {
	for _, t := range s.twins {
		if a := t.VirtualOf(e.Addr); a.IsValid() && !e.Real.IsValid() && e.Subnet.IsValid() { // a twin may be for several subnets, and what lies between
			e.Twin, e.Pooled, e.Via = a, t.Pooled, t.Via
		}
		real := t.RealOf(e.Addr)
		if !real.IsValid() {
			continue
		}
		switch {
		case e.Outcome == OutcomeTunnel && !t.Pooled && !slices.ContainsFunc(s.wants, func(w want) bool { return w.prefix.Contains(real) }):
			e.Reason = fmt.Sprintf("stands for %s, which is no address of the cluster", real)
		case e.Outcome == OutcomeTunnel && !t.Pooled:
			e.Reason = fmt.Sprintf("stands for %s (%s)", real, t.Kind)
		case e.Outcome == OutcomeOutside && t.Pooled:
			e.Reason = fmt.Sprintf("stands for %s (%s) on the wire only: programs use addresses leased from the pool", t.Real, t.Kind)
		}
		e.Twin, e.Real, e.Pooled, e.Via, e.Subnet, e.Kind = netip.Addr{}, real, t.Pooled, t.Via, t.Real, t.Kind
	}
}

// explainHost fills in the routes of others.
func (v *view) explainHost(e *Explanation, policies []IPsecPolicy) {
	all := v.claims(rangesOf(hostPrefix(e.Addr)))[familyOf(e.Addr)]
	slices.SortStableFunc(all, func(a, b claim) int { return v.compareClaims(b, a) })
	for _, c := range all {
		d := v.described(c)
		if e.Host == nil {
			e.Host = &d
		}
		if !c.whole && !c.again {
			e.Claims = append(e.Claims, d)
		}
	}
	for _, c := range v.ipsecClaims(policies, rangesOf(hostPrefix(e.Addr))) {
		e.Claims = append(e.Claims, v.described(c))
	}
}
