package packet

import (
	"encoding/binary"
	"net/netip"
)

// ICMP types (RFC 792, RFC 4443).
const (
	icmp4EchoReply    = 0
	icmp4Unreachable  = 3
	icmp4Echo         = 8
	icmp4TimeExceeded = 11
	icmp6Unreachable  = 1
	icmp6TimeExceeded = 3
	icmp6Echo         = 128
	icmp6EchoReply    = 129
)

// Reason is why a packet is answered by an ICMP error.
type Reason uint8

const (
	// NetUnreachable: no route to the destination.
	NetUnreachable Reason = iota
	// HostUnreachable: the destination does not answer, or its neighbours say so.
	HostUnreachable
	// ProtocolUnreachable: the destination does not speak the upper-layer protocol.
	ProtocolUnreachable
	// PortUnreachable: nobody listens there.
	PortUnreachable
	// Prohibited: a policy forbids it.
	Prohibited
	// TimeExceeded: the packet may not travel further.
	TimeExceeded
)

// typeAndCode returns the ICMP type and code that say r (RFC 792, 1812; RFC 4443). ICMPv6 has no
// "protocol unreachable"; its parameter problem needs a pointer, so the port form stands in.
func (r Reason) typeAndCode(is4 bool) (uint8, uint8) {
	if is4 {
		switch r {
		case NetUnreachable:
			return icmp4Unreachable, 0
		case HostUnreachable:
			return icmp4Unreachable, 1
		case ProtocolUnreachable:
			return icmp4Unreachable, 2
		case PortUnreachable:
			return icmp4Unreachable, 3
		case TimeExceeded:
			return icmp4TimeExceeded, 0
		}
		return icmp4Unreachable, 13
	}
	switch r {
	case NetUnreachable:
		return icmp6Unreachable, 0
	case HostUnreachable:
		return icmp6Unreachable, 3
	case ProtocolUnreachable, PortUnreachable:
		return icmp6Unreachable, 4
	case TimeExceeded:
		return icmp6TimeExceeded, 0
	}
	return icmp6Unreachable, 1
}

// quoted is how much of a packet an ICMP error repeats: an error fits in 576 bytes over IPv4
// (RFC 1812, section 4.3.2.3); the same is plenty over IPv6, whose limit is 1280.
const quoted = 576 - IPv4HeaderLen - ICMPHeaderLen

// AppendUnreachable appends to b the ICMP error that answers the packet original, whose header is h,
// coming from the address from. It returns b unchanged where the RFCs forbid an answer: to ICMP
// errors, to later fragments, and to packets from or to addresses that are not one host's
// (RFC 1122 3.2.2, RFC 4443 2.4).
func AppendUnreachable(b []byte, original []byte, h Header, r Reason, from netip.Addr) []byte {
	if !mayAnswer(original, h) || from.Is4() != h.Is4() {
		return b
	}
	quote := original[:min(h.Len, len(original), quoted)]
	is4 := h.Is4()
	proto := uint8(ProtoICMPv6)
	if is4 {
		proto = ProtoICMP
	}
	b = appendIP(b, from, h.Src, proto, ICMPHeaderLen+len(quote))
	at := len(b)
	kind, code := r.typeAndCode(is4)
	b = append(b, kind, code, 0, 0, 0, 0, 0, 0)
	b = append(b, quote...)
	finishICMP(b[at:], from, h.Src)
	return b
}

func mayAnswer(original []byte, h Header) bool {
	if h.FragmentOffset > 0 || h.Dst.IsMulticast() ||
		!h.Src.IsValid() || h.Src.IsUnspecified() || h.Src.IsMulticast() || h.Src.IsLoopback() {
		return false
	}
	if h.PayloadOffset >= len(original) {
		return h.Proto != ProtoICMP && h.Proto != ProtoICMPv6
	}
	switch kind := original[h.PayloadOffset]; {
	case h.Is4() && h.Proto == ProtoICMP:
		return kind == icmp4Echo
	case !h.Is4() && h.Proto == ProtoICMPv6:
		return kind >= 128
	}
	return true
}

// finishICMP writes the checksum of the ICMP message m between src and dst.
func finishICMP(m []byte, src, dst netip.Addr) {
	initial := uint16(0)
	if !src.Is4() {
		initial = pseudoHeader(src, dst, ProtoICMPv6, len(m))
	}
	m[2], m[3] = 0, 0
	binary.BigEndian.PutUint16(m[2:], checksumOf(m, initial))
}

// EchoMessage is an ICMP echo request or reply. Data aliases the packet it was parsed from.
type EchoMessage struct {
	ID, Seq uint16
	Data    []byte
}

// ParseEchoRequest reads message, the payload of a packet with header h, as an ICMP echo request of
// the packet's family.
func ParseEchoRequest(h Header, message []byte) (EchoMessage, bool) {
	if h.Is4() {
		return parseEcho(message, h.Proto == ProtoICMP, icmp4Echo)
	}
	return parseEcho(message, h.Proto == ProtoICMPv6, icmp6Echo)
}

// ParseEchoReply reads an ICMP echo reply as a ping socket returns it: without the IP header.
func ParseEchoReply(message []byte, is4 bool) (EchoMessage, bool) {
	if is4 {
		return parseEcho(message, true, icmp4EchoReply)
	}
	return parseEcho(message, true, icmp6EchoReply)
}

func parseEcho(m []byte, rightProto bool, kind uint8) (EchoMessage, bool) {
	if !rightProto || len(m) < ICMPHeaderLen || m[0] != kind || m[1] != 0 {
		return EchoMessage{}, false
	}
	return EchoMessage{
		ID:   binary.BigEndian.Uint16(m[4:]),
		Seq:  binary.BigEndian.Uint16(m[6:]),
		Data: m[ICMPHeaderLen:],
	}, true
}

// AppendEchoRequest appends an echo request without IP header, as a ping socket takes it; the
// kernel fills in identifier and checksum.
func AppendEchoRequest(b []byte, is4 bool, e EchoMessage) []byte {
	kind := uint8(icmp6Echo)
	if is4 {
		kind = icmp4Echo
	}
	return appendEcho(b, kind, e)
}

// AppendEchoReply appends the packet that carries the echo reply e from src to dst. It may exceed
// the MTU; see [Fragment].
func AppendEchoReply(b []byte, src, dst netip.Addr, e EchoMessage) []byte {
	kind, proto := uint8(icmp6EchoReply), uint8(ProtoICMPv6)
	if src.Is4() {
		kind, proto = icmp4EchoReply, ProtoICMP
	}
	b = appendIP(b, src, dst, proto, ICMPHeaderLen+len(e.Data))
	at := len(b)
	b = appendEcho(b, kind, e)
	finishICMP(b[at:], src, dst)
	return b
}

func appendEcho(b []byte, kind uint8, e EchoMessage) []byte {
	b = append(b, kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, e.ID)
	b = binary.BigEndian.AppendUint16(b, e.Seq)
	return append(b, e.Data...)
}
