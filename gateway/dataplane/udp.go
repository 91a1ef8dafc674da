package dataplane

import (
	"net/netip"
	"sync"

	"github.com/culvert-dev/culvert/internal/packet"
)

// fromPeerUDP takes a UDP datagram of a Peer.
func (p *Plane) fromPeerUDP(in *inbound) {
	srcPort, dstPort, payload, ok := packet.ParseUDP(in.payload())
	if !ok || srcPort == 0 || dstPort == 0 {
		p.metrics.drop(dropMalformed)
		return
	}
	key := flowKey{UDP, addrPort(in.header.Src, srcPort), addrPort(in.header.Dst, dstPort)}
	if key.dst.Addr() == in.peer.gateway(key.src.Addr()) {
		p.toLocalUDP(in, key, payload)
		return
	}
	if f := p.datagramFlow(in, key); f != nil {
		f.send(payload)
	}
}

// toLocalUDP hands a datagram for the gateway's own address to the local service.
func (p *Plane) toLocalUDP(in *inbound, key flowKey, payload []byte) {
	switch {
	case p.dns == nil || key.dst.Port() != dnsPort:
		p.answerError(in, packet.PortUnreachable)
	case !p.dns.datagrams.deliver(key.src, payload):
		p.metrics.drop(dropBusy)
	}
}

// scratch are for packets longer than the MTU on their way to be cut.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 1<<16+packet.IPv6HeaderLen); return &b }}

// sendUDP sends a datagram to a Peer, in fragments where it is longer than the MTU. It waits for room
// in the queue.
func (p *Plane) sendUDP(src, dst netip.AddrPort, payload []byte) {
	p.sendPacket(func(b []byte) []byte { return packet.AppendUDP(b, src, dst, payload) },
		packet.IPv6HeaderLen+packet.UDPHeaderLen+len(payload))
}

// sendPacket queues the packet that build appends, which is at most size bytes long.
func (p *Plane) sendPacket(build func([]byte) []byte, size int) {
	if size <= p.cfg.MTU {
		b := newBuffer()
		*b = build(*b)
		p.send(b, true)
		return
	}
	whole := scratch.Get().(*[]byte)
	defer scratch.Put(whole)
	*whole = build((*whole)[:0])
	part := newBuffer()
	defer buffers.Put(part)
	packet.Fragment(*whole, p.cfg.MTU, p.fragments.Add(1), *part, func(b []byte) {
		piece := newBuffer()
		*piece = append(*piece, b...)
		p.send(piece, true)
	})
}
