package policy

import (
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
)

var outcomes = map[verdict]Outcome{
	notWanted: OutcomeOutside, toTunnel: OutcomeTunnel, keepProtected: OutcomeProtected, keepNever: OutcomeNever,
	keepLAN: OutcomeLAN, keepYielded: OutcomeYielded, keepOpen: OutcomeOpen,
}

// Explanation says what becomes of packets to one address, and why.
type Explanation struct {
	Addr    netip.Addr `json:"addr"`
	Outcome Outcome    `json:"outcome"`
	// Reason is one sentence without a full stop, never empty.
	Reason string `json:"reason"`
	// Subnet is the cluster's prefix around the address, and its kind; not valid outside the cluster.
	Subnet netip.Prefix `json:"subnet,omitzero"`
	Kind   SubnetKind   `json:"kind,omitempty"`
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
	for _, r := range s.hostRoutes() {
		if r.Prefix.Contains(a) {
			e.Route = r // sorted short to long
		}
	}
	if e.Rule = v.rule(IPv4, claims, s.tunnel); a.Is6() {
		e.Rule = v.rule(IPv6, claims, s.tunnel)
	}
	v.explainHost(&e, in.Facts.IPsec)
	return e
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
