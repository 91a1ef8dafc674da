package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// Types of claims that IPsec policies make; no route of a host has them.
const (
	// TypeIPsec is a policy that sends packets through a security association.
	TypeIPsec RouteType = "ipsec"
	// TypeIPsecDiscard is a policy that drops packets.
	TypeIPsecDiscard RouteType = "ipsec-discard"
)

// ipsecClaims returns what outbound IPsec policies take of the addresses of interest, whatever their
// route says. Their rule is 0, before all others, but they have no say in the priority of our rule:
// they are consulted after the route was chosen, and not at all for what leaves by our interface,
// which has the sysctl disable_xfrm.
func (v *view) ipsecClaims(policies []IPsecPolicy, interest rangeSet) []claim {
	policies = slices.DeleteFunc(slices.Clone(policies), func(p IPsecPolicy) bool { return !v.ordinary(p) })
	slices.SortStableFunc(policies, func(a, b IPsecPolicy) int { return cmp.Compare(a.Priority, b.Priority) })
	var out []claim
	for i, p := range policies {
		if p.harmless() || !interest.overlaps(p.Dst) {
			continue
		}
		n := v.addExtra(p.route())
		for _, piece := range v.reach(p, policies[:i]).prefixes() {
			if interest.overlaps(piece) {
				out = append(out, claim{prefix: piece, named: p.Dst, route: n})
			}
		}
	}
	return out
}

// ordinary reports whether a policy may catch packets that have no mark and are not routed to our
// interface or to an xfrm interface.
func (v *view) ordinary(p IPsecPolicy) bool {
	return p.Dst.IsValid() && p.IfID == 0 && p.Mark.Value&p.Mark.Mask == 0 && (p.Link == 0 || p.Link != v.ownIdx)
}

// harmless reports whether a policy takes nothing from anybody: an exemption, or what is to policies
// as a default route is to routes.
func (p IPsecPolicy) harmless() bool { return p.Action == IPsecBypass || p.Dst.Bits() == 0 }

// reach returns the destinations to which the host may send packets that p catches. Where that
// depends on more than source and destination (interface, protocol), p counts as catching them and
// an earlier policy as not: better one conflict too many than a packet gone astray.
func (v *view) reach(p IPsecPolicy, earlier []IPsecPolicy) rangeSet {
	if p.Src.Bits() == 0 {
		return p.after(earlier, p.Src)
	}
	var out rangeSet
	for _, l := range v.links {
		for _, a := range l.Addresses {
			if l.Index != v.ownIdx && p.Src.Contains(a.Addr()) {
				out = joined(out, p.after(earlier, hostPrefix(a.Addr())))
			}
		}
	}
	return out
}

// after returns the destinations of p without those that earlier policies decide for packets from
// sources. Only harmless ones are subtracted; what the others decide is theirs to claim.
func (p IPsecPolicy) after(earlier []IPsecPolicy, sources netip.Prefix) rangeSet {
	var b netipx.IPSetBuilder
	b.AddPrefix(p.Dst)
	for _, e := range earlier {
		if e.harmless() && !e.Partial && (e.Link == 0 || e.Link == p.Link) && covers(e.Src, sources) {
			b.RemovePrefix(e.Dst)
		}
	}
	return rangesFrom(&b)
}

// route puts a policy in the form in which claims are kept: its priority is the metric, the other end
// of its tunnel the next hop.
func (p IPsecPolicy) route() Route {
	r := Route{Prefix: p.Dst, Type: TypeIPsec, Metric: p.Priority}
	if p.Action == IPsecDiscard {
		r.Type = TypeIPsecDiscard
	}
	if p.Peer.IsValid() {
		r.NextHops = []NextHop{{Addr: p.Peer}}
	}
	return r
}

// isIPsec reports whether a type is that of an IPsec policy's claim.
func isIPsec(t RouteType) bool { return t == TypeIPsec || t == TypeIPsecDiscard }

// protectPeers keeps the other ends of IPsec tunnels: what a tunnel carries is sent there by the
// ordinary rules.
func (v *view) protectPeers(g *guard, policies []IPsecPolicy) {
	for _, p := range policies {
		if p.Peer.IsValid() {
			g.add(hostPrefix(p.Peer), "other end of an IPsec tunnel")
		}
	}
}
