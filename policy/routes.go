package policy

import (
	"fmt"
	"net/netip"
)

// addRoute plans a route for a region if it needs another than the one around it, and notes in f
// which route holds.
func (s *sweep) addRoute(p netip.Prefix, f *frame) {
	kind := RouteThrow
	switch s.verdict(f.state) {
	case notWanted:
		return
	case toTunnel:
		kind = RouteTunnel
	} // what virtual addresses stand for is left alone like all that others keep
	if f.route < 0 && kind == RouteThrow || f.route >= 0 && s.routes[f.route].kind == kind {
		return
	}
	s.routes = append(s.routes, sweptRoute{prefix: p, kind: kind, state: f.state, parent: f.route})
	f.route = len(s.routes) - 1
}

// prune drops routes that no address follows, because others cover all of them, and those that the
// drop makes needless. Routes stand behind the ones around them, so that one pass is enough.
func (s *sweep) prune() {
	around := make([]int, len(s.routes)) // the nearest kept route, the route itself included; -1 if none
	for i, r := range s.routes {
		outer := -1
		if r.parent >= 0 {
			outer = around[r.parent]
		}
		around[i] = outer
		needless := outer < 0 && r.kind == RouteThrow || outer >= 0 && s.routes[outer].kind == r.kind
		if s.routes[i].used = r.used && !needless; s.routes[i].used {
			around[i] = i
		}
	}
}

// hostRoutes returns the routes that carry the verdicts out, in the way of the host.
func (s *sweep) hostRoutes() []PlannedRoute {
	if s.v.single != nil {
		return s.longer()
	}
	return s.planned()
}

// planned returns the routes that are left, with their reasons.
func (s *sweep) planned() []PlannedRoute {
	out := []PlannedRoute{}
	for _, r := range s.routes {
		if r.used {
			out = append(out, PlannedRoute{r.prefix, r.kind, s.reason(r.state)})
		}
	}
	return out
}

// reason says in a few words why a region has its verdict.
func (s *sweep) reason(st state) string {
	switch s.verdict(st) {
	case notWanted:
		return "no subnet of the cluster, and not also-proxied"
	case keepProtected:
		return "protected: " + s.protect[s.index(st[itemProtect])].Reason
	case keepNever:
		return "never-proxied: " + s.rules[s.index(st[itemNever])].Origin.String()
	case keepLAN:
		return "connected network " + s.claimed(st[itemLAN])
	case keepOpen:
		return "kept by " + s.claimed(st[itemClaim])
	case keepYielded:
		return fmt.Sprintf("left to %s as %s says", s.claimed(st[itemClaim]), s.settler(st))
	case keepVirtual:
		return "names that lead there get virtual addresses, because " + s.whyVirtual(st)
	}
	switch {
	case st[itemOverlay] != 0:
		return "the gateway's own address"
	case st[itemVIP] != 0:
		return s.vips[s.index(st[itemVIP])].reason
	}
	w := s.wants[s.index(st[itemWant])]
	if st[itemClaim] != 0 {
		return fmt.Sprintf("%s, taken from %s as %s allows", w.kind, s.claimed(st[itemClaim]), s.rules[s.index(st[itemAllow])].Origin)
	}
	return string(w.kind)
}

// settler is who says that addresses in this state are left to others, or virtualized; see settled.
func (s *sweep) settler(st state) Origin {
	ref := st[itemYield]
	if s.virtualizes(st) {
		ref = st[itemVirtualize]
	}
	if ref != 0 {
		return s.rules[s.index(ref)].Origin
	}
	return s.onConflictFrom
}

// whyVirtual says why addresses in this state are reached by virtual ones: a proxyVia, or what keeps
// their own and who says that they are virtualized then.
func (s *sweep) whyVirtual(st state) string {
	if via := st[itemVia]; via != 0 && s.bits(via) >= s.bits(st[itemAlso]) {
		r := s.rules[s.index(via)]
		return fmt.Sprintf("%s has %s reached %s", r.Origin, r.Prefix, r.way())
	}
	var keeper string
	switch {
	case st[itemProtect] != 0:
		keeper = "it is protected (" + s.protect[s.index(st[itemProtect])].Reason + ")"
	case s.allows(st): // for what it names, but a connected network has to be named
		keeper = s.claimed(st[itemLAN]) + " keeps it"
	default:
		keeper = s.claimed(st[itemClaim]) + " keeps it"
	}
	return fmt.Sprintf("%s and %s says so", keeper, s.settler(st))
}

// index returns the place of a state's item in the list that its kind stands for.
func (s *sweep) index(ref int32) int32 { return s.items[ref-1].index }

// claimed names the route of a claim: "10.0.0.0/8 on tun0 (OpenVPN, table main)".
func (s *sweep) claimed(ref int32) string {
	c := s.claims[s.index(ref)]
	return c.named.String() + " " + s.v.where(c)
}
