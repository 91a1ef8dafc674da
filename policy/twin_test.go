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

// lanKept reports whether a is wanted and stays with a connected network.
func (w twin) lanKept(a netip.Addr) bool {
	s := w.in.Settings
	also, never := longest(s.rules(ResolveAlso), a), longest(s.rules(ResolveNever), a)
	wanted := also >= 0 || longest(w.in.Cluster.prefixes(), a) >= 0
	_, lan := w.claimed(a)
	allow := longest(s.rules(ResolveAllow), a)
	return wanted && !w.protected(a) && (never < 0 || never < also) && allow > longest(s.rules(ResolveYield), a) && lan > allow
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
				if r.Table != rule.Table || r.TOS != 0 || !r.Prefix.Contains(a) || r.Prefix.Bits() < rule.MinPrefixLen || w.harmless(r, rule) || w.thrown(r, a) {
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
	return claimed || w.secured(a), lan
}

// secured reports whether some ordinary packet to a, sent from any address of the host out of any
// interface, is taken by an IPsec policy: one that is no exemption and no VPN for everything.
func (w twin) secured(a netip.Addr) bool {
	for _, src := range w.sources() {
		for _, link := range []int{1, 2, 3, 9} {
			for special := range len(w.in.Facts.IPsec) {
				p, ok := w.policy(src, a, link, special)
				if ok && p.Action != IPsecBypass && p.Dst.Bits() > 0 {
					return true
				}
			}
		}
	}
	return false
}

// sources are the addresses that packets may come from: the host's own, and others without meaning.
func (w twin) sources() []netip.Addr {
	out := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	for _, l := range w.in.Facts.Links {
		for _, p := range l.Addresses {
			out = append(out, p.Addr())
		}
	}
	return out
}

// policy returns the IPsec policy that holds for a packet without a mark: the first of those with the
// lowest priority. Of policies with further selectors the packet fits only the one numbered special.
func (w twin) policy(src, dst netip.Addr, link, special int) (best IPsecPolicy, ok bool) {
	for i, p := range w.in.Facts.IPsec {
		fits := p.Src.Contains(src) && p.Dst.Contains(dst) && (0^p.Mark.Value)&p.Mark.Mask == 0 && p.IfID == 0 &&
			(p.Link == 0 || p.Link == link) && (!p.Partial || special == i)
		if fits && (!ok || p.Priority < best.Priority) {
			best, ok = p, true
		}
	}
	return best, ok
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
		if t.Type == Throw && t.Table == r.Table && t.TOS == 0 && t.Prefix.Contains(a) && t.Prefix.Bits() > r.Prefix.Bits() {
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
			if p.Addr() == a && (l.Master != randomVRF.Index || w.vrfInReach()) {
				return true
			}
		}
	}
	for _, p := range w.in.Facts.IPsec {
		if p.Peer == a {
			return true
		}
	}
	for _, r := range w.in.Facts.Routes {
		if r.Table == randomVRF.VRFTable && !w.vrfInReach() {
			continue
		}
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

// vrfInReach reports whether a rule names the table of the test hosts' VRF.
func (w twin) vrfInReach() bool {
	for _, r := range w.in.Facts.Rules {
		if r.Table == randomVRF.VRFTable {
			return true
		}
	}
	return false
}
