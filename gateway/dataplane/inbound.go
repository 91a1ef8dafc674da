package dataplane

import (
	"net/netip"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// inbound is one whole packet of a Peer on its way into the cluster. bytes belong to the caller of
// [device.Write] and are not kept.
type inbound struct {
	peer   *peer
	header packet.Header
	bytes  []byte
}

// payload returns the upper-layer segment.
func (in *inbound) payload() []byte { return in.bytes[in.header.PayloadOffset:in.header.Len] }

// fromPeer takes one packet of a batch out of the tunnel; TCP may stay in m until the batch's end. It is the
// only way in.
func (p *Plane) fromPeer(b []byte, m *merger) {
	if len(b) == 0 { // WireGuard keepalives carry nothing
		return
	}
	h, err := packet.Parse(b)
	if err != nil {
		p.metrics.drop(dropMalformed)
		return
	}
	pr := p.peers.Load().byNode[h.Src]
	if pr == nil {
		p.metrics.drop(dropSource)
		return
	}
	if h.IsFragment() {
		whole, ok := pr.frags.Add(b, h, time.Now())
		if !ok {
			return
		}
		b = whole
		if h, err = packet.Parse(b); err != nil {
			p.metrics.drop(dropMalformed)
			return
		}
	}
	p.dispatch(&inbound{peer: pr, header: h, bytes: b[:h.Len]}, m)
}

// toPeer checks one packet that is about to enter the tunnel and reports whether it may. It is the
// only way out.
func (p *Plane) toPeer(b []byte) bool {
	h, err := packet.Parse(b)
	if err != nil {
		p.metrics.drop(dropMalformed)
		return false
	}
	if p.peers.Load().byNode[h.Dst] == nil {
		p.metrics.drop(dropDestination)
		return false
	}
	return true
}

// dispatch hands a packet to what carries its protocol.
func (p *Plane) dispatch(in *inbound, m *merger) {
	h := &in.header
	if h.TTL <= 1 && h.Dst != in.peer.gateway(h.Src) {
		p.fromPeerExpired(in)
		return
	}
	switch in.proto() {
	case TCP:
		p.fromPeerTCP(in, m)
	case UDP:
		p.fromPeerUDP(in)
	case Echo:
		p.fromPeerICMP(in)
	default:
		p.metrics.drop(dropProtocol)
		p.answerError(in, packet.ProtocolUnreachable)
	}
}

// proto returns what carries the packet, ICMP of its own family being [Echo]; 0 when nothing does.
func (in *inbound) proto() Proto {
	switch h := &in.header; {
	case h.Proto == packet.ProtoTCP, h.Proto == packet.ProtoUDP:
		return Proto(h.Proto)
	case h.Proto == packet.ProtoICMP && h.Is4(), h.Proto == packet.ProtoICMPv6 && !h.Is4():
		return Echo
	}
	return 0
}

// answerError answers a packet by an ICMP error from the gateway's address.
func (p *Plane) answerError(in *inbound, why packet.Reason) {
	p.sendError(in.peer, in.bytes, in.header, why)
}

func (p *Plane) sendError(pr *peer, original []byte, h packet.Header, why packet.Reason) {
	b := newBuffer()
	*b = packet.AppendUnreachable(*b, original, h, why, pr.gateway(h.Src))
	if len(*b) == 0 {
		buffers.Put(b)
		return
	}
	if !pr.errors.Allow() {
		buffers.Put(b)
		p.metrics.drop(dropLimited)
		return
	}
	p.send(b, false)
}

// send queues a packet made here for its Peer. With wait it waits for room, which only goroutines
// of flows may do.
func (p *Plane) send(b *[]byte, wait bool) {
	if !p.out.push(outbound{made: b}, wait) {
		p.metrics.drop(dropBusy)
	}
}

// addrPort is a shorthand for the ends of flows.
func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
