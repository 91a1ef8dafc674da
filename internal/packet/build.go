package packet

import (
	"encoding/binary"
	"net/netip"
)

// defaultTTL is the hop limit of packets made here, as most systems use it.
const defaultTTL = 64

// appendIP appends an IP header for a payload of the given length, in bytes, and returns the grown
// slice and the place of the payload. A payload beyond what the length field can say is cut off by
// the caller.
func appendIP(b []byte, src, dst netip.Addr, proto uint8, payloadLen int) []byte {
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		at := len(b)
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0, 0, defaultTTL, proto, 0, 0)
		b = append(append(b, s[:]...), d[:]...)
		binary.BigEndian.PutUint16(b[at+2:], uint16(IPv4HeaderLen+payloadLen))
		finish4(b[at:])
		return b
	}
	s, d := src.As16(), dst.As16()
	at := len(b)
	b = append(b, 0x60, 0, 0, 0, 0, 0, proto, defaultTTL)
	b = append(append(b, s[:]...), d[:]...)
	binary.BigEndian.PutUint16(b[at+4:], uint16(payloadLen))
	return b
}

// finish4 writes the checksum of the IPv4 header at the start of b.
func finish4(b []byte) {
	headerLen := int(b[0]&0x0f) * 4
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], checksumOf(b[:headerLen], 0))
}

// AppendUDP appends to b a UDP packet from src to dst with the payload, which must be at most
// 65,507 bytes (65,527 over IPv6). The packet may exceed the MTU; see [Fragment].
func AppendUDP(b []byte, src, dst netip.AddrPort, payload []byte) []byte {
	size := UDPHeaderLen + len(payload)
	b = appendIP(b, src.Addr(), dst.Addr(), ProtoUDP, size)
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(b, 0, 0)
	b = append(b, payload...)
	sum := checksumOf(b[at:], pseudoHeader(src.Addr(), dst.Addr(), ProtoUDP, size))
	if sum == 0 { // zero would mean "no checksum"
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[at+6:], sum)
	return b
}

// AppendReset appends the TCP RST that answers the segment described by h and t
// (RFC 9293, section 3.10.7.1). It must not be called for a segment that is itself a reset.
func AppendReset(b []byte, h Header, t TCPHeader) []byte {
	seq, ack, flags := uint32(0), uint32(0), uint8(FlagRST)
	if t.Flags&FlagACK != 0 {
		seq = t.Ack
	} else {
		flags |= FlagACK
		ack = t.Seq + uint32(t.DataLen)
		if t.Flags&FlagSYN != 0 {
			ack++
		}
		if t.Flags&FlagFIN != 0 {
			ack++
		}
	}
	b = appendIP(b, h.Dst, h.Src, ProtoTCP, TCPHeaderLen)
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, t.DstPort)
	b = binary.BigEndian.AppendUint16(b, t.SrcPort)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	b = append(b, TCPHeaderLen/4<<4, flags, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(b[at+16:], checksumOf(b[at:], pseudoHeader(h.Dst, h.Src, ProtoTCP, TCPHeaderLen)))
	return b
}
