package packet

import (
	"encoding/binary"
	"net/netip"
)

// RewriteSrc replaces the source address of pkt, whose header is h, and brings up to date what covers it:
// the IPv4 header checksum, and the checksum of TCP, UDP, UDP-Lite, DCCP or ICMPv6 where pkt holds it, which
// of several fragments only the first does. The checksums are changed, not made (RFC 1624, eqn. 3), so that
// what was wrong stays wrong. A UDP checksum of zero, which means none, stays zero. Of any other protocol only
// the IP header is changed. h follows; it must be what [Parse] found in pkt.
//
// Back and forth gives the same bytes, but for a checksum of 0xffff outside UDP, which no sender makes: it
// comes back as 0, which means the same. An address of the other family changes nothing.
func RewriteSrc(pkt []byte, h *Header, to netip.Addr) { rewrite(pkt, h, &h.Src, to) }

// RewriteDst replaces the destination address as [RewriteSrc] does the source.
func RewriteDst(pkt []byte, h *Header, to netip.Addr) { rewrite(pkt, h, &h.Dst, to) }

// rewrite replaces addr, which is one of h's, and returns the change to a sum over all of pkt.
func rewrite(pkt []byte, h *Header, addr *netip.Addr, to netip.Addr) change {
	if to.Is4() != h.Is4() || !to.IsValid() {
		return 0
	}
	second := 0
	if addr == &h.Dst {
		second = 1
	}
	var all change
	if h.Is4() {
		b := to.As4()
		addrs := replace(pkt[12+4*second:], b[:])
		all = addrs + addrs.apply(pkt[10:])
		all += h.applyToTransport(pkt, addrs)
	} else {
		b := to.As16()
		addrs := replace(pkt[8+16*second:], b[:])
		all = addrs + h.applyToTransport(pkt, addrs)
	}
	*addr = to
	return all
}

// applyToTransport brings the upper-layer checksum up to date with a change of the pseudo header.
func (h *Header) applyToTransport(pkt []byte, c change) change {
	at := pseudoHeaderSumAt(h.Proto, h.Is4())
	if at < 0 || h.FragmentOffset > 0 || h.PayloadOffset+at+2 > h.Len {
		return 0
	}
	field := pkt[h.PayloadOffset+at:]
	if h.Proto == ProtoUDP || h.Proto == ProtoUDPLite {
		return c.applyUnlessZero(field)
	}
	return c.apply(field)
}

// pseudoHeaderSumAt returns where the upper-layer header has a checksum that covers the addresses too, -1
// for nowhere: RFC 9293 3.1, RFC 768, RFC 3828 3.1, RFC 4340 5.1 and 9.1, RFC 4443 2.3.
func pseudoHeaderSumAt(proto uint8, is4 bool) int {
	switch {
	case proto == ProtoTCP:
		return 16
	case proto == ProtoUDP || proto == ProtoUDPLite || proto == ProtoDCCP:
		return 6
	case proto == ProtoICMPv6 && !is4:
		return 2
	}
	return -1
}

// change is what replacing 16-bit words adds to the one's complement sum over them: ~m + m' for each
// (RFC 1624). Some thousand words fit in it.
type change uint32

// replace overwrites the start of b by as many bytes, an even number.
func replace(b, by []byte) (c change) {
	for i := 0; i < len(by); i += 2 {
		c += change(^binary.BigEndian.Uint16(b[i:])) + change(binary.BigEndian.Uint16(by[i:]))
	}
	copy(b, by)
	return c
}

// applied returns the checksum old after the change: ~(~HC + ~m + m').
func (c change) applied(old uint16) uint16 {
	sum := uint32(^old) + uint32(c)
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum&0xffff)
}

// apply brings the checksum at the start of field up to date, and returns what that changes.
func (c change) apply(field []byte) change {
	old := binary.BigEndian.Uint16(field)
	return put(field, old, c.applied(old))
}

// applyUnlessZero is apply for checksums of which zero says that there is none (RFC 768; RFC 8200, section 8.1).
func (c change) applyUnlessZero(field []byte) change {
	old := binary.BigEndian.Uint16(field)
	if old == 0 {
		return 0
	}
	sum := c.applied(old)
	if sum == 0 {
		sum = 0xffff
	}
	return put(field, old, sum)
}

func put(field []byte, old, sum uint16) change {
	binary.BigEndian.PutUint16(field, sum)
	return change(^old) + change(sum)
}
