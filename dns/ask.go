package dns

import (
	"encoding/binary"
	"fmt"
	"slices"

	wire "github.com/miekg/dns"
)

// upstreamQuery returns q as the host would have sent it to its own resolvers, with an id of zero. The name's spelling,
// the flags and what EDNS says stay; options that are between the client and this resolver do not.
func upstreamQuery(q *query) []byte {
	if q.special {
		msg := slices.Clone(q.msg)
		msg[0], msg[1] = 0, 0
		return msg
	}
	msg := appendQueryHeader(make([]byte, 0, len(q.msg)), q.flags, q.edns)
	msg = append(msg, q.question()...)
	if q.edns {
		msg = appendQueryOPT(msg, q.udpBytes, q.do)
	}
	return msg
}

// clusterQuery returns the question of q asked about the name full.
func clusterQuery(q *query, full string) ([]byte, error) {
	msg := appendQueryHeader(make([]byte, 0, 320), q.flags|flagRD, true)
	name := msg[len(msg):cap(msg)]
	n, err := wire.PackDomainName(full, name, 0, nil, false)
	if err != nil {
		return nil, fmt.Errorf("pack name: %w", err)
	}
	msg = msg[:len(msg)+n]
	msg = binary.BigEndian.AppendUint16(msg, q.qtype)
	msg = binary.BigEndian.AppendUint16(msg, q.qclass)
	return appendQueryOPT(msg, forwarderUDPBytes, q.do), nil
}

func appendQueryHeader(dst []byte, flags uint16, edns bool) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, flags&(flagRD|flagAD|flagCD))
	dst = append(dst, 0, 1, 0, 0, 0, 0, 0, 0)
	if edns {
		setCount(dst, sectionAdditional, 1)
	}
	return dst
}

func appendQueryOPT(dst []byte, size uint16, do bool) []byte {
	start := len(dst)
	dst = appendOPT(dst, 0, 0, "")
	binary.BigEndian.PutUint16(dst[start+3:], size)
	if do {
		dst[start+7] |= 0x80
	}
	return dst
}
