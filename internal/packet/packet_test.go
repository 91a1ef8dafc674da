package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	a4 = netip.MustParseAddr("245.1.2.4")
	b4 = netip.MustParseAddr("10.96.0.1")
	a6 = netip.MustParseAddr("fd00:245::4")
	b6 = netip.MustParseAddr("fd00:96::1")
)

// unhex reads a packet written as in a capture.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	const v4 = "45000020 00014000 40110000 f5010204 0a600001 0fa00035 000c0000 61626364"
	const v6 = "60000000 000c1140 fd000245000000000000000000000004 fd000096000000000000000000000001 0fa00035 000c0000 61626364"
	rows := []struct {
		name, hex string
		want      Header // addresses are those of the family
		err       error
	}{
		{name: "plain v4", hex: v4, want: Header{Proto: ProtoUDP, TTL: 64, Len: 32, PayloadOffset: 20, FragmentID: 1}},
		{name: "plain v6", hex: v6, want: Header{Proto: ProtoUDP, TTL: 64, Len: 52, PayloadOffset: 40}},
		{name: "bytes after the packet", hex: v4 + "ffff", want: Header{Proto: ProtoUDP, TTL: 64, Len: 32, PayloadOffset: 20, FragmentID: 1}},
		{name: "v4 options", hex: "46000020 00014000 40110000 f5010204 0a600001 01010101 0fa00035 00080000",
			want: Header{Proto: ProtoUDP, TTL: 64, Len: 32, PayloadOffset: 24, FragmentID: 1}},
		{name: "v6 hop-by-hop and destination options", hex: "60000000 00180040 fd000245000000000000000000000004 fd000096000000000000000000000001" +
			"3c00010400000000 1100010400000000 0fa0003500080000", want: Header{Proto: ProtoUDP, TTL: 64, Len: 64, PayloadOffset: 56}},
		{name: "first v4 fragment", hex: "4500001c 00022000 40110000 f5010204 0a600001 0fa00035 000c0000",
			want: Header{Proto: ProtoUDP, TTL: 64, Len: 28, PayloadOffset: 20, FragmentID: 2, MoreFragments: true}},
		{name: "last v4 fragment", hex: "4500001c 00020001 40110000 f5010204 0a600001 0fa00035 000c0000",
			want: Header{Proto: ProtoUDP, TTL: 64, Len: 28, PayloadOffset: 20, FragmentID: 2, FragmentOffset: 8}},
		{name: "later v6 fragment keeps data as data", hex: "60000000 00102c40 fd000245000000000000000000000004 fd000096000000000000000000000001" +
			"00000009 00000007 0000000000000000", want: Header{Proto: 0, TTL: 64, Len: 56, PayloadOffset: 48, FragmentID: 7, FragmentOffset: 8, MoreFragments: true}},
		{name: "empty", hex: "", err: ErrTooShort},
		{name: "version 5", hex: "5500", err: ErrVersion},
		{name: "cut v4 header", hex: v4[:20], err: ErrTooShort},
		{name: "cut v4 packet", hex: v4[:60], err: ErrTooShort},
		{name: "v4 header shorter than 20", hex: "44" + v4[2:], err: ErrHeaderLength},
		{name: "v4 header longer than the packet", hex: "4f" + v4[2:], err: ErrHeaderLength},
		{name: "cut v6 header", hex: v6[:61], err: ErrTooShort},
		{name: "cut v6 packet", hex: v6[:101], err: ErrTooShort},
		{name: "v6 options beyond the packet", hex: "60000000 00080040 fd000245000000000000000000000004 fd000096000000000000000000000001 1101000000000000", err: ErrTooShort},
		{name: "v6 routing header with hops to go", hex: "60000000 00082b40 fd000245000000000000000000000004 fd000096000000000000000000000001 1100000100000000", err: ErrRoutingHeader},
		{name: "v4 fragment beyond 65535", hex: "4500001c 00021fff 40110000 f5010204 0a600001 0fa00035 000c0000", err: ErrFragment},
		{name: "v4 fragment of odd length with more to come", hex: "4500001b 00022000 40110000 f5010204 0a600001 0fa00035 000c00", err: ErrFragment},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := Parse(unhex(t, row.hex))
			if !errors.Is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			if err != nil {
				return
			}
			want := row.want
			want.Src, want.Dst = a6, b6
			if got.Is4() {
				want.Src, want.Dst = a4, b4
			}
			got.unfragmentable, got.nextHeaderAt = 0, 0
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestParseTCP(t *testing.T) {
	segment := unhex(t, "0fa00050 000003e8 000007d0 6012ffff 00000000 01010101 616263")
	got, ok := ParseTCP(segment)
	want := TCPHeader{SrcPort: 4000, DstPort: 80, Seq: 1000, Ack: 2000, Flags: FlagSYN | FlagACK, DataLen: 3}
	if !ok || got != want {
		t.Errorf("got %+v, %v", got, ok)
	}
	for _, bad := range []string{"", "0fa00050", "0fa00050 000003e8 000007d0 4012ffff 00000000", "0fa00050 000003e8 000007d0 f012ffff 00000000"} {
		if _, ok := ParseTCP(unhex(t, bad)); ok {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestParseUDP(t *testing.T) {
	for _, row := range []struct {
		name, hex, payload string
		ok                 bool
	}{
		{"whole", "0fa00035 000b0000 616263", "abc", true},
		{"bytes after it", "0fa00035 000b0000 616263ffff", "abc", true},
		{"empty", "0fa00035 00080000", "", true},
		{"cut", "0fa00035 000c0000 616263", "", false},
		{"length below 8", "0fa00035 00070000", "", false},
		{"short", "0fa00035", "", false},
	} {
		src, dst, payload, ok := ParseUDP(unhex(t, row.hex))
		if ok != row.ok || string(payload) != row.payload || ok && (src != 4000 || dst != 53) {
			t.Errorf("%s: %d %d %q %v", row.name, src, dst, payload, ok)
		}
	}
}

func TestResetAnswersSegment(t *testing.T) {
	for _, row := range []struct {
		name  string
		t     TCPHeader
		seq   uint32
		ack   uint32
		flags uint8
	}{
		{"SYN", TCPHeader{SrcPort: 4000, DstPort: 80, Seq: 1000, Flags: FlagSYN}, 0, 1001, FlagRST | FlagACK},
		{"data with ACK", TCPHeader{SrcPort: 4000, DstPort: 80, Seq: 1000, Ack: 77, Flags: FlagACK, DataLen: 9}, 77, 0, FlagRST},
		{"FIN with data, no ACK", TCPHeader{SrcPort: 4000, DstPort: 80, Seq: 1000, Flags: FlagFIN, DataLen: 9}, 0, 1010, FlagRST | FlagACK},
	} {
		for _, h := range []Header{{Src: a4, Dst: b4}, {Src: a6, Dst: b6}} {
			pkt := AppendReset(nil, h, row.t)
			got, err := Parse(pkt)
			if err != nil || got.Src != h.Dst || got.Dst != h.Src || got.Len != len(pkt) {
				t.Fatalf("%s: %+v, %v", row.name, got, err)
			}
			segment := pkt[got.PayloadOffset:]
			r, ok := ParseTCP(segment)
			if !ok || r != (TCPHeader{SrcPort: 80, DstPort: 4000, Seq: row.seq, Ack: row.ack, Flags: row.flags}) {
				t.Errorf("%s: %+v", row.name, r)
			}
			if !TransportChecksumOK(got.Src, got.Dst, ProtoTCP, segment) {
				t.Errorf("%s: wrong checksum", row.name)
			}
		}
	}
}

// icmpSumOK checks the checksum of an ICMP message of either family.
func icmpSumOK(h Header, m []byte) bool {
	if h.Is4() {
		return checksumOf(m, 0) == 0
	}
	return TransportChecksumOK(h.Src, h.Dst, ProtoICMPv6, m)
}

func TestUnreachableQuotesAndSums(t *testing.T) {
	for _, row := range []struct {
		src, dst, from netip.Addr
	}{{a4, b4, netip.MustParseAddr("245.1.2.5")}, {a6, b6, netip.MustParseAddr("fd00:245::5")}} {
		for reason, want := range map[Reason][4]byte{ // v4 type and code, v6 type and code
			NetUnreachable:      {3, 0, 1, 0},
			HostUnreachable:     {3, 1, 1, 3},
			ProtocolUnreachable: {3, 2, 1, 4},
			PortUnreachable:     {3, 3, 1, 4},
			Prohibited:          {3, 13, 1, 1},
			TimeExceeded:        {11, 0, 3, 0},
		} {
			for _, size := range []int{0, 100, 2000} {
				pkt := AppendUDP(nil, netip.AddrPortFrom(row.src, 1), netip.AddrPortFrom(row.dst, 2), make([]byte, size))
				h, _ := Parse(pkt)
				e := AppendUnreachable(nil, pkt, h, reason, row.from)
				eh, err := Parse(e)
				if err != nil || eh.Src != row.from || eh.Dst != row.src || len(e) > 600 {
					t.Fatalf("reason %d: %+v, %v, %d bytes", reason, eh, err, len(e))
				}
				m := e[eh.PayloadOffset:]
				kind, code := want[0], want[1]
				if !h.Is4() {
					kind, code = want[2], want[3]
				}
				if m[0] != kind || m[1] != code || !bytes.HasPrefix(pkt, m[8:]) || len(m) < 36 || !icmpSumOK(eh, m) {
					t.Errorf("reason %d: % x", reason, m[:8])
				}
			}
		}
	}
}

func TestNoErrorWhereItIsForbidden(t *testing.T) {
	icmp := func(kind byte) []byte {
		return append(appendIP(nil, a4, b4, ProtoICMP, 8), kind, 0, 0, 0, 0, 0, 0, 0)
	}
	icmp6 := func(kind byte) []byte {
		return append(appendIP(nil, a6, b6, ProtoICMPv6, 8), kind, 0, 0, 0, 0, 0, 0, 0)
	}
	udp := func(src, dst string) []byte {
		return AppendUDP(nil, netip.AddrPortFrom(netip.MustParseAddr(src), 1), netip.AddrPortFrom(netip.MustParseAddr(dst), 2), nil)
	}
	later := udp("245.1.2.4", "10.96.0.1")
	later[7] = 9
	for name, pkt := range map[string][]byte{
		"an error v4": icmp(3), "a redirect": icmp(5), "an echo reply": icmp(0), "time exceeded": icmp(11),
		"an error v6": icmp6(1), "too big": icmp6(2),
		"a later fragment":        later,
		"from nobody":             udp("0.0.0.0", "10.96.0.1"),
		"from multicast":          udp("224.0.0.1", "10.96.0.1"),
		"from loopback":           udp("127.0.0.1", "10.96.0.1"),
		"to multicast":            udp("245.1.2.4", "224.0.0.251"),
		"to multicast v6":         udp("fd00:245::4", "ff02::fb"),
		"ICMP without a header":   appendIP(nil, a4, b4, ProtoICMP, 0),
		"ICMPv6 without a header": appendIP(nil, a6, b6, ProtoICMPv6, 0),
	} {
		h, err := Parse(pkt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		from := netip.MustParseAddr("fd00:245::5")
		if h.Is4() {
			from = netip.MustParseAddr("245.1.2.5")
		}
		if got := AppendUnreachable(nil, pkt, h, PortUnreachable, from); len(got) > 0 {
			t.Errorf("%s was answered by % x", name, got)
		}
	}
}

func TestEchoRoundTrip(t *testing.T) {
	want := EchoMessage{ID: 0x1234, Seq: 9, Data: []byte("data")}
	for _, pair := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
		pkt := AppendEchoReply(nil, pair[0], pair[1], want)
		h, err := Parse(pkt)
		if err != nil || !icmpSumOK(h, pkt[h.PayloadOffset:]) {
			t.Fatalf("%+v, %v", h, err)
		}
		got, ok := ParseEchoReply(pkt[h.PayloadOffset:], h.Is4())
		if !ok || got.ID != want.ID || got.Seq != want.Seq || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%+v", got)
		}
		if _, ok := ParseEchoRequest(h, pkt[h.PayloadOffset:]); ok {
			t.Error("a reply was taken for a request")
		}
		if _, ok := ParseEchoRequest(h, AppendEchoRequest(nil, h.Is4(), want)); !ok {
			t.Error("a request was not taken")
		}
	}
}

// Cutting a datagram and putting the parts together in any order, with repetitions, gives it back.
func TestFragmentAndReassemble(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		src, dst, limit := netip.AddrPortFrom(a4, 1), netip.AddrPortFrom(b4, 2), 65507
		if rng.IntN(2) == 0 {
			src, dst = netip.AddrPortFrom(a6, 1), netip.AddrPortFrom(b6, 2)
		}
		payload := make([]byte, rng.IntN(limit+1))
		for i := range payload {
			payload[i] = byte(rng.Uint32())
		}
		pkt := AppendUDP(nil, src, dst, payload)
		mtu := 1280 + rng.IntN(300)
		var parts [][]byte
		Fragment(pkt, mtu, rng.Uint32(), nil, func(b []byte) { parts = append(parts, bytes.Clone(b)) })
		whole := reassembled(t, rng, parts, mtu)
		h, err := Parse(whole)
		if err != nil || h.Len != len(pkt) || !bytes.Equal(whole[h.PayloadOffset:], pkt[h.PayloadOffset:]) {
			t.Fatalf("%d bytes over MTU %d came back as %d: %v", len(pkt), mtu, len(whole), err)
		}
	}
}

// reassembled shuffles parts, repeats some, and returns what comes out; it must come out once.
func reassembled(t *testing.T, rng *rand.Rand, parts [][]byte, mtu int) []byte {
	t.Helper()
	if len(parts) == 1 {
		return parts[0]
	}
	order := rng.Perm(len(parts))
	var r Reassembler
	var whole []byte
	for i, n := range order {
		for range 1 + rng.IntN(2) {
			if len(parts[n]) > mtu {
				t.Fatalf("a part of %d bytes over MTU %d", len(parts[n]), mtu)
			}
			h, err := Parse(parts[n])
			if err != nil || !h.IsFragment() {
				t.Fatalf("part %d: %+v, %v", n, h, err)
			}
			b, ok := r.Add(parts[n], h, time.Now())
			if ok {
				whole = b
			}
			if ok != (i == len(order)-1 && whole != nil) {
				t.Fatalf("out after part %d of %d", i, len(order))
			}
			if ok {
				break // a repetition of the last part begins a new datagram
			}
		}
	}
	if whole == nil {
		t.Fatal("nothing came out")
	}
	return whole
}

// part builds one IPv4 fragment.
func part(id uint16, offset, size int, more bool) []byte {
	b := append(appendIP(nil, a4, b4, ProtoUDP, size), make([]byte, size)...)
	field := uint16(offset / 8)
	if more {
		field |= 0x2000
	}
	b[4], b[5], b[6], b[7] = byte(id>>8), byte(id), byte(field>>8), byte(field)
	return b
}

func (r *Reassembler) addForTest(t *testing.T, b []byte, now time.Time) bool {
	t.Helper()
	h, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	_, ok := r.Add(b, h, now)
	return ok
}

func TestReassemblerRefusesOverlaps(t *testing.T) {
	now := time.Now()
	for name, parts := range map[string][][]byte{
		"second starts inside the first": {part(1, 0, 64, true), part(1, 56, 64, true), part(1, 120, 8, false)},
		"second covers the first":        {part(1, 8, 16, true), part(1, 0, 64, true), part(1, 64, 8, false)},
		"end moves inwards":              {part(1, 0, 64, true), part(1, 128, 8, false), part(1, 64, 8, false), part(1, 72, 56, true)},
		"end moves outwards":             {part(1, 0, 8, true), part(1, 64, 8, false), part(1, 72, 8, false), part(1, 8, 56, true)},
	} {
		var r Reassembler
		for _, p := range parts {
			if r.addForTest(t, p, now) {
				t.Errorf("%s: a datagram came out", name)
			}
		}
	}
}

func TestReassemblerIsBounded(t *testing.T) {
	var r Reassembler
	now := time.Now()
	for id := range uint16(2000) {
		r.addForTest(t, part(id, 64000, 1400, true), now)
	}
	if len(r.pending) > maxDatagrams || r.bytes > maxPending {
		t.Errorf("%d datagrams, %d bytes are kept", len(r.pending), r.bytes)
	}
	held := 0
	for _, d := range r.pending {
		held += cap(d.payload)
	}
	if held != r.bytes {
		t.Errorf("%d bytes are held, %d counted", held, r.bytes)
	}
	if !r.addForTest(t, part(5000, 0, 64, true), now) && !r.addForTest(t, part(5000, 64, 8, false), now) {
		t.Error("a new datagram has no room")
	}
	r.addForTest(t, part(6000, 0, 64, true), now.Add(reassemblyTimeout+time.Second))
	if len(r.pending) != 1 {
		t.Errorf("%d datagrams outlived the time-out", len(r.pending)-1)
	}
}
