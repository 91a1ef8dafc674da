package policy

import (
	"math"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// wholeSpace reports, for each route, whether it is a default route or one of those by which an
// interface takes the whole internet piece by piece: the /1 halves of OpenVPN, the 0.0.0.0/5,
// 8.0.0.0/7, ... of WireGuard configurations that leave the private networks out, and their like in
// IPv6. Such routes steer everything and so mean nothing about any one prefix.
//
// A route inside another of the same interface is not one of them: it was put there on purpose.
func wholeSpace(routes []Route) []bool {
	whole := make([]bool, len(routes))
	for i := range routes {
		whole[i] = routes[i].Prefix.IsValid() && routes[i].Prefix.Bits() == 0
	}
	for e, size := range exitSizes(routes) {
		if couldCover(e.family, size) {
			markCover(e.family, routes, exitMembers(routes, e), whole)
		}
	}
	return whole
}

// exitSizes adds up the sizes of the routes of each exit, as parts of the whole space.
func exitSizes(routes []Route) map[exit]float64 {
	sizes := map[exit]float64{}
	var last exit
	var size float64
	for i := range routes {
		e, ok := exitOf(&routes[i])
		if !ok {
			continue
		}
		if e != last { // neighbours in a listing mostly have one exit
			if last != (exit{}) {
				sizes[last] = size
			}
			last, size = e, sizes[e]
		}
		size += spaceOf(routes[i].Prefix)
	}
	if last != (exit{}) {
		sizes[last] = size
	}
	return sizes
}

// spaceOf returns the size of a prefix as a part of the whole space.
func spaceOf(p netip.Prefix) float64 { return math.Ldexp(1, -p.Bits()) }

// exitOf returns the interface that a route could be a piece of the whole space of.
func exitOf(r *Route) (exit, bool) {
	if !r.Prefix.IsValid() || r.Prefix.Bits() == 0 || r.TOS != 0 || len(r.NextHops) != 1 || r.NextHops[0].Link == 0 || !isUnicast(r.Type) {
		return exit{}, false
	}
	return exit{familyOf(r.Prefix.Addr()), r.Table, r.NextHops[0].Link}, true
}

func exitMembers(routes []Route, want exit) []int {
	var out []int
	for i := range routes {
		if e, ok := exitOf(&routes[i]); ok && e == want {
			out = append(out, i)
		}
	}
	return out
}

// exit is one interface as seen from one table.
type exit struct {
	family Family
	table  uint32
	link   int
}

func isUnicast(t RouteType) bool { return t == "" || t == Unicast }

// couldCover is the cheap test that spares nearly every interface the sorting: do the sizes of its
// routes, as parts of the whole space, add up to the internet at all?
func couldCover(f Family, size float64) bool {
	if f == IPv6 {
		return size > 0.125-1e-6 // 2000::/3
	}
	return size > 0.75 // the private, multicast and class E ranges are 0.15 of IPv4
}

// holes is how many single addresses a cover may leave out: lists made for a VPN often leave out
// its server.
const holes = 16

// markCover marks the members that together cover the internet, if they do.
func markCover(f Family, routes []Route, members []int, whole []bool) {
	outer := outermost(routes, members)
	everything, internet := missing(f, routes, outer)
	if !internet {
		return
	}
	for _, i := range outer {
		p := routes[i].Prefix
		if everything || p == uniqueLocal6 || covers(p, classE) || !insideNotInternet(p) { // nobody means class E by 224.0.0.0/3
			whole[i] = true
		}
	}
}

// outermost returns the members that lie in no other, sorted by address.
func outermost(routes []Route, members []int) []int {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b int) int { return comparePrefix(routes[a].Prefix, routes[b].Prefix) })
	var out []int
	var last netip.Prefix
	for _, i := range members {
		p := routes[i].Prefix
		if last.IsValid() && p != last && covers(last, p) {
			continue
		}
		out, last = append(out, i), p
	}
	return out
}

// missing reports whether the routes cover all addresses of the family, and whether they cover at
// least the internet, a few single addresses aside.
func missing(f Family, routes []Route, members []int) (everything, internet bool) {
	var b netipx.IPSetBuilder
	if f == IPv4 {
		b.AddPrefix(all4)
	} else {
		b.AddPrefix(all6)
	}
	for _, i := range members {
		b.RemovePrefix(routes[i].Prefix)
	}
	everything = len(rangesFrom(&b)) == 0
	if f == IPv6 {
		b.Intersect(mustSet(globalUnicast6))
	} else {
		for _, r := range notInternet {
			b.RemovePrefix(r.prefix)
		}
	}
	left := rangesFrom(&b)
	internet = len(left) <= holes
	for _, r := range left {
		internet = internet && r.From() == r.To()
	}
	return everything, internet
}

func insideNotInternet(p netip.Prefix) bool {
	for _, r := range notInternet {
		if covers(r.prefix, p) {
			return true
		}
	}
	return covers(uniqueLocal6, p)
}

// mustSet makes a set of one valid prefix.
func mustSet(p netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddPrefix(p)
	set, err := b.IPSet()
	if err != nil {
		panic("policy: " + err.Error())
	}
	return set
}

// comparePrefix orders by family, then address, then from short to long, so that a prefix comes
// before all that lie in it.
func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
