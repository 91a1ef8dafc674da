package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// view is the facts made ready for questions.
type view struct {
	routes []Route // as in the facts
	extra  []Route // one for each rule that decides by itself
	whole  []bool  // per route of the facts, see wholeSpace
	links  map[int]knownLink
	own    Own
	ownIdx int               // index of our interface; -1 if there is none
	rules  map[Family][]live // that steer ordinary packets, in order
	all    map[Family][]Rule // not ours, in order
	// throws holds the throw routes of each table, sorted.
	throws map[uint32][]netip.Prefix
	// byTable holds the routes of each table, ours left out.
	byTable map[uint32][]int32
}

func newView(f Facts, own Own) *view {
	v := &view{
		routes: f.Routes, own: own, ownIdx: -1,
		links: make(map[int]knownLink, len(f.Links)), rules: map[Family][]live{}, all: map[Family][]Rule{},
		throws: map[uint32][]netip.Prefix{}, byTable: map[uint32][]int32{},
	}
	for _, l := range f.Links {
		v.links[l.Index] = knownLink{l, ownerOf(l), []string{l.Name}}
		if l.Name == own.Interface && l.Name != "" {
			v.ownIdx = l.Index
		}
	}
	rules := f.Rules
	if len(rules) == 0 {
		rules = DefaultRules()
	}
	for _, family := range []Family{IPv4, IPv6} {
		for _, r := range rules {
			if r.Family == family && (own.Table == 0 || r.Table != own.Table) {
				v.all[family] = append(v.all[family], r)
			}
		}
		slices.SortStableFunc(v.all[family], func(a, b Rule) int { return cmp.Compare(a.Priority, b.Priority) })
		v.rules[family] = liveRules(v.all[family])
	}
	v.whole = wholeSpace(f.Routes)
	v.index()
	return v
}

// knownLink is an interface with what thousands of routes over it need to know.
type knownLink struct {
	Link
	owner ownerPattern
	names []string // its name, to be shared, not changed
}

// link returns an interface by its index, under a name made up if the facts do not have it.
func (v *view) link(index int) knownLink {
	if l, ok := v.links[index]; ok {
		return l
	}
	name := fmt.Sprintf("interface %d", index)
	return knownLink{Link: Link{Name: name}, names: []string{name}}
}

// index sorts the routes by table.
func (v *view) index() {
	for i := range v.routes {
		r := &v.routes[i]
		switch {
		case !r.Prefix.IsValid() || v.isOwn(r):
		case r.Type == Throw:
			v.throws[r.Table] = append(v.throws[r.Table], r.Prefix)
		case r.Type == Broadcast || r.Type == Anycast || r.Type == Multicast:
		default:
			v.byTable[r.Table] = append(v.byTable[r.Table], int32(i))
		}
	}
	for _, t := range v.throws {
		slices.SortFunc(t, comparePrefix)
	}
}

// route returns the route a claim speaks of.
func (v *view) route(n int32) *Route {
	if int(n) < len(v.routes) {
		return &v.routes[n]
	}
	return &v.extra[int(n)-len(v.routes)]
}

func (v *view) isOwn(r *Route) bool {
	if v.own.Table != 0 && r.Table == v.own.Table {
		return true
	}
	return v.ownIdx >= 0 && len(r.NextHops) == 1 && r.NextHops[0].Link == v.ownIdx
}

// live is a rule that steers at least some ordinary packets: sent by a program of this host, without
// a mark, not bound to an interface or a source address.
type live struct {
	Rule
	dst     netip.Prefix // only these destinations; invalid means all
	outside bool         // the destinations outside dst instead
}

// liveRules walks the rules of one family in order. Rules that an unconditional goto leaps over are
// dead.
func liveRules(rules []Rule) []live {
	var out []live
	for i := 0; i < len(rules); i++ {
		r := rules[i]
		l, ok := liven(r)
		if !ok {
			continue
		}
		if r.Action == ActionGoto {
			if l.unconditional() {
				for i+1 < len(rules) && rules[i+1].Priority < r.Goto {
					i++
				}
			}
			continue
		}
		if r.Action != ActionNop && !r.L3MDev {
			out = append(out, l)
		}
	}
	return out
}

// liven says which ordinary packets a rule catches, if any. Where that depends on more than the
// destination (user, protocol, ports), it counts as catching them all: better one conflict too many
// than a packet gone astray.
func liven(r Rule) (live, bool) {
	l := live{Rule: r, dst: r.Dst}
	mismatch := r.Mark.Mask != 0 && r.Mark.Value&r.Mark.Mask != 0 || // ordinary packets carry no mark
		r.IIF != "" && r.IIF != "lo" || r.OIF != "" ||
		r.Src.IsValid() && r.Src.Bits() > 0
	sometimes := r.UIDs != nil || r.Partial
	switch {
	case !r.Invert:
		return l, !mismatch
	case mismatch || sometimes:
		l.dst = netip.Prefix{} // "not" of what never or not always matches: everything
		return l, true
	case r.Dst.IsValid():
		l.outside = true
		return l, true
	}
	return l, false // "not" of everything
}

// unconditional reports whether the rule catches every ordinary packet for sure.
func (l *live) unconditional() bool { return !l.dst.IsValid() && l.UIDs == nil && !l.Partial }

// limit returns the part of p that the rule steers.
func (l *live) limit(p netip.Prefix) (netip.Prefix, bool) {
	switch {
	case !l.dst.IsValid():
		return p, true
	case l.outside:
		return p, !covers(l.dst, p)
	case covers(l.dst, p):
		return p, true
	case covers(p, l.dst):
		return l.dst, true
	}
	return p, false
}

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
		c.v.extra = append(c.v.extra, Route{Prefix: p, Type: RouteType(l.Action)})
		c.out = append(c.out, claim{prefix: p, named: p, route: int32(len(c.v.routes) + len(c.v.extra) - 1), rule: l.Priority, whole: p.Bits() == 0})
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
