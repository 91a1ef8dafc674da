package policy

import "net/netip"

// twin decides one address the slow and obvious way, straight from design and manual pages.
type twin struct {
	in Input
	k  kernel
}

// longest returns the length of the longest of prefixes around a; -1 if there is none.
func longest(prefixes []netip.Prefix, a netip.Addr) int {
	bits := -1
	for _, p := range prefixes {
		if p.Contains(a) {
			bits = max(bits, p.Bits())
		}
	}
	return bits
}

func (w twin) tunnelled(a netip.Addr) bool {
	for _, p := range w.in.Overlay {
		if a == p.Addr().Next() {
			return true
		}
	}
	s := w.in.Settings
	also, never, allow := longest(s.rules(ResolveAlso), a), longest(s.rules(ResolveNever), a), longest(s.rules(ResolveAllow), a)
	wanted := also >= 0 || longest(w.in.Cluster.prefixes(), a) >= 0
	claimed, lan := w.claimed(a)
	switch {
	case !wanted, w.protected(a), never >= 0 && never >= also:
		return false
	case claimed && allow <= longest(s.rules(ResolveYield), a):
		return false
	}
	return lan <= allow
}

// open reports whether a is wanted and nothing settles who gets it.
func (w twin) open(a netip.Addr) bool {
	s := w.in.Settings
	also, never := longest(s.rules(ResolveAlso), a), longest(s.rules(ResolveNever), a)
	wanted := also >= 0 || longest(w.in.Cluster.prefixes(), a) >= 0
	claimed, _ := w.claimed(a)
	return wanted && !w.protected(a) && (never < 0 || never < also) && claimed && longest(s.rules(ResolveAllow), a) < 0 &&
		longest(s.rules(ResolveYield), a) < 0 && s.OnConflict != ResolveYield
}

// yielded reports whether a is wanted and a setting leaves it to others.
func (w twin) yielded(a netip.Addr) bool {
	s := w.in.Settings
	also, never := longest(s.rules(ResolveAlso), a), longest(s.rules(ResolveNever), a)
	wanted := also >= 0 || longest(w.in.Cluster.prefixes(), a) >= 0
	claimed, _ := w.claimed(a)
	yield, allow := longest(s.rules(ResolveYield), a), longest(s.rules(ResolveAllow), a)
	return wanted && !w.protected(a) && (never < 0 || never < also) && claimed && allow <= yield && (yield >= 0 || s.OnConflict == ResolveYield)
}

// claimed reports whether some table that an ordinary packet to a may consult has a route for it, and
// the length of the longest that is a LAN's; -1 if there is none.
func (w twin) claimed(a netip.Addr) (claimed bool, lan int) {
	lan = -1
	for _, p := range ordinaryPackets(a) {
		w.k.visit(p, func(rule Rule) bool {
			if rule.Action != "" && rule.Action != ActionLookup {
				claimed = claimed || rule.Dst.IsValid() && !rule.Invert
				return false
			}
			for _, r := range w.k.routes {
				if r.Table != rule.Table || !r.Prefix.Contains(a) || r.Prefix.Bits() < rule.MinPrefixLen || w.harmless(r, rule) || w.thrown(r, a) {
					continue
				}
				claimed = true
				if r.Protocol == ProtocolKernel && w.link(r).Kind == "" && !r.NextHops[0].Addr.IsValid() {
					lan = max(lan, r.Prefix.Bits())
				}
			}
			return false
		})
	}
	return claimed, lan
}

func (w twin) link(r Route) Link {
	for _, l := range w.in.Facts.Links {
		if len(r.NextHops) > 0 && l.Index == r.NextHops[0].Link {
			return l
		}
	}
	return Link{Kind: "none"}
}

// harmless are the routes that are no conflict: throw, those of this host itself, and default routes,
// which the test hosts have as one or as two halves, unless a rule narrows them down.
func (w twin) harmless(r Route, rule Rule) bool {
	if r.Type == Throw || r.Type == Local {
		return true
	}
	if rule.Dst.IsValid() && !rule.Invert && rule.Dst.Bits() > r.Prefix.Bits() {
		return false
	}
	return isDefault(r)
}

func isDefault(r Route) bool { return r.Prefix.Bits() <= 1 }

func (w twin) thrown(r Route, a netip.Addr) bool {
	for _, t := range w.k.routes {
		if t.Type == Throw && t.Table == r.Table && t.Prefix.Contains(a) && t.Prefix.Bits() > r.Prefix.Bits() {
			return true
		}
	}
	return false
}

func (w twin) protected(a netip.Addr) bool {
	for _, p := range w.in.Protected {
		if p.Prefix.Contains(a) {
			return true
		}
	}
	for _, l := range w.in.Facts.Links {
		for _, p := range l.Addresses {
			if p.Addr() == a {
				return true
			}
		}
	}
	for _, r := range w.in.Facts.Routes {
		for _, h := range r.NextHops {
			if isDefault(r) && h.Addr == a {
				return true
			}
		}
		endpoint := r.Prefix.IsSingleIP() && r.Prefix.Addr() == a && r.Type == Unicast && len(r.NextHops) > 0 && r.NextHops[0].Addr.IsValid() && w.link(r).Kind == ""
		if endpoint {
			return true
		}
	}
	return false
}
