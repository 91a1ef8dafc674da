package agent

import (
	"net/netip"
	"sync/atomic"

	"github.com/culvert-dev/culvert/gateway/dataplane"
	"github.com/culvert-dev/culvert/gateway/egress"
)

// border answers the data plane who may go where. The zero value refuses everybody.
type border struct {
	// own are the ports of this agent on the loopback, which it does not dial.
	own []netip.AddrPort
	// reach has what each node reaches, by its overlay addresses. A map is never changed.
	reach atomic.Pointer[map[netip.Addr]*egress.Set]
}

// set puts what the nodes in ns reach in force.
func (b *border) set(ns nodes) {
	reach := make(map[netip.Addr]*egress.Set, 2*len(ns))
	for _, n := range ns {
		for _, a := range n.peer.Node {
			reach[a] = n.reach
		}
	}
	b.reach.Store(&reach)
}

// permit answers for a flow of the node with the overlay address peer to the real address dst. What it permits
// includes the pod's own addresses, which the data plane would keep otherwise; what must stay closed whoever asks
// is closed in each node's set.
func (b *border) permit(peer netip.Addr, _ dataplane.Proto, dst netip.AddrPort) dataplane.Verdict {
	reach := b.reach.Load()
	if reach == nil || (*reach)[peer].Decide(dst.Addr()) == egress.Refused {
		return dataplane.Deny
	}
	for _, own := range b.own {
		if dst == own {
			return dataplane.Deny
		}
	}
	return dataplane.AllowReserved
}
