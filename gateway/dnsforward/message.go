package dnsforward

import (
	"encoding/binary"
	"errors"

	"github.com/miekg/dns"
)

// Sizes of the wire format (RFC 1035, section 4.1), in bytes.
const (
	headerSize  = 12
	maxNameSize = 255
	maxMessage  = 65535
)

// question is a query as far as forwarding needs it. The slices are parts of raw.
type question struct {
	raw   []byte // the whole message
	entry []byte // the one entry of the question section: name, type, class
}

var (
	errNotQuery = errors.New("not a DNS query")
	errOpcode   = errors.New("not an ordinary query")
	errTransfer = errors.New("a zone transfer")
)

// parseQuery checks that raw is one ordinary question. With errOpcode and errTransfer the message is
// well formed enough to be answered.
func parseQuery(raw []byte) (question, error) {
	if len(raw) < headerSize || len(raw) > maxMessage || isResponse(raw) {
		return question{}, errNotQuery
	}
	if opcode := raw[2] >> 3 & 0xf; opcode != dns.OpcodeQuery {
		return question{}, errOpcode
	}
	if binary.BigEndian.Uint16(raw[4:]) != 1 {
		return question{}, errNotQuery
	}
	size, ok := entrySize(raw[headerSize:])
	if !ok {
		return question{}, errNotQuery
	}
	q := question{raw: raw, entry: raw[headerSize : headerSize+size]}
	switch binary.BigEndian.Uint16(q.entry[size-4:]) {
	case dns.TypeAXFR, dns.TypeIXFR: // their answer is a stream of messages
		return question{}, errTransfer
	}
	return q, nil
}

// entrySize returns the length of the question entry that b begins with. The first name of a message
// has nothing to point back to, so a compression pointer in it is an error.
func entrySize(b []byte) (size int, ok bool) {
	at := 0
	for {
		if at >= len(b) || at >= maxNameSize {
			return 0, false
		}
		label := int(b[at])
		at++
		if label == 0 {
			break
		}
		if label > 63 {
			return 0, false
		}
		at += label
	}
	if at > maxNameSize || at+4 > len(b) {
		return 0, false
	}
	return at + 4, true
}

func isResponse(raw []byte) bool { return raw[2]&0x80 != 0 }

func id(raw []byte) uint16 { return binary.BigEndian.Uint16(raw) }

// rcode returns the response code in the header (RFC 1035, section 4.1.1).
func rcode(raw []byte) int { return int(raw[3] & 0xf) }

// answers reports whether raw can be the answer to q: it is a response and repeats the question. A
// failure may leave the question out.
func answers(raw []byte, q question) bool {
	if len(raw) < headerSize || !isResponse(raw) {
		return false
	}
	switch binary.BigEndian.Uint16(raw[4:]) {
	case 0:
		return rcode(raw) != dns.RcodeSuccess
	case 1:
		return len(raw) >= headerSize+len(q.entry) && equalFold(raw[headerSize:headerSize+len(q.entry)], q.entry)
	}
	return false
}

// equalFold compares wire-format names without regard to the case of ASCII letters (RFC 4343). The
// lengths in between are below 64 and the type and class after them compare as well: where folding
// would confuse two of their values, both are still the same question to the client, who checks.
func equalFold(a, b []byte) bool {
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// withID returns a copy of raw with another id.
func withID(raw []byte, id uint16) []byte {
	out := append([]byte(nil), raw...)
	binary.BigEndian.PutUint16(out, id)
	return out
}

// failure returns the answer to raw that says only that there is none, with an extended error (RFC
// 8914) for those who understand EDNS0; nil if raw is too broken to be answered.
func failure(raw []byte, code int, info uint16, text string) []byte {
	var query dns.Msg
	if err := query.Unpack(raw); err != nil || query.Response {
		return nil
	}
	reply := new(dns.Msg).SetRcode(&query, code)
	reply.RecursionAvailable = true
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(opt.UDPSize(), opt.Do())
		edns := reply.IsEdns0()
		edns.Option = append(edns.Option, &dns.EDNS0_EDE{InfoCode: info, ExtraText: text})
	}
	out, err := reply.Pack()
	if err != nil {
		return nil
	}
	return out
}
