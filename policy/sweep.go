package policy

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// A sweep decides every wanted address in one pass. Prefixes are either nested or apart, so sorted
// by address, short before long, they form a tree that is walked with a stack:
//
//	10.130.0.0/16 services ─────────────────────────────────────────┐   region of the /16
//	    10.130.4.0/24 never ──────────┐                             │
//	        10.130.4.7/32 also ─┐     │  region of the /24          │
//	                            ┘     ┘                             ┘
//
// The region of a node is what its children leave of it; all addresses in a region share what covers
// them, and so their verdict.
type sweep struct {
	v         *view
	wants     []want
	twins     []Twin
	undivided []Twin // what twins are parts of
	gateways  []Twin // see Plan.PeerTwins
	vips      []vipRange
	rules     []RoutingRule
	protect   []Protected
	claims    []claim // of both families, each route once, without those that cover everything
	items     []item
	stack     []frame
	next      netip.Addr // the first address that has no verdict yet
	routes    []sweptRoute
	pairs     []pair
	tunnel    rangeSet    // addresses that go through the tunnel, as they are
	entered   rangeSet    // addresses of vips that lead into it
	virtual   rangeSet    // wanted, but reached by virtual addresses only
	open      rangeSet    // wanted, but in a conflict that nothing settles
	twinless  rangeSet    // the part of open that a rule would virtualize
	yielded   rangeSet    // wanted, but in a conflict that is settled in favour of the others
	never     rangeSet    // wanted, but never-proxied
	sheltered rangeSet    // wanted, but protected
	lan       rangeSet    // wanted, but a LAN that no setting names
	lost      []Protected // the gateway's addresses that the host keeps

	// onConflict decides conflicts that no rule settles.
	onConflict     Resolve
	onConflictFrom Origin

	asked  netip.Addr // an address whose state is to be kept; invalid for none
	answer state      // of asked; zero while nothing bears on it
}

// item is one prefix that bears on the verdict.
type item struct {
	prefix netip.Prefix
	kind   itemKind
	index  int32 // in the list that the kind stands for
}

type itemKind uint8

const (
	itemOverlay itemKind = iota
	itemVIP              // vips
	itemTwin             // twins, those that there are, by what they stand for
	itemWant             // wants
	itemAlso             // wants, again
	itemAllow            // rules
	itemYield
	itemVirtualize
	itemVia
	itemNever
	itemProtect
	itemClaim
	itemLAN // claims
	itemKinds
)

// state holds, for each kind, one plus the position in items of the longest item that covers a
// region; 0 if there is none.
type state [itemKinds]int32

type frame struct {
	lo, hi int // the items of this prefix
	last   netip.Addr
	state  state
	route  int // the route that holds for the region; -1 if there is none
}

// sweptRoute is a planned route before it is known to be needed.
type sweptRoute struct {
	prefix netip.Prefix
	kind   RouteKind
	state  state
	parent int  // the route around it; -1 if there is none
	used   bool // some region follows it
}

// pair is a subnet and a claim that overlap.
type pair struct {
	want, claim int32
}

// verdict is what becomes of a region.
type verdict uint8

const (
	notWanted verdict = iota
	toTunnel
	keepProtected
	keepNever
	keepLAN
	keepYielded
	keepOpen
	keepVirtual
)

// itemsOfRules are what the rules become; an also-proxied prefix is a want.
var itemsOfRules = map[Resolve]itemKind{
	ResolveAllow: itemAllow, ResolveYield: itemYield, ResolveVirtualize: itemVirtualize, ResolveVia: itemVia, ResolveNever: itemNever,
}

// add adds all that bears on the verdict but the claims.
func (s *sweep) add(in Input) {
	for i, w := range s.wants {
		s.items = append(s.items, item{w.prefix, itemWant, int32(i)})
		if w.kind == KindAlso && !w.hidden {
			s.items = append(s.items, item{w.prefix, itemAlso, int32(i)})
		}
	}
	for _, p := range in.Overlay {
		if p.IsValid() {
			s.addOverlay(hostPrefix(GatewayAddr(p.Addr())))
		}
	}
	for i, r := range s.rules {
		if kind, ok := itemsOfRules[r.Resolve]; ok {
			s.items = append(s.items, item{r.Prefix, kind, int32(i)})
		}
	}
	for i, p := range s.protect {
		s.items = append(s.items, item{p.Prefix, itemProtect, int32(i)})
	}
	for i, x := range s.vips {
		s.items = append(s.items, item{x.prefix, itemVIP, int32(i)})
	}
	for i, t := range s.twins {
		if t.Virtual.IsValid() {
			s.items = append(s.items, item{t.Real, itemTwin, int32(i)})
		}
	}
}

// addOverlay adds the gateway's own address, unless nothing can lead it into the tunnel.
func (s *sweep) addOverlay(p netip.Prefix) {
	if reason, lost := s.v.single[p]; lost {
		s.lost = append(s.lost, Protected{p, reason})
		return
	}
	s.items = append(s.items, item{p, itemOverlay, 0})
}

func (s *sweep) addClaims(claims []claim) {
	s.claims, s.items = slices.Grow(s.claims, len(claims)), slices.Grow(s.items, len(claims))
	for _, c := range claims {
		r := s.v.route(c.route)
		if c.whole || c.again || r.Type == Local {
			continue
		}
		s.claims = append(s.claims, c)
		s.items = append(s.items, item{c.prefix, itemClaim, int32(len(s.claims) - 1)})
		if s.v.isLAN(r) {
			s.items = append(s.items, item{c.prefix, itemLAN, int32(len(s.claims) - 1)})
		}
	}
}

func (s *sweep) run() {
	slices.SortFunc(s.items, func(a, b item) int {
		if c := comparePrefix(a.prefix, b.prefix); c != 0 {
			return c
		}
		if a.kind != b.kind || a.kind < itemClaim {
			return cmp.Or(int(a.kind)-int(b.kind), int(a.index)-int(b.index))
		}
		return s.v.compareClaims(s.claims[a.index], s.claims[b.index])
	})
	for lo := 0; lo < len(s.items); {
		hi := lo + 1
		for hi < len(s.items) && s.items[hi].prefix == s.items[lo].prefix {
			hi++
		}
		s.enter(lo, hi)
		lo = hi
	}
	for len(s.stack) > 0 {
		s.leave()
	}
	s.prune()
}

// enter opens the region of the items lo to hi, which have one prefix.
func (s *sweep) enter(lo, hi int) {
	p := s.items[lo].prefix
	for len(s.stack) > 0 && s.top().last.Compare(p.Addr()) < 0 {
		s.leave()
	}
	f := frame{lo: lo, hi: hi, last: lastAddr(p), route: -1}
	if len(s.stack) > 0 {
		if s.next.Compare(p.Addr()) < 0 {
			s.region(s.next, p.Addr().Prev())
		}
		f.state, f.route = s.top().state, s.top().route
	}
	for i := lo; i < hi; i++ {
		if k := s.items[i].kind; k != itemLAN || s.bits(int32(i+1)) >= s.bits(f.state[k]) {
			f.state[k] = int32(i + 1)
		}
	}
	s.findPairs(lo, hi)
	s.addRoute(p, &f)
	s.stack = append(s.stack, f)
	s.next = p.Addr()
}

// leave closes the region on top of the stack.
func (s *sweep) leave() {
	top := s.top()
	if s.next.IsValid() && s.next.Compare(top.last) <= 0 {
		s.region(s.next, top.last)
	}
	s.next = top.last.Next()
	s.stack = s.stack[:len(s.stack)-1]
}

func (s *sweep) top() *frame { return &s.stack[len(s.stack)-1] }

// region records the verdict on the addresses from lo to hi, which belong to the top of the stack.
func (s *sweep) region(lo, hi netip.Addr) {
	top := s.top()
	if top.route >= 0 {
		s.routes[top.route].used = true
	}
	r := netipx.IPRangeFrom(lo, hi)
	if s.asked.IsValid() && r.Contains(s.asked) {
		s.answer = top.state
	}
	switch s.verdict(top.state) {
	case toTunnel:
		if s.isVIP(top.state) {
			s.entered = s.entered.extended(r)
		} else {
			s.tunnel = s.tunnel.extended(r)
		}
	case keepVirtual:
		s.virtual = s.virtual.extended(r)
	case keepOpen:
		s.open = s.open.extended(r)
		if top.state[itemVirtualize] != 0 {
			s.twinless = s.twinless.extended(r)
		}
	case keepYielded:
		s.yielded = s.yielded.extended(r)
	case keepNever:
		s.never = s.never.extended(r)
	case keepProtected:
		s.sheltered = s.sheltered.extended(r)
	case keepLAN:
		s.lan = s.lan.extended(r)
	}
}

// extended appends a range behind all others, joining it to the last where they touch.
func (s rangeSet) extended(r netipx.IPRange) rangeSet {
	if n := len(s); n > 0 && s[n-1].To().Next() == r.From() {
		s[n-1] = netipx.IPRangeFrom(s[n-1].From(), r.To())
		return s
	}
	return append(s, r)
}

// verdict is the heart of the planner: what becomes of addresses in this state.
func (s *sweep) verdict(st state) verdict {
	switch {
	case st[itemOverlay] != 0:
		return toTunnel
	case st[itemVIP] != 0 && st[itemProtect] == 0:
		return toTunnel
	case st[itemVIP] != 0:
		return keepProtected
	case st[itemWant] == 0:
		return notWanted
	case st[itemNever] != 0 && s.bits(st[itemNever]) >= max(s.bits(st[itemAlso]), s.bits(st[itemVia])):
		if st[itemProtect] != 0 {
			return keepProtected
		}
		return keepNever
	case st[itemVia] != 0 && st[itemTwin] != 0 && s.bits(st[itemVia]) >= s.bits(st[itemAlso]):
		return keepVirtual
	case s.wants[s.index(st[itemWant])].hidden:
		return notWanted
	case st[itemProtect] != 0:
		return s.virtualOr(st, keepProtected)
	case st[itemClaim] != 0 && !s.allows(st):
		return s.settled(st)
	case st[itemLAN] != 0 && s.bits(st[itemLAN]) > s.named(st[itemAllow]):
		return s.virtualOr(st, keepLAN)
	}
	return toTunnel
}

// virtualOr returns what becomes of addresses that no allow takes from the host. A virtual address
// takes nothing from it: where conflicts are virtualized these are, else they are just kept.
func (s *sweep) virtualOr(st state, kept verdict) verdict {
	if s.settled(st) == keepVirtual {
		return keepVirtual
	}
	return kept
}

// isVIP reports whether addresses in this state are virtual ones.
func (s *sweep) isVIP(st state) bool { return st[itemVIP] != 0 && st[itemOverlay] == 0 }

// allows reports whether a rule lets the cluster take addresses in this state from others: of an allow,
// a yield and a virtualize the most specific counts.
func (s *sweep) allows(st state) bool {
	return st[itemAllow] != 0 && s.bits(st[itemAllow]) > max(s.bits(st[itemYield]), s.bits(st[itemVirtualize]))
}

// settled says what becomes of addresses in this state that are not the cluster's to take. Of a yield
// and a virtualize the more specific counts, or else what is said of all conflicts. Without a twin
// nothing is virtualized: a rule that wants it leaves the addresses to the host, if only for want of a
// setting.
func (s *sweep) settled(st state) verdict {
	switch {
	case s.virtualizes(st):
		return keepVirtual
	case st[itemYield] != 0 || s.onConflict == ResolveYield:
		return keepYielded
	case s.onConflict == ResolveVirtualize && st[itemTwin] != 0:
		return keepVirtual
	}
	return keepOpen
}

// virtualizes reports whether a rule hides addresses in this state behind virtual ones.
func (s *sweep) virtualizes(st state) bool {
	return st[itemTwin] != 0 && s.bits(st[itemVirtualize]) > s.bits(st[itemYield])
}

// named is bits of a rule that names its prefix; -1 for one made of a symbol, which means no LAN.
func (s *sweep) named(ref int32) int {
	if ref != 0 && s.rules[s.index(ref)].Symbol != "" {
		return -1
	}
	return s.bits(ref)
}

// bits returns the length of the prefix, as it was written, that a state refers to; -1 if there is none.
func (s *sweep) bits(ref int32) int {
	if ref == 0 {
		return -1
	}
	it := s.items[ref-1]
	if it.kind == itemLAN {
		return s.v.route(s.claims[it.index].route).Prefix.Bits() // a rule or throw routes may leave less of it
	}
	return it.prefix.Bits()
}
