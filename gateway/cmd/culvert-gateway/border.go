package main

import (
	"net/netip"
	"sync"

	"github.com/culvert-dev/culvert/gateway/dataplane"
	"github.com/culvert-dev/culvert/gateway/egress"
	"github.com/culvert-dev/culvert/gateway/overlay"
	"github.com/culvert-dev/culvert/gateway/subnets"
	"github.com/culvert-dev/culvert/gateway/tunnel"
)

// border keeps the egress decision current: it is told the subnets and the Peers as they change, and
// passes the Peers on to the data plane. It is the tunnel.Plane of this program.
type border struct {
	gate  egress.Gate
	plane tunnel.Plane

	mu    sync.Mutex // guards in, and that gate follows it
	input egress.Input
}

// permit answers the data plane.
func (b *border) permit(_ netip.Addr, _ dataplane.Proto, dst netip.AddrPort) dataplane.Verdict {
	switch b.gate.Decide(dst.Addr()) {
	case egress.Permitted:
		return dataplane.Allow
	case egress.PermittedByName:
		return dataplane.AllowReserved
	}
	return dataplane.Deny
}

// setSubnets opens the way to the cluster's subnets, in place of those told before.
func (b *border) setSubnets(r subnets.Result) {
	b.change(func(in *egress.Input) { in.Services, in.Pods = r.ServicePrefixes(), r.PodPrefixes() })
}

// SetPeers serves list and keeps everybody off the overlays of others. The ban comes before the
// Peers and goes after them.
func (b *border) SetPeers(list []tunnel.Peer) {
	var overlays []netip.Prefix
	for _, p := range list {
		for _, a := range p.Node {
			overlays = append(overlays, netip.PrefixFrom(a, a.BitLen()-1))
		}
	}
	b.change(func(in *egress.Input) {
		in.Overlays = append(in.Overlays[:len(in.Overlays):len(in.Overlays)], overlays...)
	})
	b.plane.SetPeers(list)
	b.change(func(in *egress.Input) { in.Overlays = overlays })
}

func (b *border) change(edit func(*egress.Input)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	edit(&b.input)
	b.gate.Replace(egress.Compile(b.input))
}

// reserved returns the prefixes no overlay may overlap: the cluster's, the gateway's own addresses,
// and what egress.allow names within the space of overlays, which a Peer could otherwise take over.
func reserved(r subnets.Result, own []netip.Addr, allow []netip.Prefix) []netip.Prefix {
	out := append(r.ServicePrefixes(), r.PodPrefixes()...)
	for _, a := range own {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, p := range allow {
		if overlay.Holds(p) {
			out = append(out, p)
		}
	}
	return out
}
