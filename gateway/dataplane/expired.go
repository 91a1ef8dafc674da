package dataplane

import "github.com/culvert-dev/culvert/internal/packet"

// fromPeerExpired takes a packet that no router would forward: its hop limit ends here (RFC 1812, section
// 5.3.1; RFC 4443, section 3.3). What egress refuses is refused as ever, which says more than "time exceeded":
// whoever asks with a hop limit of 1 whether a destination can be reached through this gateway gets the
// answer, and the destination no packet.
func (p *Plane) fromPeerExpired(in *inbound) {
	key, t, opens := in.opening()
	if !opens || !p.refuses(in.peer, key) {
		p.answerError(in, packet.TimeExceeded)
		return
	}
	if key.proto == TCP {
		p.refuse(in, t, refused)
		return
	}
	p.metrics.result(key.proto, resultDenied)
	p.answerError(in, packet.Prohibited)
}

// refuses reports whether the flow key may not pass. To whoever asks so, a twin that does not exist is as good
// as prohibited: "unreachable" would be read as the word of a router behind the gateway.
func (p *Plane) refuses(pr *peer, key flowKey) bool {
	_, r := p.decide(pr, key.proto, key.src.Addr(), key.dst)
	return r == refused || r == nowhere
}

// opening returns the flow that the packet would open, and of TCP the segment; ok is false for what opens none:
// other protocols, segments within a connection, and the malformed.
func (in *inbound) opening() (key flowKey, t packet.TCPHeader, ok bool) {
	src, dst := in.header.Src, in.header.Dst
	switch in.proto() {
	case TCP:
		t, ok = packet.ParseTCP(in.payload())
		ok = ok && t.Flags&(packet.FlagSYN|packet.FlagACK|packet.FlagRST|packet.FlagFIN) == packet.FlagSYN
		return flowKey{TCP, addrPort(src, t.SrcPort), addrPort(dst, t.DstPort)}, t, ok
	case UDP:
		srcPort, dstPort, _, ok := packet.ParseUDP(in.payload())
		return flowKey{UDP, addrPort(src, srcPort), addrPort(dst, dstPort)}, t, ok
	case Echo:
		e, ok := packet.ParseEchoRequest(in.header, in.payload())
		return flowKey{Echo, addrPort(src, e.ID), addrPort(dst, 0)}, t, ok
	}
	return key, t, false
}
