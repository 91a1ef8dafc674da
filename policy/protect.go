package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// protected returns everything that must not enter the tunnel, as far as it is of interest: what the
// caller named, and what the facts show. Sorted, one entry per prefix and reason.
func (v *view) protected(in Input, claims map[Family][]claim, interest rangeSet) []Protected {
	g := guard{interest: interest, seen: map[Protected]bool{}}
	for _, p := range in.Protected {
		g.add(p.Prefix, p.Reason)
	}
	for p, reason := range v.single {
		g.add(p, reason)
	}
	v.protectPeers(&g, in.Facts.IPsec)
	v.protectOwnAddresses(&g)
	tunnels := v.hasTunnel()
	for i := range v.routes {
		r := &v.routes[i]
		if v.isOwn(r) || v.vrfOnly[r.Table] {
			continue
		}
		if v.whole[i] {
			v.protectNextHops(&g, r)
		} else if tunnels {
			v.protectEndpoint(&g, r)
		}
	}
	for _, f := range []Family{IPv4, IPv6} {
		v.protectUnwinnable(&g, f, claims[f])
	}
	slices.SortFunc(g.out, func(a, b Protected) int {
		if c := comparePrefix(a.Prefix, b.Prefix); c != 0 {
			return c
		}
		return strings.Compare(a.Reason, b.Reason)
	})
	return g.out
}

// guard collects protected prefixes.
type guard struct {
	interest rangeSet
	seen     map[Protected]bool
	out      []Protected
}

func (g *guard) add(p netip.Prefix, reason string) {
	if !p.IsValid() || !g.interest.overlaps(p) {
		return
	}
	entry := Protected{p.Masked(), reason}
	if !g.seen[entry] {
		g.seen[entry] = true
		g.out = append(g.out, entry)
	}
}

// protectOwnAddresses keeps what is delivered on this host itself: the local table comes before
// any rule of ours.
func (v *view) protectOwnAddresses(g *guard) {
	for i := range v.routes {
		if r := &v.routes[i]; r.Type == Local && !v.isOwn(r) && !v.vrfOnly[r.Table] {
			g.add(r.Prefix, "address of this workstation")
		}
	}
	for _, l := range v.links {
		master := v.links[l.Master]
		if v.vrfOnly[l.VRFTable] || master != nil && v.vrfOnly[master.VRFTable] {
			continue
		}
		for _, a := range l.Addresses {
			if a.IsValid() && l.Index != v.ownIdx {
				g.add(hostPrefix(a.Addr()), "address of this workstation")
			}
		}
	}
}

// protectNextHops keeps the routers of default routes: without them there is no internet and no
// carrier.
func (v *view) protectNextHops(g *guard, r *Route) {
	for _, h := range r.NextHops {
		if h.Addr.IsValid() {
			g.add(hostPrefix(h.Addr), "next hop of a default route on "+v.link(h.Link).Name)
		}
	}
}

// protectEndpoint keeps single addresses that are routed past the tunnels of a host which has some:
// VPN clients route their server so.
func (v *view) protectEndpoint(g *guard, r *Route) {
	if !r.Prefix.IsSingleIP() || len(r.NextHops) == 0 || !isUnicast(r.Type) {
		return
	}
	for _, h := range r.NextHops {
		if l := v.links[h.Link]; !h.Addr.IsValid() || l != nil && l.tunnel {
			return
		}
	}
	g.add(r.Prefix, "endpoint of another tunnel, routed by "+v.link(r.NextHops[0].Link).Name)
}

// protectUnwinnable keeps what rules in front of every free priority steer.
func (v *view) protectUnwinnable(g *guard, f Family, claims []claim) {
	floor := v.firstFree(f)
	for _, c := range claims {
		if c.rule < floor && v.route(c.route).Type != Local {
			g.add(c.prefix, fmt.Sprintf("rule %d comes before any that could be ours", c.rule))
		}
	}
}

func (v *view) hasTunnel() bool {
	for _, l := range v.links {
		if l.Index != v.ownIdx && l.tunnel {
			return true
		}
	}
	return false
}

// isLAN reports whether r is a network connected to this host without a tunnel. Such a network is
// left alone unless a setting names it, or a part of it, exactly: a printer next door is worth more
// than what a wide prefix swept in.
func (v *view) isLAN(r *Route) bool {
	if !isUnicast(r.Type) || len(r.NextHops) == 0 || r.Protocol != ProtocolKernel {
		return false
	}
	for _, h := range r.NextHops {
		l := v.links[h.Link]
		if h.Addr.IsValid() || l == nil || l.tunnel || l.Loopback {
			return false
		}
	}
	return true
}
