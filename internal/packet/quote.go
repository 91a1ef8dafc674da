package packet

import (
	"net/netip"
)

// ICMP types that quote a packet, beside those that are made here (RFC 792, RFC 4443).
const (
	icmp4SourceQuench     = 4
	icmp4Redirect         = 5
	icmp4ParameterProblem = 12
	icmp6TooBig           = 2
	icmp6ParameterProblem = 4
)

// Quote is the packet that an ICMP error is about, as far as the error repeats it. Its Len is no more than
// that, and its Proto an extension header where those are cut off.
type Quote struct {
	Header
	sumAt, at int // where the packet that was parsed has the ICMP checksum and the quote
}

// ParseQuote finds the quote in pkt, whose header is h. It reports whether there is one: pkt is an ICMP error
// of its family, or the first fragment of one, and repeats a whole IP header of that family.
func ParseQuote(pkt []byte, h *Header) (Quote, bool) {
	m := pkt[h.PayloadOffset:h.Len]
	if h.FragmentOffset > 0 || len(m) < ICMPHeaderLen {
		return Quote{}, false
	}
	q := Quote{sumAt: h.PayloadOffset + 2, at: h.PayloadOffset + ICMPHeaderLen}
	ok := false
	switch {
	case h.Is4() && h.Proto == ProtoICMP && quotes4(m[0]):
		q.Header, ok = quoted4(unextended(m, m[0] != icmp4SourceQuench && m[0] != icmp4Redirect, int(m[5])*4))
	case !h.Is4() && h.Proto == ProtoICMPv6 && m[0] >= icmp6Unreachable && m[0] <= icmp6ParameterProblem:
		q.Header, ok = quoted6(unextended(m, m[0] == icmp6Unreachable || m[0] == icmp6TimeExceeded, int(m[4])*8))
	}
	return q, ok
}

func quotes4(kind uint8) bool {
	switch kind {
	case icmp4Unreachable, icmp4SourceQuench, icmp4Redirect, icmp4TimeExceeded, icmp4ParameterProblem:
		return true
	}
	return false
}

// minExtended is the length, in bytes, of the shortest quote with an extension behind it (RFC 4884, section 3).
const minExtended = 128

// unextended returns the quote of the ICMP error m, without the extension that may follow it: where the type
// may have one, quoteLen is the length of the quote as the message gives it.
func unextended(m []byte, may bool, quoteLen int) []byte {
	quote := m[ICMPHeaderLen:]
	if may && quoteLen >= minExtended && quoteLen < len(quote) {
		return quote[:quoteLen]
	}
	return quote
}

func quoted4(b []byte) (Header, bool) {
	if len(b) == 0 || b[0]>>4 != 4 {
		return Header{}, false
	}
	h, err := header4(b)
	if err != nil || h.PayloadOffset > len(b) {
		return Header{}, false
	}
	h.Len = min(h.Len, len(b))
	return h, true
}

func quoted6(b []byte) (Header, bool) {
	if len(b) == 0 || b[0]>>4 != 6 {
		return Header{}, false
	}
	h, err := header6(b)
	if err != nil {
		return Header{}, false
	}
	h.Len = min(h.Len, len(b))
	_ = h.extensions(b[:h.Len]) // what cannot be read has no checksum that we know
	return h, true
}

// RewriteSrc replaces the source address of the quote in pkt as the function RewriteSrc does that of a packet,
// and brings the ICMP checksum around it up to date. q must be what [ParseQuote] found in pkt, and follows.
func (q *Quote) RewriteSrc(pkt []byte, to netip.Addr) { q.rewrite(pkt, &q.Src, to) }

// RewriteDst replaces the destination address of the quote as RewriteSrc does the source.
func (q *Quote) RewriteDst(pkt []byte, to netip.Addr) { q.rewrite(pkt, &q.Dst, to) }

func (q *Quote) rewrite(pkt []byte, addr *netip.Addr, to netip.Addr) {
	rewrite(pkt[q.at:], &q.Header, addr, to).apply(pkt[q.sumAt:])
}
