package policy

import "net/netip"

// twin decides one address the slow and obvious way, straight from design and manual pages. That twins
// lie where they may is checked elsewhere; here they are what the plan says.
type twin struct {
	in   Input
	k    kernel
	plan Plan
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

// fate is what becomes of one address.
type fate string

const (
	fateNone      fate = "none of the cluster's, or left to the host"
	fateTunnel    fate = "tunnel" // by its own address
	fateVIP       fate = "vip"    // a virtual address that programs use
	fateVirtual   fate = "virtual"
	fateOpen      fate = "open"
	fateYielded   fate = "yielded"
	fateLAN       fate = "lan"
	fateProtected fate = "protected"
)

// fate decides.
func (w twin) fate(a netip.Addr) fate {
	s := w.in.Settings
	also, never, via := longest(s.rules(ResolveAlso), a), longest(s.rules(ResolveNever), a), longest(s.rules(ResolveVia), a)
	allow, yield, virtualize := longest(s.rules(ResolveAllow), a), longest(s.rules(ResolveYield), a), longest(s.rules(ResolveVirtualize), a)
	cluster := also >= 0 || longest(w.in.Cluster.prefixes(), a) >= 0
	claimed, lan := w.claimed(a)
	protected := w.protected(a)

	// who has it if the cluster may not
	keeper := fateOpen
	switch {
	case virtualize > yield && w.hasTwin(a):
		keeper = fateVirtual
	case yield >= 0 || s.OnConflict == ResolveYield:
		keeper = fateYielded
	case s.OnConflict == ResolveVirtualize && w.hasTwin(a):
		keeper = fateVirtual
	}

	switch {
	case w.isOverlay(a):
		return fateTunnel
	case w.isVIP(a) && protected:
		return fateProtected
	case w.isVIP(a):
		return fateVIP
	case !cluster && via < 0, never >= 0 && never >= also && never >= via:
		return fateNone
	case via >= 0 && via >= also && w.hasTwin(a):
		return fateVirtual
	case !cluster:
		return fateNone
	}
	// What the host keeps whatever is allowed, what others have, and a LAN that is not named.
	allowed := allow > yield && allow > virtualize
	if protected || claimed && !allowed || allowed && lan > allow {
		switch {
		case keeper == fateVirtual:
			return fateVirtual
		case protected:
			return fateProtected
		case !allowed:
			return keeper
		}
		return fateLAN
	}
	return fateTunnel
}

func (w twin) isOverlay(a netip.Addr) bool {
	for _, p := range w.in.Overlay {
		if a == p.Addr().Next() {
			return true
		}
	}
	return false
}

// isVIP reports whether a is in a direct twin or a pool.
func (w twin) isVIP(a netip.Addr) bool {
	for _, t := range w.plan.Twins {
		if t.Virtual.IsValid() && !t.Pooled && t.Virtual.Contains(a) {
			return true
		}
	}
	return longest(w.plan.Pools, a) >= 0
}

// onWire reports whether a is what a twin has on the wire.
func (w twin) onWire(a netip.Addr) bool {
	for _, t := range w.plan.Twins {
		if t.Virtual.IsValid() && t.Virtual.Contains(a) {
			return true
		}
	}
	return false
}

// workload returns who is to reach a by a virtual address: the workload of the longest proxyVia around it,
// unless something also-proxied is longer; "" for the gateway. Of two as long, the one later in the alphabet
// counts, since settings refuse them anyway.
func (w twin) workload(a netip.Addr) string {
	best, said := longest(w.in.Settings.rules(ResolveAlso), a), "\x00"
	for _, r := range w.in.Settings.Routing {
		if r.Resolve != ResolveVia || !r.Prefix.Contains(a) || r.Prefix.Bits() < best || r.Prefix.Bits() == best && r.Via < said {
			continue
		}
		best, said = r.Prefix.Bits(), r.Via
	}
	if said == WorkloadGateway || said == "\x00" {
		return ""
	}
	return said
}

// wireOf returns who a belongs to if it is what a twin has on the wire.
func (w twin) wireOf(a netip.Addr) (workload string, ok bool) {
	for _, t := range w.plan.Twins {
		if real := t.RealOf(a); real.IsValid() {
			return w.workload(real), true
		}
	}
	return "", false
}

func (w twin) hasTwin(a netip.Addr) bool {
	for _, t := range w.plan.Twins {
		if t.Virtual.IsValid() && t.Real.Contains(a) {
			return true
		}
	}
	return false
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
