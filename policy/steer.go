package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// view is the facts made ready for questions.
type view struct {
	routes []Route // as in the facts
	extra  []Route // one for each rule that decides by itself
	whole  []bool  // per route of the facts, see wholeSpace
	links  map[int]Link
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
		links: make(map[int]Link, len(f.Links)), rules: map[Family][]live{}, all: map[Family][]Rule{},
		throws: map[uint32][]netip.Prefix{}, byTable: map[uint32][]int32{},
	}
	for _, l := range f.Links {
		v.links[l.Index] = l
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
			if !l.dst.IsValid() && r.UIDs == nil && !r.Partial {
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
	route  int32 // in view.routes
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
		seen := map[int32]bool{}
		tables := map[uint32]bool{}
		for i := range v.rules[f] {
			l := &v.rules[f][i]
			if l.Action != "" && l.Action != ActionLookup {
				out[f] = v.decides(out[f], f, l, interest)
				continue
			}
			again := tables[l.Table]
			tables[l.Table] = true
			for _, n := range v.byTable[l.Table] {
				had := len(out[f])
				out[f] = v.claim(out[f], f, l, n, interest)
				if len(out[f]) == had {
					continue
				}
				for i := had; again && i < len(out[f]); i++ {
					out[f][i].again = seen[n]
				}
				seen[n] = true
			}
		}
	}
	return out
}

// claim adds what one route is through one rule: nothing, one claim, or several where throw routes
// take pieces out of it.
func (v *view) claim(out []claim, f Family, l *live, n int32, interest rangeSet) []claim {
	r := &v.routes[n]
	if familyOf(r.Prefix.Addr()) != f || r.Prefix.Bits() < l.MinPrefixLen {
		return out
	}
	p, ok := l.limit(r.Prefix)
	if !ok || !interest.overlaps(p) {
		return out
	}
	if _, useless := unroutable(r.Prefix); useless {
		return out
	}
	c := claim{prefix: p, route: n, rule: l.Priority, whole: v.whole[n] && p == r.Prefix}
	if len(v.throws[r.Table]) == 0 || c.whole {
		return append(out, c)
	}
	for _, piece := range v.unthrown(r, p) {
		if c.prefix = piece; interest.overlaps(piece) {
			out = append(out, c)
		}
	}
	return out
}

// unthrown returns p, a part of r, without what more specific throw routes take away from r.
func (v *view) unthrown(r *Route, p netip.Prefix) []netip.Prefix {
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
	return rangesFrom(&b).prefixes()
}

// decides adds the claim of a rule that needs no table, such as "to 10.0.0.0/8 prohibit".
func (v *view) decides(out []claim, f Family, l *live, interest rangeSet) []claim {
	p := l.dst
	if !p.IsValid() || l.outside {
		p = all4
		if f == IPv6 {
			p = all6
		}
	}
	if !interest.overlaps(p) {
		return out
	}
	v.extra = append(v.extra, Route{Prefix: p, Type: RouteType(l.Action)})
	return append(out, claim{prefix: p, route: int32(len(v.routes) + len(v.extra) - 1), rule: l.Priority, whole: p.Bits() == 0})
}

// compareClaims orders claims by what they say, so that of several on one prefix the same one is
// named whatever the order of the facts.
func (v *view) compareClaims(a, b claim) int {
	x, y := v.route(a.route), v.route(b.route)
	return cmp.Or(
		cmp.Compare(a.rule, b.rule),
		cmp.Compare(x.Metric, y.Metric),
		cmp.Compare(x.Table, y.Table),
		cmp.Compare(x.Type, y.Type),
		cmp.Compare(x.Protocol, y.Protocol),
		slices.CompareFunc(x.NextHops, y.NextHops, func(h, k NextHop) int {
			return cmp.Or(cmp.Compare(h.Link, k.Link), h.Addr.Compare(k.Addr))
		}),
	)
}
