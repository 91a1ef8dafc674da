package packet

import "encoding/binary"

// Fragment hands pkt to emit, cut into parts of at most mtu bytes where it is longer. The parts share
// one buffer of which scratch is the start (its capacity should be mtu); emit must not keep them.
// id tells the datagrams of one pair of addresses apart; IPv4 uses its low 16 bits.
//
// pkt must be a packet made by this package: no IPv4 options, no IPv6 extension headers.
// mtu must be at least 1280 (RFC 8200).
func Fragment(pkt []byte, mtu int, id uint32, scratch []byte, emit func([]byte)) {
	switch {
	case len(pkt) <= mtu:
		emit(pkt)
	case pkt[0]>>4 == 4:
		fragment4(pkt, mtu, id, scratch, emit)
	default:
		fragment6(pkt, mtu, id, scratch, emit)
	}
}

func fragment4(pkt []byte, mtu int, id uint32, scratch []byte, emit func([]byte)) {
	payload := pkt[IPv4HeaderLen:]
	step := (mtu - IPv4HeaderLen) &^ 7
	for at := 0; at < len(payload); at += step {
		part := payload[at:min(at+step, len(payload))]
		b := append(append(scratch[:0], pkt[:IPv4HeaderLen]...), part...)
		field := uint16(at / 8)
		if at+step < len(payload) {
			field |= 0x2000
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], uint16(id))
		binary.BigEndian.PutUint16(b[6:], field)
		finish4(b)
		emit(b)
	}
}

func fragment6(pkt []byte, mtu int, id uint32, scratch []byte, emit func([]byte)) {
	payload := pkt[IPv6HeaderLen:]
	step := (mtu - IPv6HeaderLen - fragmentHeaderLen) &^ 7
	for at := 0; at < len(payload); at += step {
		part := payload[at:min(at+step, len(payload))]
		field := uint16(at)
		if at+step < len(payload) {
			field |= 1
		}
		b := append(scratch[:0], pkt[:IPv6HeaderLen]...)
		b = append(b, pkt[6], 0)
		b = binary.BigEndian.AppendUint16(b, field)
		b = binary.BigEndian.AppendUint32(b, id)
		b = append(b, part...)
		b[6] = ProtoFragment
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-IPv6HeaderLen))
		emit(b)
	}
}
