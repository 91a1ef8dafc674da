package dns

import (
	"encoding/binary"
	"slices"
	"time"

	wire "github.com/miekg/dns"
)

// maxUDPReply is the longest payload of a datagram over IPv4.
const maxUDPReply = 65507

// limit returns the length, in bytes, of the longest reply the client takes.
func (q *query) limit(tcp bool) int {
	if tcp {
		return 65535
	}
	return min(int(q.udpBytes), maxUDPReply)
}

// appendRecords appends to dst, which must be empty, a as the answer to q, but for the OPT record and with the TTLs as
// they were. The question is repeated as the client spelled it (draft-vixie-dnsext-dns0x20).
func appendRecords(dst []byte, q *query, a *answer) []byte {
	flags := a.flags&^(flagRD|flagCD) | flagQR | q.flags&(flagRD|flagCD)
	dst = append(dst, q.msg[:2]...)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	dst = binary.BigEndian.AppendUint16(dst, 1)
	for _, n := range a.counts {
		dst = binary.BigEndian.AppendUint16(dst, n)
	}
	dst = append(dst, q.question()...)
	return append(dst, a.body...)
}

// appendReply appends to dst, which must be empty, the message that tells a to the client that asked q, at most limit
// bytes long.
func appendReply(dst []byte, q *query, a *answer, now time.Time, limit int) []byte {
	dst = appendRecords(dst, q, a)
	a.age(dst[q.end:], now)

	opt := a.opt
	if !q.edns {
		opt = nil
	}
	if len(dst)+len(opt) > limit {
		if q.end+len(opt) > limit {
			opt = bareOPT(opt)
		}
		dst = truncate(dst, q.end, limit-len(opt))
	}
	if opt == nil {
		return dst
	}
	setCount(dst, sectionAdditional, count(dst, sectionAdditional)+1)
	dst = append(dst, opt...)
	if a.ownOPT && q.do {
		dst[len(dst)-len(opt)+7] |= 0x80
	}
	return dst
}

// bareOPT returns a copy of an OPT record without its options.
func bareOPT(opt []byte) []byte {
	return append(slices.Clone(opt[:optBytes-2]), 0, 0)
}

// age takes the seconds since the answer was made off the TTLs in body.
func (a *answer) age(body []byte, now time.Time) {
	if a.born.IsZero() {
		return
	}
	seconds := uint32(max(0, now.Sub(a.born)/time.Second))
	if seconds == 0 {
		return
	}
	for _, off := range a.ttls {
		ttl := binary.BigEndian.Uint32(body[off:])
		binary.BigEndian.PutUint32(body[off:], ttl-min(ttl, seconds))
	}
}

// truncate cuts msg, whose question ends at end, after the last record that leaves it within limit bytes. TC is set
// unless only additional records are missing (RFC 2181 section 9). Resolvers without TCP use the records that are left.
func truncate(msg []byte, end, limit int) []byte {
	w := walk(msg, end)
	cut := record{end: end}
	var kept [4]uint16
	for r, ok := w.next(); ok; r, ok = w.next() {
		if r.end > limit {
			if r.section != sectionAdditional {
				msg[2] |= flagTC >> 8
			}
			break
		}
		cut = r
		kept[r.section]++
	}
	for s := sectionAnswer; s <= sectionAdditional; s++ {
		setCount(msg, s, kept[s])
	}
	return msg[:cut.end]
}

// appendVerdict appends the reply to a query that is not asked of anyone. It repeats the question if there is one.
func appendVerdict(dst []byte, q *query, v verdict) []byte {
	rcode := map[verdict]int{
		verdictFormErr:        wire.RcodeFormatError,
		verdictNotImplemented: wire.RcodeNotImplemented,
		verdictRefused:        wire.RcodeRefused,
		verdictBadVersion:     wire.RcodeBadVers,
	}[v]
	if q.end != 0 {
		return appendReply(dst, q, failure(rcode, 0, ""), time.Time{}, int(q.udpBytes))
	}
	dst = append(dst, q.msg[:2]...)
	dst = binary.BigEndian.AppendUint16(dst, flagQR|q.flags&(maskOpcode|flagRD)|uint16(rcode))
	return append(dst, make([]byte, 8)...)
}
