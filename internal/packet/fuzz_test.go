package packet

import (
	"net/netip"
	"testing"
	"time"
)

// FuzzParse: what Parse takes lies within the packet, whatever is read after it stays within it too, and
// the answers made to it can be parsed and go to its source.
func FuzzParse(f *testing.F) {
	f.Add(AppendUDP(nil, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), []byte("payload")))
	f.Add(AppendUDP(nil, netip.AddrPortFrom(a6, 1), netip.AddrPortFrom(b6, 2), []byte("payload")))
	f.Add(AppendReset(nil, Header{Src: a4, Dst: b4}, TCPHeader{Flags: FlagSYN}))
	f.Add(AppendEchoReply(nil, a6, b6, EchoMessage{Data: []byte("x")}))
	Fragment(AppendUDP(nil, netip.AddrPortFrom(a6, 1), netip.AddrPortFrom(b6, 2), make([]byte, 3000)), 1280, 5, nil,
		func(b []byte) { f.Add(append([]byte(nil), b...)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if err != nil {
			return
		}
		if h.PayloadOffset < IPv4HeaderLen || h.PayloadOffset > h.Len || h.Len > len(b) || h.Src.Is4() != h.Dst.Is4() {
			t.Fatalf("%+v of %d bytes", h, len(b))
		}
		payload := b[h.PayloadOffset:h.Len]
		ParseUDP(payload)
		ParseEchoRequest(h, payload)
		ParseEchoReply(payload, h.Is4())
		if th, ok := ParseTCP(payload); ok {
			check(t, AppendReset(nil, h, th), h)
		}
		from := a6
		if h.Is4() {
			from = a4
		}
		if e := AppendUnreachable(nil, b, h, PortUnreachable, from); len(e) > 0 {
			check(t, e, h)
		}
	})
}

func check(t *testing.T, answer []byte, to Header) {
	t.Helper()
	h, err := Parse(answer)
	if err != nil || h.Len != len(answer) || h.Dst != to.Src {
		t.Fatalf("answer %+v of %d bytes: %v", h, len(answer), err)
	}
}

// FuzzReassembler: no sequence of parts panics, exceeds the bounds, or makes a packet that is none.
func FuzzReassembler(f *testing.F) {
	f.Add([]byte{0, 0, 8, 1, 0, 1, 8, 0})
	f.Add([]byte{0, 2, 8, 0, 0, 0, 16, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		var r Reassembler
		now := time.Now()
		for ; len(script) >= 4; script = script[4:] {
			b := part(uint16(script[0]%4), int(script[1])*8, 8+int(script[2])/8*8, script[3]&1 == 1)
			if script[3]&2 > 0 {
				b = part6(uint32(script[0]%4), int(script[1])*8, 8+int(script[2])/8*8, script[3]&1 == 1)
			}
			h, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if !h.IsFragment() {
				continue
			}
			whole, ok := r.Add(b, h, now)
			if !ok {
				continue
			}
			if h, err := Parse(whole); err != nil || h.IsFragment() || h.Len != len(whole) {
				t.Fatalf("%+v of %d bytes, %v", h, len(whole), err)
			}
		}
		if len(r.pending) > maxDatagrams || r.bytes > maxPending || r.bytes < 0 {
			t.Fatalf("%d datagrams, %d bytes", len(r.pending), r.bytes)
		}
	})
}

// part6 builds one IPv6 fragment.
func part6(id uint32, offset, size int, more bool) []byte {
	field := byte(0)
	if more {
		field = 1
	}
	b := appendIP(nil, a6, b6, ProtoFragment, fragmentHeaderLen+size)
	b = append(b, ProtoUDP, 0, byte(offset>>8), byte(offset)|field, 0, 0, 0, byte(id))
	return append(b, make([]byte, size)...)
}
