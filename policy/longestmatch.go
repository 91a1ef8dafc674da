package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// On a host without policy routing there is one table, and the longest prefix wins whoever made the
// route. What we take from a route of the host we take by its two halves:
//
//	the host's 10.130.0.0/16 on utun4
//	ours       10.130.0.0/17, 10.130.128.0/17
//
// A half that is itself a route of the host is taken by its own halves. A route for a single address
// has none, so that nobody can take it.

// singleRoutes returns the host's routes for single addresses, each with the reason for leaving it alone.
func (v *view) singleRoutes() map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	for i := range v.routes {
		r := &v.routes[i]
		if !r.Prefix.IsValid() || !r.Prefix.IsSingleIP() || v.isOwn(r) {
			continue
		}
		where := "this host"
		if len(r.NextHops) > 0 {
			where = v.link(r.NextHops[0].Link).Name
		}
		reason := fmt.Sprintf("%s has a route for this single address, and there is no longer one", where)
		if old, ok := out[r.Prefix]; !ok || reason < old {
			out[r.Prefix] = reason
		}
	}
	return out
}

// longer returns routes that, beside those of the host, make longest-prefix match choose the tunnel
// for exactly the addresses that programs send into it, none of which has a route for itself alone.
func (s *sweep) longer() []PlannedRoute {
	routed := s.routed()
	taken := map[netip.Prefix]int32{} // the host's routes that lie wholly in the tunnel
	for i := range s.v.routes {
		r := &s.v.routes[i]
		if !r.Prefix.IsValid() || s.v.isOwn(r) || !routed.covers(r.Prefix) {
			continue
		}
		if n, ok := taken[r.Prefix]; !ok || s.v.compareClaims(claim{route: n}, claim{route: int32(i)}) < 0 {
			taken[r.Prefix] = int32(i)
		}
	}
	why := s.planned()
	out := []PlannedRoute{}
	for _, p := range append(s.tunnel.prefixes(), s.enteredPrefixes()...) {
		if _, ok := taken[p]; !ok {
			out = append(out, PlannedRoute{p, RouteTunnel, reasonAt(why, p.Addr())})
		}
	}
	for p, n := range taken {
		for _, half := range halves(p) {
			if _, ok := taken[half]; !ok {
				reason := fmt.Sprintf("%s, half of %s %s", reasonAt(why, half.Addr()), p, s.v.where(claim{named: p, route: n}))
				out = append(out, PlannedRoute{half, RouteTunnel, reason})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b PlannedRoute) int { return comparePrefix(a.Prefix, b.Prefix) })
	return slices.CompactFunc(out, func(a, b PlannedRoute) bool { return a.Prefix == b.Prefix }) // twins may be halves
}

// enteredPrefixes returns s.entered as prefixes of one reason each.
func (s *sweep) enteredPrefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, x := range s.vips {
		out = append(out, s.entered.within(x.prefix)...)
	}
	return out
}

// reasonAt returns the reason of the longest route around an address; routes are sorted.
func reasonAt(routes []PlannedRoute, a netip.Addr) string {
	reason := ""
	for _, r := range routes {
		if r.Prefix.Contains(a) {
			reason = r.Reason
		}
	}
	return reason
}

// halves returns the two prefixes that make up p, which has more than one address.
func halves(p netip.Prefix) [2]netip.Prefix {
	bits := p.Bits() + 1
	return [2]netip.Prefix{netip.PrefixFrom(p.Addr(), bits), netip.PrefixFrom(lastAddr(p), bits).Masked()}
}
