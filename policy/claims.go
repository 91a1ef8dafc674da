package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// claim is a route as one rule brings it to bear on addresses we want.
type claim struct {
	prefix netip.Prefix
	named  netip.Prefix // what prefix is a piece of: as much of the route as the rule applies to
	route  int32        // see view.route
	rule   uint32
	// whole is a route of the kind wholeSpace finds: it steers, but is no conflict.
	whole bool
	// again is a route that an earlier rule has brought up already.
	again bool
}

// claims returns every way in which the host's tables steer addresses of interest, in the order of
// the rules.
func (v *view) claims(interest rangeSet) map[Family][]claim {
	out := map[Family][]claim{}
	for _, f := range []Family{IPv4, IPv6} {
		c := claimer{v: v, family: f, interest: interest, whole: map[uint32]int{}, limited: map[limitedRoute]bool{}}
		for i := range v.rules[f] {
			c.consult(&v.rules[f][i])
		}
		out[f] = c.out
	}
	return out
}

// claimer gathers the claims of one family.
type claimer struct {
	v        *view
	family   Family
	interest rangeSet
	out      []claim
	// whole holds the tables that some rule has consulted for every destination, with the least
	// MinPrefixLen of such rules; limited the routes that rules for some destinations brought up.
	whole   map[uint32]int
	limited map[limitedRoute]bool
}

type limitedRoute struct {
	route int32
	named netip.Prefix
}

func (c *claimer) consult(l *live) {
	if l.Action != "" && l.Action != ActionLookup {
		c.decide(l)
		return
	}
	least, before := c.whole[l.Table]
	for _, n := range c.v.byTable[l.Table] {
		r := &c.v.routes[n]
		if familyOf(r.Prefix.Addr()) == c.family && r.Prefix.Bits() >= l.MinPrefixLen {
			c.add(l, n, before && r.Prefix.Bits() >= least)
		}
	}
	if !l.dst.IsValid() && (!before || l.MinPrefixLen < least) {
		c.whole[l.Table] = l.MinPrefixLen
	}
}

// add adds what route n is through one rule: nothing, one claim, or several where throw routes or the
// rule itself take pieces out of it. again says that an earlier rule has brought the route up.
func (c *claimer) add(l *live, n int32, again bool) {
	r := &c.v.routes[n]
	p, ok := l.limit(r.Prefix)
	if !ok || !c.interest.overlaps(p) {
		return
	}
	if _, useless := unroutable(r.Prefix); useless {
		return
	}
	x := claim{prefix: p, named: p, route: n, rule: l.Priority, whole: c.v.whole[n] && p == r.Prefix, again: again}
	if v := c.v; v.whole[n] && !x.whole {
		x.again = false // narrowed down to some destinations, a default route means them
	}
	if l.dst.IsValid() && !x.again {
		k := limitedRoute{n, p}
		x.again, c.limited[k] = c.limited[k], true
	}
	if x.whole || !l.outside && len(c.v.throws[r.Table]) == 0 {
		c.out = append(c.out, x)
		return
	}
	for _, piece := range c.v.pieces(l, r, p) {
		if x.prefix = piece; c.interest.overlaps(piece) {
			c.out = append(c.out, x)
		}
	}
}

// pieces returns p, a part of r, without what more specific throw routes take away from r and without
// the destinations that the rule excludes.
func (v *view) pieces(l *live, r *Route, p netip.Prefix) []netip.Prefix {
	throws := v.throws[r.Table]
	for bits := p.Bits(); bits > r.Prefix.Bits(); bits-- {
		if _, found := slices.BinarySearchFunc(throws, netip.PrefixFrom(p.Addr(), bits).Masked(), comparePrefix); found {
			return nil
		}
	}
	from, _ := slices.BinarySearchFunc(throws, p, comparePrefix)
	var b netipx.IPSetBuilder
	b.AddPrefix(p)
	for _, t := range throws[from:] {
		if !p.Contains(t.Addr()) {
			break
		}
		if t.Bits() > r.Prefix.Bits() {
			b.RemovePrefix(t)
		}
	}
	if l.outside {
		b.RemovePrefix(l.dst)
	}
	return rangesFrom(&b).prefixes()
}

// decide adds the claim of a rule that needs no table, such as "to 10.0.0.0/8 prohibit".
func (c *claimer) decide(l *live) {
	p := l.dst
	if !p.IsValid() || l.outside {
		p = all4
		if c.family == IPv6 {
			p = all6
		}
	}
	if c.interest.overlaps(p) {
		n := c.v.addExtra(Route{Prefix: p, Type: RouteType(l.Action)})
		c.out = append(c.out, claim{prefix: p, named: p, route: n, rule: l.Priority, whole: p.Bits() == 0})
	}
}

// compareClaims orders claims by what they say, so that of several on one prefix the same one is named
// whatever the order of the facts. The last is the one that routes: of the earliest rule, the longest
// prefix, the lowest metric.
func (v *view) compareClaims(a, b claim) int {
	x, y := v.route(a.route), v.route(b.route)
	return cmp.Or(
		cmp.Compare(b.rule, a.rule),
		cmp.Compare(x.Prefix.Bits(), y.Prefix.Bits()),
		cmp.Compare(a.named.Bits(), b.named.Bits()),
		cmp.Compare(y.Metric, x.Metric),
		cmp.Compare(x.Table, y.Table),
		cmp.Compare(x.Type, y.Type),
		cmp.Compare(x.Protocol, y.Protocol),
		slices.CompareFunc(x.NextHops, y.NextHops, func(h, k NextHop) int {
			return cmp.Or(cmp.Compare(h.Link, k.Link), h.Addr.Compare(k.Addr))
		}),
	)
}
