package dns

import (
	"encoding/binary"
	"slices"

	wire "github.com/miekg/dns"
)

// maxQueryBytes bounds a question as received. Longer than any sensible one: a name, a few EDNS options, a signature.
const maxQueryBytes = 4096

// query is one question as a client sent it.
type query struct {
	msg      []byte // as received, up to the end of the message
	end      int    // offset after the question section
	qtype    uint16
	qclass   uint16
	flags    uint16
	edns     bool
	do       bool
	udpBytes uint16 // what the client takes by UDP, at least 512
	special  bool   // carries options or a signature that make its answer its own: passed on whole, never shared
}

// verdict is what parsing found; anything but verdictAsk is answered, or dropped, at once.
type verdict int

const (
	verdictAsk verdict = iota
	verdictDrop
	verdictFormErr
	verdictNotImplemented
	verdictRefused
	verdictBadVersion
)

// parseQuery reads a question without copying it. It accepts what resolvers accept: one question, no answers, at most
// one OPT record (RFC 6891 section 6.1.1).
func parseQuery(msg []byte) (query, verdict) {
	q := query{msg: msg, udpBytes: wire.MinMsgSize}
	if len(msg) < headerBytes {
		return q, verdictDrop
	}
	q.flags = binary.BigEndian.Uint16(msg[2:])
	if q.flags&flagQR != 0 {
		return q, verdictDrop
	}
	if q.flags&maskOpcode != 0 {
		return q, verdictNotImplemented
	}
	end, ok := questionEnd(msg)
	if !ok {
		return q, verdictFormErr
	}
	q.end = end
	q.qtype = binary.BigEndian.Uint16(msg[end-4:])
	q.qclass = binary.BigEndian.Uint16(msg[end-2:])
	if count(msg, sectionAnswer) != 0 {
		return q, verdictFormErr
	}
	if v := q.readRecords(); v != verdictAsk {
		return q, v
	}
	if q.qtype == wire.TypeAXFR || q.qtype == wire.TypeIXFR {
		return q, verdictRefused
	}
	return q, verdictAsk
}

// questionEnd returns the offset after the only question of msg, whose name must not be compressed.
func questionEnd(msg []byte) (int, bool) {
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		return 0, false
	}
	end, ok := skipName(msg, headerBytes)
	// Only a compressed name ends in something else than the root label: there is nothing to point back to.
	if !ok || msg[end-1] != 0 || end+4 > len(msg) {
		return 0, false
	}
	return end + 4, true
}

// readRecords reads what follows the question: usually an OPT record or nothing.
func (q *query) readRecords() verdict {
	w := walk(q.msg, q.end)
	for r, ok := w.next(); ok; r, ok = w.next() {
		if r.rtype != wire.TypeOPT || r.section != sectionAdditional {
			q.special = true
			continue
		}
		if q.edns || q.msg[r.start] != 0 {
			return verdictFormErr
		}
		if v := q.readOPT(r); v != verdictAsk {
			return v
		}
	}
	if w.err != nil || w.off != len(q.msg) {
		return verdictFormErr
	}
	return verdictAsk
}

// readOPT reads the OPT record r: class is the size, the TTL's second octet the version, its third starts with DO.
func (q *query) readOPT(r record) verdict {
	q.edns = true
	q.udpBytes = max(binary.BigEndian.Uint16(q.msg[r.rdata-8:]), wire.MinMsgSize)
	ttl := q.msg[r.ttlOffset():]
	q.do = ttl[2]&0x80 != 0
	for opt := q.msg[r.rdata:r.end]; len(opt) > 0; {
		if len(opt) < 4 {
			return verdictFormErr
		}
		size := 4 + int(binary.BigEndian.Uint16(opt[2:]))
		if size > len(opt) {
			return verdictFormErr
		}
		if !betweenNeighbours(binary.BigEndian.Uint16(opt)) {
			q.special = true
		}
		opt = opt[size:]
	}
	if ttl[1] != 0 {
		return verdictBadVersion
	}
	return verdictAsk
}

// betweenNeighbours reports whether an EDNS option concerns only a client and the server it talks to, so that a
// forwarder leaves it out: cookies (RFC 7873), keepalive (RFC 7828), padding (RFC 7830).
func betweenNeighbours(option uint16) bool {
	return option == wire.EDNS0COOKIE || option == wire.EDNS0TCPKEEPALIVE || option == wire.EDNS0PADDING
}

// name returns the question's name in presentation form, absolute.
func (q *query) name() (string, error) {
	name, _, err := wire.UnpackDomainName(q.msg, headerBytes)
	return name, err
}

// question returns the question section as the client wrote it.
func (q *query) question() []byte { return q.msg[headerBytes:q.end] }

// clone returns a copy of q that does not share the receive buffer.
func (q *query) clone() query {
	c := *q
	c.msg = slices.Clone(q.msg)
	return c
}

// appendKey appends what an answer depends on: the question in lower case and the flags that change the answer.
func (q *query) appendKey(dst []byte) []byte {
	var bits byte
	if q.edns {
		bits |= 1
	}
	if q.do {
		bits |= 2
	}
	dst = append(dst, bits, byte(q.flags>>8)&(flagRD>>8), byte(q.flags)&(flagAD|flagCD))
	start := len(dst)
	dst = append(dst, q.question()...)
	lower(dst[start : len(dst)-4])
	return dst
}

// lower turns ASCII capitals into small letters in place. On a name in wire form it leaves the lengths alone: they are
// below 64, the capitals above.
func lower(name []byte) {
	for i, c := range name {
		name[i] = lowerByte(c)
	}
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
