package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// IP protocol numbers (IANA) that this package knows.
const (
	ProtoHopByHop    = 0
	ProtoICMP        = 1
	ProtoTCP         = 6
	ProtoUDP         = 17
	ProtoDCCP        = 33
	ProtoRouting     = 43
	ProtoFragment    = 44
	ProtoICMPv6      = 58
	ProtoDestination = 60
	ProtoUDPLite     = 136
)

// Lengths of headers without options, in bytes.
const (
	IPv4HeaderLen     = 20
	IPv6HeaderLen     = 40
	UDPHeaderLen      = 8
	TCPHeaderLen      = 20
	ICMPHeaderLen     = 8
	fragmentHeaderLen = 8
)

// Errors of [Parse]. They are constants of the package so that a flood of bad packets costs nothing.
var (
	ErrTooShort       = errors.New("packet is shorter than its headers say")
	ErrVersion        = errors.New("packet is neither IPv4 nor IPv6")
	ErrHeaderLength   = errors.New("IP header length is impossible")
	ErrRoutingHeader  = errors.New("IPv6 routing header asks for further hops")
	ErrTooManyHeaders = errors.New("too many IPv6 extension headers")
	ErrFragment       = errors.New("IP fragment has an impossible offset or length")
)

// Header is what [Parse] found. The zero value is no packet.
type Header struct {
	Src, Dst netip.Addr
	// Proto is the upper-layer protocol, after IPv6 extension headers.
	Proto uint8
	// TTL is the IPv4 time to live or the IPv6 hop limit.
	TTL uint8
	// Len is the length of the IP packet in bytes; the buffer it was parsed from may be longer.
	Len int
	// PayloadOffset is where the upper-layer header starts; in a fragment, where its part starts.
	PayloadOffset int
	// FragmentOffset is in bytes, FragmentID is 16 bits wide in IPv4, 32 in IPv6.
	FragmentOffset int
	FragmentID     uint32
	MoreFragments  bool

	// unfragmentable is the length of the headers in front of the IPv6 fragment header, and
	// nextHeaderAt the place of the byte that announces that header.
	unfragmentable, nextHeaderAt int
}

// IsFragment reports whether the packet is one of several parts of a datagram.
func (h *Header) IsFragment() bool { return h.MoreFragments || h.FragmentOffset > 0 }

// Is4 reports whether the packet is IPv4.
func (h *Header) Is4() bool { return h.Src.Is4() }

// Parse reads the IP header of b, and the extension headers of IPv6. It checks every length against b,
// not the IPv4 header checksum: the packets come from authenticated tunnels.
// Routing headers with segments left are refused (RFC 5095).
func Parse(b []byte) (Header, error) {
	if len(b) == 0 {
		return Header{}, ErrTooShort
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return Header{}, ErrVersion
}

func parse4(b []byte) (Header, error) {
	h, err := header4(b)
	switch {
	case err != nil:
		return Header{}, err
	case h.Len > len(b):
		return Header{}, ErrTooShort
	}
	return h, h.checkFragment()
}

// header4 reads an IPv4 header. What follows it may be shorter than the header says.
func header4(b []byte) (Header, error) {
	if len(b) < IPv4HeaderLen {
		return Header{}, ErrTooShort
	}
	headerLen := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if headerLen < IPv4HeaderLen || headerLen > total {
		return Header{}, ErrHeaderLength
	}
	fragment := binary.BigEndian.Uint16(b[6:])
	return Header{
		Src:            netip.AddrFrom4([4]byte(b[12:16])),
		Dst:            netip.AddrFrom4([4]byte(b[16:20])),
		Proto:          b[9],
		TTL:            b[8],
		Len:            total,
		PayloadOffset:  headerLen,
		FragmentOffset: int(fragment&0x1fff) * 8,
		FragmentID:     uint32(binary.BigEndian.Uint16(b[4:])),
		MoreFragments:  fragment&0x2000 != 0,
	}, nil
}

// maxExtensionHeaders is far more than honest packets carry.
const maxExtensionHeaders = 8

func parse6(b []byte) (Header, error) {
	h, err := header6(b)
	switch {
	case err != nil:
		return Header{}, err
	case h.Len > len(b):
		return Header{}, ErrTooShort
	}
	if err := h.extensions(b[:h.Len]); err != nil {
		return Header{}, err
	}
	return h, h.checkFragment()
}

// header6 reads an IPv6 header without its extensions. What follows it may be shorter than the header says.
func header6(b []byte) (Header, error) {
	if len(b) < IPv6HeaderLen {
		return Header{}, ErrTooShort
	}
	return Header{
		Src:           netip.AddrFrom16([16]byte(b[8:24])),
		Dst:           netip.AddrFrom16([16]byte(b[24:40])),
		TTL:           b[7],
		Len:           IPv6HeaderLen + int(binary.BigEndian.Uint16(b[4:])),
		PayloadOffset: IPv6HeaderLen,
		Proto:         b[6],
		nextHeaderAt:  6,
	}, nil
}

// extensions steps over the IPv6 extension headers; after an error, as far as it came.
func (h *Header) extensions(b []byte) error {
	for range maxExtensionHeaders {
		more, err := h.extension(b)
		if err != nil || !more {
			return err
		}
	}
	return ErrTooManyHeaders
}

// extension steps over one IPv6 extension header and reports whether there was one.
func (h *Header) extension(b []byte) (bool, error) {
	rest := b[h.PayloadOffset:]
	size := 0
	switch h.Proto {
	case ProtoHopByHop, ProtoDestination, ProtoRouting:
		if len(rest) < 8 {
			return false, ErrTooShort
		}
		if h.Proto == ProtoRouting && rest[3] != 0 {
			return false, ErrRoutingHeader
		}
		size = (int(rest[1]) + 1) * 8
	case ProtoFragment:
		if h.unfragmentable > 0 {
			return false, ErrFragment
		}
		if len(rest) < fragmentHeaderLen {
			return false, ErrTooShort
		}
		size = fragmentHeaderLen
		field := binary.BigEndian.Uint16(rest[2:])
		h.FragmentOffset = int(field &^ 7)
		h.MoreFragments = field&1 != 0
		h.FragmentID = binary.BigEndian.Uint32(rest[4:])
		h.unfragmentable = h.PayloadOffset
	default:
		return false, nil
	}
	if size > len(rest) {
		return false, ErrTooShort
	}
	if h.unfragmentable == 0 {
		h.nextHeaderAt = h.PayloadOffset
	}
	h.Proto = rest[0]
	h.PayloadOffset += size
	// What follows in a later fragment is data, not a header.
	return h.FragmentOffset == 0, nil
}

// checkFragment refuses parts that cannot be of a datagram of at most 65,535 bytes.
func (h *Header) checkFragment() error {
	if !h.IsFragment() {
		return nil
	}
	size := h.Len - h.PayloadOffset
	if h.unfragmentable > 0 {
		size = h.Len - h.unfragmentable - fragmentHeaderLen
	}
	if size <= 0 || h.FragmentOffset+size > maxPayload || h.MoreFragments && size%8 != 0 {
		return ErrFragment
	}
	return nil
}

// maxPayload is the largest payload, in bytes, of a datagram without jumbo options.
const maxPayload = 65535

// TCP flags (RFC 9293, section 3.1).
const (
	FlagFIN = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
)

// TCPHeader is the part of a TCP header that is needed outside the stack.
type TCPHeader struct {
	SrcPort, DstPort uint16
	Seq, Ack         uint32
	Flags            uint8
	// DataLen is the length of the data after the header, in bytes.
	DataLen int
}

// ParseTCP reads the TCP header at the start of segment.
func ParseTCP(segment []byte) (TCPHeader, bool) {
	if len(segment) < TCPHeaderLen {
		return TCPHeader{}, false
	}
	headerLen := int(segment[12]>>4) * 4
	if headerLen < TCPHeaderLen || headerLen > len(segment) {
		return TCPHeader{}, false
	}
	return TCPHeader{
		SrcPort: binary.BigEndian.Uint16(segment),
		DstPort: binary.BigEndian.Uint16(segment[2:]),
		Seq:     binary.BigEndian.Uint32(segment[4:]),
		Ack:     binary.BigEndian.Uint32(segment[8:]),
		Flags:   segment[13],
		DataLen: len(segment) - headerLen,
	}, true
}

// ParseUDP reads the UDP header at the start of datagram and returns the ports and the payload.
// Bytes after the length that the header gives are left out.
func ParseUDP(datagram []byte) (srcPort, dstPort uint16, payload []byte, ok bool) {
	if len(datagram) < UDPHeaderLen {
		return 0, 0, nil, false
	}
	size := int(binary.BigEndian.Uint16(datagram[4:]))
	if size < UDPHeaderLen || size > len(datagram) {
		return 0, 0, nil, false
	}
	return binary.BigEndian.Uint16(datagram), binary.BigEndian.Uint16(datagram[2:]), datagram[UDPHeaderLen:size], true
}
