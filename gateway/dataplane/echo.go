package dataplane

import (
	"log/slog"
	"net/netip"
	"sync"

	"github.com/culvert-dev/culvert/internal/packet"
)

// fromPeerICMP takes an ICMP message of a Peer. Echo requests are sent on by ping sockets, so that a
// dead address stays silent; errors about answers that came too late are of no use here.
func (p *Plane) fromPeerICMP(in *inbound) {
	e, ok := packet.ParseEchoRequest(in.header, in.payload())
	if !ok {
		p.metrics.drop(dropProtocol)
		return
	}
	src, dst := in.header.Src, in.header.Dst
	if dst == in.peer.gateway(src) {
		p.sendEcho(dst, src, e)
		return
	}
	f := p.datagramFlow(in, flowKey{Echo, addrPort(src, e.ID), addrPort(dst, 0)})
	if f == nil {
		return
	}
	b := scratch.Get().(*[]byte)
	defer scratch.Put(b)
	*b = packet.AppendEchoRequest((*b)[:0], dst.Is4(), e)
	f.send(*b)
}

// sendEcho sends an echo reply to a Peer, in fragments where it is longer than the MTU.
func (p *Plane) sendEcho(src, dst netip.Addr, e packet.EchoMessage) {
	p.sendPacket(func(b []byte) []byte { return packet.AppendEchoReply(b, src, dst, e) },
		packet.IPv6HeaderLen+packet.ICMPHeaderLen+len(e.Data))
}

// pingSupport remembers that this pod may not ping, to say so once.
type pingSupport struct{ once sync.Once }

func (s *pingSupport) forbidden(log *slog.Logger, err error) {
	s.once.Do(func() {
		log.Warn("data plane: ICMP echo of Peers is dropped, ping sockets are not permitted here; "+
			"set the pod's sysctl net.ipv4.ping_group_range to include its group", "err", err)
	})
}
