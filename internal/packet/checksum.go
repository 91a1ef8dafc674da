package packet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// checksumOf returns the internet checksum (RFC 1071) of b, ready to be put into a header.
func checksumOf(b []byte, initial uint16) uint16 {
	return ^checksum.Checksum(b, initial)
}

// pseudoHeader sums the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 3.1, RFC 8200 8.1).
func pseudoHeader(src, dst netip.Addr, proto uint8, length int) uint16 {
	var b [40]byte
	n := 0
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		n = copy(b[:], s[:])
		n += copy(b[n:], d[:])
	} else {
		s, d := src.As16(), dst.As16()
		n = copy(b[:], s[:])
		n += copy(b[n:], d[:])
	}
	binary.BigEndian.PutUint32(b[n:], uint32(length))
	b[n+7] = proto
	return checksum.Checksum(b[:n+8], 0)
}

// TransportChecksumOK reports whether the checksum of a TCP, UDP or ICMPv6 segment between src and
// dst is right. A UDP checksum of zero over IPv4 means none was made and is right.
func TransportChecksumOK(src, dst netip.Addr, proto uint8, segment []byte) bool {
	if proto == ProtoUDP && src.Is4() && len(segment) >= UDPHeaderLen && segment[6] == 0 && segment[7] == 0 {
		return true
	}
	return checksumOf(segment, pseudoHeader(src, dst, proto, len(segment))) == 0
}
