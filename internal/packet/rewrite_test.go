package packet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// made builds whole packets from scratch: what rewriting must give as well.
type made struct {
	proto uint8
	// between are IPv4 options, or IPv6 extension headers of which each names the next; first is the number
	// of the first of them.
	between []byte
	first   uint8
	segment []byte // the upper layer, with a checksum of zero
	noSum   bool   // leave the checksum out
}

// bytes returns the packet from src to dst, every checksum computed over the whole.
func (m made) bytes(src, dst netip.Addr) []byte {
	first := m.proto
	if len(m.between) > 0 && !src.Is4() {
		first = m.first
	}
	b := appendIP(nil, src, dst, first, len(m.between)+len(m.segment))
	b = append(append(b, m.between...), m.segment...)
	if src.Is4() {
		b[0] += byte(len(m.between) / 4)
		finish4(b)
	}
	segment := b[len(b)-len(m.segment):]
	initial, at := pseudoHeader(src, dst, m.proto, len(segment)), -1
	switch m.proto {
	case ProtoTCP:
		at = 16
	case ProtoUDP, ProtoUDPLite, ProtoDCCP:
		at = 6
	case ProtoICMPv6:
		at = 2
	case ProtoICMP:
		initial, at = 0, 2
	}
	if at >= 0 && !m.noSum {
		sum := checksumOf(segment, initial)
		if sum == 0 && (m.proto == ProtoUDP || m.proto == ProtoUDPLite) {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(segment[at:], sum)
	}
	return b
}

// extensions6 are hop-by-hop options, a routing header that is done with and destination options, in front of proto.
func extensions6(proto uint8) []byte {
	return []byte{ProtoRouting, 0, 1, 4, 0, 0, 0, 0, ProtoDestination, 0, 4, 0, 0, 0, 0, 0, proto, 1, 1, 12, 31: 0}
}

// addrs are the addresses of a test: a packet from a to b becomes one from a to c, or from c to b.
type addrs struct{ a, b, c netip.Addr }

// randomAddrs returns addresses that make extreme checksums likely.
func randomAddrs(rng *rand.Rand, is4 bool) addrs {
	one := func() netip.Addr {
		var b [16]byte
		for i := range b {
			b[i] = []byte{0, 0xff, byte(rng.Uint32())}[rng.IntN(3)]
		}
		if is4 {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16(b)
	}
	return addrs{one(), one(), one()}
}

// randomMade returns a packet of a protocol that the family has; its bytes are often all zeros or ones.
func randomMade(rng *rand.Rand, is4 bool) made {
	m := made{proto: []uint8{ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoDCCP, ProtoICMPv6, 132, 47}[rng.IntN(7)]}
	if is4 && m.proto == ProtoICMPv6 {
		m.proto = ProtoICMP
	}
	m.segment = make([]byte, 20+rng.IntN(60))
	fill := []byte{0, 0xff, byte(rng.Uint32())}[rng.IntN(3)]
	for i := range m.segment {
		m.segment[i] = fill
		if rng.IntN(3) == 0 {
			m.segment[i] = byte(rng.Uint32())
		}
	}
	at := pseudoHeaderSumAt(m.proto, is4)
	if m.proto == ProtoICMPv6 || m.proto == ProtoICMP {
		m.segment[0], m.segment[1], at = 0x80+m.segment[0]%2, 0, 2 // no error
	}
	if at >= 0 {
		m.segment[at], m.segment[at+1] = 0, 0
	}
	m.noSum = m.proto == ProtoUDP && rng.IntN(4) == 0
	if rng.IntN(2) == 0 {
		m.between, m.first = extensions6(m.proto), ProtoHopByHop
		if is4 {
			m.between = []byte{1, 1, 1, 7, 8, 8, 0, 0}
		}
	}
	return m
}

func testRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// mustParse parses a packet made here.
func mustParse(t *testing.T, b []byte) Header {
	t.Helper()
	h, err := Parse(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return h
}

// A rewritten packet is the one that would have been built for the new address, and rewritten back it is the old one.
func TestRewriteIsBuildingAnew(t *testing.T) {
	rng := testRand(t)
	for i := range 20000 {
		is4 := i%2 == 0
		m, x := randomMade(rng, is4), randomAddrs(rng, is4)
		old := m.bytes(x.a, x.b)
		got := append(bytes.Clone(old), 0xee, 0xee) // a buffer may be longer than its packet
		h := mustParse(t, got)
		RewriteDst(got, &h, x.c)
		want := append(m.bytes(x.a, x.c), 0xee, 0xee)
		if !bytes.Equal(got, want) || h != mustParse(t, want) {
			t.Fatalf("%+v, destination %v:\n got %x\nwant %x", m, x, got, want)
		}
		RewriteSrc(got, &h, x.b)
		want = append(m.bytes(x.b, x.c), 0xee, 0xee)
		if !bytes.Equal(got, want) || h != mustParse(t, want) {
			t.Fatalf("%+v, source %v:\n got %x\nwant %x", m, x, got, want)
		}
		RewriteSrc(got, &h, x.a)
		RewriteDst(got, &h, x.b)
		if !bytes.Equal(got[:len(old)], old) {
			t.Fatalf("%+v, there and back %v:\n got %x\nwant %x", m, x, got, old)
		}
	}
}

// A sum that comes out as zero is written as 0xffff where zero would mean that there is none, and only there.
func TestRewriteToZero(t *testing.T) {
	c := netip.MustParseAddr("240.96.0.1")
	for _, proto := range []uint8{ProtoUDP, ProtoUDPLite, ProtoTCP, ProtoDCCP} {
		m := made{proto: proto, segment: make([]byte, 24)}
		at := pseudoHeaderSumAt(proto, true)
		copy(m.segment[22:], m.bytes(a4, c)[IPv4HeaderLen+at:][:2]) // what is added to the sum makes it all ones
		b := m.bytes(a4, b4)
		h := mustParse(t, b)
		RewriteDst(b, &h, c)
		want := uint16(0)
		if proto == ProtoUDP || proto == ProtoUDPLite {
			want = 0xffff
		}
		if got := binary.BigEndian.Uint16(b[IPv4HeaderLen+at:]); got != want || !bytes.Equal(b, m.bytes(a4, c)) {
			t.Errorf("protocol %d: %#04x, want %#04x", proto, got, want)
		}
	}
}

// The parts of a rewritten datagram are the rewritten parts.
func TestRewriteFragments(t *testing.T) {
	for _, x := range []addrs{{a4, b4, netip.MustParseAddr("240.96.0.1")}, {a6, b6, netip.MustParseAddr("fd77::1")}} {
		payload := bytes.Repeat([]byte("fragments"), 500)
		old := AppendUDP(nil, netip.AddrPortFrom(x.a, 1), netip.AddrPortFrom(x.b, 2), payload)
		anew := AppendUDP(nil, netip.AddrPortFrom(x.a, 1), netip.AddrPortFrom(x.c, 2), payload)
		var got, want [][]byte
		Fragment(old, 1280, 7, nil, func(b []byte) { got = append(got, bytes.Clone(b)) })
		Fragment(anew, 1280, 7, nil, func(b []byte) { want = append(want, bytes.Clone(b)) })
		for i := range got {
			h := mustParse(t, got[i])
			RewriteDst(got[i], &h, x.c)
			if !h.IsFragment() || !bytes.Equal(got[i], want[i]) {
				t.Errorf("part %d of %d:\n got %x\nwant %x", i, len(got), got[i], want[i])
			}
		}
	}
}

// What was wrong stays wrong by as much, and a segment that ends before its checksum is left alone.
func TestRewriteMakesNothingRight(t *testing.T) {
	c := netip.MustParseAddr("240.96.0.1")
	b := AppendUDP(nil, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), []byte("payload"))
	b[len(b)-1] ^= 0x40
	h := mustParse(t, b)
	RewriteDst(b, &h, c)
	if TransportChecksumOK(h.Src, h.Dst, ProtoUDP, b[h.PayloadOffset:]) {
		t.Error("a broken datagram has become right")
	}
	b[len(b)-1] ^= 0x40
	if !TransportChecksumOK(h.Src, h.Dst, ProtoUDP, b[h.PayloadOffset:]) {
		t.Error("the checksum is not what it was")
	}
	short := append(appendIP(nil, a4, b4, ProtoTCP, 17), make([]byte, 19)...)
	h = mustParse(t, short)
	RewriteDst(short, &h, c)
	if !bytes.Equal(short[IPv4HeaderLen:], make([]byte, 19)) || checksumOf(short[:IPv4HeaderLen], 0) != 0 {
		t.Errorf("%x", short)
	}
	strange := append(appendIP(nil, a4, b4, ProtoICMPv6, 8), make([]byte, 8)...)
	sh := mustParse(t, strange)
	RewriteDst(strange, &sh, c)
	if !bytes.Equal(strange[IPv4HeaderLen:], make([]byte, 8)) {
		t.Errorf("ICMPv6 over IPv4 has no pseudo header: %x", strange)
	}
	RewriteDst(short, &h, a6)
	if h.Dst != c || mustParse(t, short) != h {
		t.Error("an address of the other family was taken")
	}
}

// icmpError returns an ICMP error from one host to another that repeats quote, with an extension of RFC 4884
// behind it if it is to have one.
func icmpError(from, to netip.Addr, kind uint8, quote []byte, extended bool) []byte {
	m := made{proto: ProtoICMPv6, segment: append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, quote...)}
	at, unit := 4, 8
	if from.Is4() {
		m.proto, at, unit = ProtoICMP, 5, 4
	}
	if extended {
		m.segment[at] = byte(len(quote) / unit)
		m.segment = append(m.segment, 0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3)
	}
	return m.bytes(from, to)
}

// An error about a packet, its quote rewritten, is the error about the rewritten packet, wherever it is cut.
func TestRewriteQuote(t *testing.T) {
	rng := testRand(t)
	kinds := map[bool][]uint8{true: {3, 4, 5, 11, 12}, false: {1, 2, 3, 4}}
	for i := range 20000 {
		is4 := i%2 == 0
		m, x := randomMade(rng, is4), randomAddrs(rng, is4)
		kind := kinds[is4][rng.IntN(len(kinds[is4]))]
		old, anewDst, anewSrc := m.bytes(x.a, x.b), m.bytes(x.a, x.c), m.bytes(x.c, x.b)
		cut, extended := IPv4HeaderLen+len(m.between)+rng.IntN(len(m.segment)), false
		if !is4 {
			cut = IPv6HeaderLen + rng.IntN(len(old)-IPv6HeaderLen)
		}
		if rng.IntN(3) == 0 && (kind == 11 && is4 || kind == 3) { // padded to where the extension may follow
			pad := make([]byte, minExtended)
			old, anewDst, anewSrc = append(old, pad...), append(anewDst, pad...), append(anewSrc, pad...)
			cut, extended = minExtended, true
		}
		old = old[:cut]
		anewDst, anewSrc = summedWithin(m, old, anewDst[:cut]), summedWithin(m, old, anewSrc[:cut])
		for _, row := range []struct {
			name string
			move func(*Quote, []byte)
			want []byte
		}{
			{"destination", func(q *Quote, b []byte) { q.RewriteDst(b, x.c) }, anewDst},
			{"source", func(q *Quote, b []byte) { q.RewriteSrc(b, x.c) }, anewSrc},
		} {
			got := icmpError(x.b, x.a, kind, old, extended)
			h := mustParse(t, got)
			q, ok := ParseQuote(got, &h)
			if !ok || q.Src != x.a || q.Dst != x.b {
				t.Fatalf("kind %d: quote %+v of %x", kind, q, got)
			}
			row.move(&q, got)
			want := icmpError(x.b, x.a, kind, row.want, extended)
			if !bytes.Equal(got, want) {
				t.Fatalf("%s, %+v cut at %d of kind %d:\n got %x\nwant %x", row.name, m, cut, kind, got, want)
			}
			if again, ok := ParseQuote(got, &h); !ok || again != q {
				t.Fatalf("%s: %+v, parsed again %+v", row.name, q, again)
			}
		}
	}
}

// summedWithin returns anew, as long as old, with the half of the upper-layer checksum taken from old if the other
// half is cut off: it cannot be brought up to date.
func summedWithin(m made, old, anew []byte) []byte {
	is4, start := old[0]>>4 == 4, IPv6HeaderLen+len(m.between)
	if is4 {
		start = IPv4HeaderLen + len(m.between)
	}
	if at := pseudoHeaderSumAt(m.proto, is4); at >= 0 && len(old) == start+at+1 {
		anew[start+at] = old[start+at]
	}
	return anew
}

func TestParseQuoteRefuses(t *testing.T) {
	udp4 := AppendUDP(nil, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), []byte("payload"))
	udp6 := AppendUDP(nil, netip.AddrPortFrom(a6, 1), netip.AddrPortFrom(b6, 2), []byte("payload"))
	long := bytes.Clone(udp4)
	long[0] = 0x4f // a header of 60 bytes
	later := icmpError(b4, a4, 3, udp4, false)
	later[7] = 1 // eight bytes of the error lie before it
	for name, pkt := range map[string][]byte{
		"a datagram":                   udp4,
		"an echo request":              icmpError(b4, a4, icmp4Echo, udp4, false),
		"an ICMPv6 echo request":       icmpError(b6, a6, icmp6Echo, udp6, false),
		"no room for a quote":          icmpError(b4, a4, 3, nil, false),
		"half an IPv4 header":          icmpError(b4, a4, 3, udp4[:19], false),
		"IPv4 options cut off":         icmpError(b4, a4, 3, long[:35], false),
		"half an IPv6 header":          icmpError(b6, a6, 1, udp6[:39], false),
		"IPv6 in ICMP":                 icmpError(b4, a4, 3, udp6, false),
		"IPv4 in ICMPv6":               icmpError(b6, a6, 1, udp4, false),
		"half an ICMP header":          made{proto: ProtoICMP, segment: []byte{3, 1, 0, 0}}.bytes(b4, a4),
		"a later fragment of an error": later,
	} {
		h := mustParse(t, pkt)
		if q, ok := ParseQuote(pkt, &h); ok {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

// A quote shorter than what RFC 4884 allows to be extended is read to its end, whatever its length field says.
func TestQuoteLengthBelowTheLeast(t *testing.T) {
	pkt := icmpError(b4, a4, 3, AppendUDP(nil, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), []byte("payload")), false)
	h := mustParse(t, pkt)
	pkt[h.PayloadOffset+5] = 2
	if q, ok := ParseQuote(pkt, &h); !ok || q.Len != 35 {
		t.Errorf("%+v, %v", q, ok)
	}
}

// FuzzRewrite: any packet that can be parsed keeps its length and everything but the address and its
// checksums; checksums that were right are right, and back it is what it was.
func FuzzRewrite(f *testing.F) {
	udp4 := AppendUDP(nil, netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), []byte("payload"))
	udp6 := AppendUDP(nil, netip.AddrPortFrom(a6, 1), netip.AddrPortFrom(b6, 2), []byte("payload"))
	for _, seed := range [][]byte{udp4, udp6, icmpError(b4, a4, 3, udp4, false), icmpError(b6, a6, 1, udp6, false),
		icmpError(b4, a4, 11, append(udp4, make([]byte, minExtended)...)[:minExtended], true),
		made{proto: ProtoTCP, between: extensions6(ProtoTCP), segment: make([]byte, 20)}.bytes(a6, b6),
		part(1, 0, 64, true), part(1, 64, 8, false), part6(1, 0, 64, true), part6(1, 64, 8, false)} {
		f.Add(seed, []byte{246, 0, 0, 1, 15: 9})
	}
	f.Fuzz(func(t *testing.T, b, addr []byte) {
		h, err := Parse(b)
		if err != nil || len(addr) < 16 {
			return
		}
		to := netip.AddrFrom16([16]byte(addr))
		if h.Is4() {
			to = netip.AddrFrom4([4]byte(addr))
		}
		got, was := bytes.Clone(b), h
		right := !h.IsFragment() && upperLayerOK(h, got)
		RewriteDst(got, &h, to)
		want := was
		want.Dst = to
		if again, err := Parse(got); err != nil || h != want || again != want {
			t.Fatalf("%+v, parsed again %+v (%v), want %+v", h, again, err, want)
		}
		if right && !upperLayerOK(h, got) {
			t.Fatalf("the checksum of %x is no longer right in %x", b, got)
		}
		q, quoted := ParseQuote(got, &h)
		if quoted {
			src := q.Src
			q.RewriteSrc(got, to)
			if again, ok := ParseQuote(got, &h); !ok || again != q || q.Src != to {
				t.Fatalf("quote %+v, parsed again %+v", q, again)
			}
			if h.Is4() && right && !upperLayerOK(h, got) {
				t.Fatalf("the ICMP checksum of %x is no longer right in %x", b, got)
			}
			q.RewriteSrc(got, src)
		}
		RewriteDst(got, &h, was.Dst)
		if want := onesAsZero(b, was, q, quoted); !bytes.Equal(got, want) {
			t.Fatalf("there and back\n got %x\nwant %x", got, want)
		}
	})
}

// upperLayerOK reports whether the upper-layer checksum is one, and right. Zero is none in UDP, also where the
// sum would come to zero, since that is sent as 0xffff (RFC 768, RFC 6935).
func upperLayerOK(h Header, b []byte) bool {
	segment := b[h.PayloadOffset:h.Len]
	if h.Is4() && h.Proto == ProtoICMP {
		return checksumOf(segment, 0) == 0
	}
	at := pseudoHeaderSumAt(h.Proto, h.Is4())
	if at >= 0 && len(segment) >= at+2 && (h.Proto == ProtoUDP || h.Proto == ProtoUDPLite) && segment[at] == 0 && segment[at+1] == 0 {
		return false
	}
	return at >= 0 && len(segment) >= at+2 && TransportChecksumOK(h.Src, h.Dst, h.Proto, segment)
}

// onesAsZero returns b as it comes back: a checksum of 0xffff as 0, but for UDP.
func onesAsZero(b []byte, h Header, q Quote, quoted bool) []byte {
	b = bytes.Clone(b)
	zero := func(at, end int) {
		if at+2 <= end && b[at] == 0xff && b[at+1] == 0xff {
			b[at], b[at+1] = 0, 0
		}
	}
	sums := func(h Header, start int) {
		if h.Is4() {
			zero(start+10, len(b))
		}
		at := pseudoHeaderSumAt(h.Proto, h.Is4())
		if at >= 0 && h.FragmentOffset == 0 && h.Proto != ProtoUDP && h.Proto != ProtoUDPLite {
			zero(start+h.PayloadOffset+at, start+h.Len)
		}
	}
	sums(h, 0)
	if quoted {
		sums(q.Header, q.at)
		zero(q.sumAt, len(b))
	}
	return b
}

func TestRewriteAllocatesNothing(t *testing.T) {
	for _, x := range []addrs{{a4, b4, netip.MustParseAddr("240.96.0.1")}, {a6, b6, netip.MustParseAddr("fd77::1")}} {
		quote := AppendUDP(nil, netip.AddrPortFrom(x.a, 1), netip.AddrPortFrom(x.b, 2), []byte("payload"))
		kind := uint8(icmp6Unreachable)
		if x.a.Is4() {
			kind = icmp4Unreachable
		}
		pkt := icmpError(x.b, x.a, kind, quote, false)
		n := testing.AllocsPerRun(100, func() {
			h, _ := Parse(pkt)
			q, _ := ParseQuote(pkt, &h)
			q.RewriteDst(pkt, x.c)
			RewriteSrc(pkt, &h, x.c)
		})
		if n != 0 {
			t.Errorf("%v: %v allocations", x.a, n)
		}
	}
}

// BenchmarkRewrite parses a packet and rewrites its destination.
func BenchmarkRewrite(b *testing.B) {
	c4, c6 := netip.MustParseAddr("240.96.0.1"), netip.MustParseAddr("fd77::1")
	for _, x := range []addrs{{a4, b4, c4}, {a6, b6, c6}} {
		udp := AppendUDP(nil, netip.AddrPortFrom(x.a, 1), netip.AddrPortFrom(x.b, 2), make([]byte, 1372))
		h, err := Parse(udp)
		if err != nil {
			b.Fatal(err)
		}
		refused := AppendUnreachable(nil, udp, h, PortUnreachable, x.b)
		name := "ipv6"
		if x.a.Is4() {
			name = "ipv4"
		}
		b.Run(fmt.Sprintf("%s/datagram", name), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h, _ := Parse(udp)
				RewriteDst(udp, &h, x.c)
			}
		})
		b.Run(fmt.Sprintf("%s/error", name), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h, _ := Parse(refused)
				q, _ := ParseQuote(refused, &h)
				q.RewriteDst(refused, x.c)
				RewriteSrc(refused, &h, x.c)
			}
		})
	}
}
