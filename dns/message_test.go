package dns

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

func pack(t testing.TB, m *wire.Msg) []byte {
	t.Helper()
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func rr(t testing.TB, s string) wire.RR {
	t.Helper()
	r, err := wire.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParseQuery(t *testing.T) {
	plain := pack(t, question("echo.", wire.TypeA))
	edit := func(change func([]byte) []byte) []byte { return change(slices.Clone(plain)) }
	edns := func(options ...wire.EDNS0) []byte {
		m := question("echo.", wire.TypeA)
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = options
		return pack(t, m)
	}
	twoOPT := question("echo.", wire.TypeA)
	twoOPT.SetEdns0(4096, true)
	twoOPT.Extra = append(twoOPT.Extra, twoOPT.Extra[0])
	version1 := question("echo.", wire.TypeA)
	version1.SetEdns0(4096, false)
	version1.IsEdns0().SetVersion(1)
	for _, tt := range []struct {
		situation string
		msg       []byte
		want      verdict
		special   bool
	}{
		{"plain", plain, verdictAsk, false},
		{"EDNS", edns(), verdictAsk, false},
		{"a cookie is between neighbours", edns(&wire.EDNS0_COOKIE{Code: wire.EDNS0COOKIE, Cookie: "0102030405060708"}), verdictAsk, false},
		{"a client subnet is not", edns(&wire.EDNS0_SUBNET{Code: wire.EDNS0SUBNET, Family: 1, SourceNetmask: 0, Address: []byte{0, 0, 0, 0}}), verdictAsk, true},
		{"two OPT records", pack(t, twoOPT), verdictFormErr, false},
		{"a later version of EDNS", pack(t, version1), verdictBadVersion, false},
		{"nothing", nil, verdictDrop, false},
		{"half a header", plain[:11], verdictDrop, false},
		{"a response", edit(func(b []byte) []byte { b[2] |= 0x80; return b }), verdictDrop, false},
		{"a notification", edit(func(b []byte) []byte { b[2] |= wire.OpcodeNotify << 3; return b }), verdictNotImplemented, false},
		{"no question", edit(func(b []byte) []byte { b[5] = 0; return b[:headerBytes] }), verdictFormErr, false},
		{"two questions", edit(func(b []byte) []byte { b[5] = 2; return b }), verdictFormErr, false},
		{"cut short", plain[:len(plain)-1], verdictFormErr, false},
		{"trailing bytes", append(slices.Clone(plain), 0), verdictFormErr, false},
		{"an answer", edit(func(b []byte) []byte { b[7] = 1; return b }), verdictFormErr, false},
		{"a name that points to itself", edit(func(b []byte) []byte { b[12], b[13] = 0xC0, 12; return b }), verdictFormErr, false},
		{"a zone transfer", pack(t, question("echo.", wire.TypeAXFR)), verdictRefused, false},
	} {
		q, v := parseQuery(tt.msg)
		if v != tt.want || q.special != tt.special {
			t.Errorf("%s: verdict %d, special %t", tt.situation, v, q.special)
		}
	}
	if q, _ := parseQuery(edns()); q.udpBytes != 4096 || !q.do || !q.edns || q.qtype != wire.TypeA || q.qclass != wire.ClassINET {
		t.Errorf("EDNS: %+v", q)
	}
}

func TestAnswersAreRememberedAsLongAsTheySay(t *testing.T) {
	const soa = "example.com. 100 IN SOA ns.example.com. root.example.com. 1 2 3 4 "
	limit := lifetimes{positive: 30 * time.Second, negative: 10 * time.Second, capTTL: true}
	for _, tt := range []struct {
		situation string
		make      func(m *wire.Msg)
		want      time.Duration
		ttls      []uint32
	}{
		{"one record", func(m *wire.Msg) { m.Answer = append(m.Answer, rr(t, "www.example.com. 5 IN A 192.0.2.1")) }, 5 * time.Second, []uint32{5}},
		{"the lowest TTL counts", func(m *wire.Msg) {
			m.Answer = append(m.Answer, rr(t, "www.example.com. 20 IN A 192.0.2.1"))
			m.Extra = append(m.Extra, rr(t, "ns.example.com. 7 IN A 192.0.2.2"))
		}, 7 * time.Second, []uint32{20, 7}},
		{"longer than we remember", func(m *wire.Msg) { m.Answer = append(m.Answer, rr(t, "www.example.com. 300 IN A 192.0.2.1")) }, 30 * time.Second, []uint32{30}},
		{"a TTL of zero", func(m *wire.Msg) { m.Answer = append(m.Answer, rr(t, "www.example.com. 0 IN A 192.0.2.1")) }, 0, []uint32{0}},
		{"no such name", func(m *wire.Msg) {
			m.Rcode = wire.RcodeNameError
			m.Ns = append(m.Ns, rr(t, soa+"6"))
		}, 6 * time.Second, []uint32{10}},
		{"no such name, for longer than we remember", func(m *wire.Msg) {
			m.Rcode = wire.RcodeNameError
			m.Ns = append(m.Ns, rr(t, soa+"600"))
		}, 10 * time.Second, []uint32{10}},
		{"no such record", func(m *wire.Msg) { m.Ns = append(m.Ns, rr(t, soa+"3")) }, 3 * time.Second, []uint32{10}},
		{"a denial without SOA", func(m *wire.Msg) { m.Rcode = wire.RcodeNameError }, 0, nil},
		{"an alias to nothing", func(m *wire.Msg) {
			m.Answer = append(m.Answer, rr(t, "www.example.com. 20 IN CNAME x.example.com."))
			m.Ns = append(m.Ns, rr(t, soa+"8"))
		}, 8 * time.Second, []uint32{10, 10}},
		{"a referral", func(m *wire.Msg) { m.Ns = append(m.Ns, rr(t, "example.com. 100 IN NS ns.example.com.")) }, 0, []uint32{10}},
		{"a failure", func(m *wire.Msg) { m.Rcode = wire.RcodeServerFailure }, 0, nil},
		{"truncated", func(m *wire.Msg) {
			m.Truncated = true
			m.Answer = append(m.Answer, rr(t, "www.example.com. 5 IN A 192.0.2.1"))
		}, 0, []uint32{5}},
		{"a signature after the OPT record", func(m *wire.Msg) {
			m.Answer = append(m.Answer, rr(t, "www.example.com. 5 IN A 192.0.2.1"))
			m.SetEdns0(1232, false)
			m.Extra = append(m.Extra, rr(t, "x.example.com. 5 IN A 192.0.2.1"))
		}, 0, []uint32{5, 5}},
	} {
		m := new(wire.Msg).SetReply(question("www.example.com", wire.TypeA))
		tt.make(m)
		msg := pack(t, m)
		end, _ := questionEnd(msg)
		a, err := parseAnswer(msg, end, limit, time.Now())
		if err != nil {
			t.Errorf("%s: %v", tt.situation, err)
			continue
		}
		var ttls []uint32
		for _, off := range a.ttls {
			ttls = append(ttls, binary.BigEndian.Uint32(a.body[off:]))
		}
		if a.life != tt.want || !slices.Equal(ttls, tt.ttls) {
			t.Errorf("%s: %v, TTLs %v; want %v, %v", tt.situation, a.life, ttls, tt.want, tt.ttls)
		}
	}
}

// replyTo makes the reply to q when response was the answer seconds ago.
func replyTo(t testing.TB, q, response *wire.Msg, seconds, limit int) *wire.Msg {
	t.Helper()
	query, v := parseQuery(pack(t, q))
	if v != verdictAsk {
		t.Fatal(v)
	}
	now := time.Now()
	a, err := parseAnswer(pack(t, response), query.end, upstreamLifetimes, now.Add(-time.Duration(seconds)*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	msg := appendReply(nil, &query, a, now, limit)
	if len(msg) > limit {
		t.Errorf("%d bytes, more than %d", len(msg), limit)
	}
	m := new(wire.Msg)
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("reply: %v", err)
	}
	return m
}

func TestReplyRepeatsWhatTheClientSaid(t *testing.T) {
	q := question("wWw.ExAmPle.com", wire.TypeA)
	q.CheckingDisabled = true
	response := new(wire.Msg).SetReply(question("www.example.com", wire.TypeA))
	response.RecursionAvailable, response.AuthenticatedData, response.Compress = true, true, true
	response.Answer = []wire.RR{rr(t, "www.example.com. 300 IN A 192.0.2.1")}
	response.SetEdns0(1232, false)
	m := replyTo(t, q, response, 100, 512)
	if m.Id != q.Id || !m.CheckingDisabled || !m.RecursionDesired || !m.RecursionAvailable || !m.AuthenticatedData {
		t.Errorf("header: %v", m.MsgHdr)
	}
	if m.Question[0].Name != "wWw.ExAmPle.com." || m.Answer[0].Header().Name != "wWw.ExAmPle.com." {
		t.Errorf("spelling: %v", m)
	}
	if m.Answer[0].Header().Ttl != 200 {
		t.Errorf("age: %v", m.Answer[0])
	}
	if m.IsEdns0() != nil {
		t.Errorf("OPT record without being asked")
	}
	q.SetEdns0(4096, true)
	if m := replyTo(t, q, response, 0, 512); m.IsEdns0() == nil || len(m.Extra) != 1 {
		t.Errorf("no OPT record: %v", m)
	}
}

func TestTruncation(t *testing.T) {
	q := question("big.example.com", wire.TypeA)
	q.SetEdns0(1232, false)
	response := new(wire.Msg).SetReply(q)
	response.Compress = true
	for i := range 60 {
		response.Answer = append(response.Answer, rr(t, fmt.Sprintf("big.example.com. 300 IN A 192.0.2.%d", i)))
	}
	response.Extra = []wire.RR{rr(t, "more.example.com. 300 IN TXT "+strings.Repeat("x", 200))}
	response.SetEdns0(1232, false)
	if m := replyTo(t, q, response, 0, 512); !m.Truncated || len(m.Answer) == 0 || len(m.Answer) == 60 || m.IsEdns0() == nil {
		t.Errorf("at 512 bytes: truncated %t, %d answers", m.Truncated, len(m.Answer))
	}
	if m := replyTo(t, q, response, 0, 1100); m.Truncated || len(m.Answer) != 60 || len(m.Extra) != 1 {
		t.Errorf("without the additional record: truncated %t, %d answers, %d additional", m.Truncated, len(m.Answer), len(m.Extra))
	}
	if m := replyTo(t, q, response, 0, 4096); m.Truncated || len(m.Answer) != 60 || len(m.Extra) != 2 {
		t.Errorf("at 4096 bytes: truncated %t, %d answers, %d additional", m.Truncated, len(m.Answer), len(m.Extra))
	}
	response.IsEdns0().Option = []wire.EDNS0{&wire.EDNS0_PADDING{Padding: make([]byte, 600)}}
	if m := replyTo(t, q, response, 0, 512); !m.Truncated || len(m.IsEdns0().Option) != 0 {
		t.Errorf("options longer than the limit: %v", m)
	}
}

func TestCache(t *testing.T) {
	now := time.Now()
	made := func(life time.Duration, bytes int) *answer {
		return &answer{body: make([]byte, bytes), born: now, life: life}
	}
	c := newCache()
	for _, tt := range []struct {
		situation string
		key       string
		answer    *answer
		after     time.Duration
		want      bool
	}{
		{"fresh", "a", made(5*time.Second, 10), 4 * time.Second, true},
		{"over", "b", made(5*time.Second, 10), 5 * time.Second, false},
		{"not to be remembered", "c", made(0, 10), 0, false},
		{"nobody else's", "", made(5*time.Second, 10), 0, false},
		{"too long", "d", made(5*time.Second, cacheEntryBytes+1), 0, false},
	} {
		c.put(tt.key, tt.answer)
		if got := c.get([]byte(tt.key), now.Add(tt.after)); (got != nil) != tt.want {
			t.Errorf("%s: %v", tt.situation, got)
		}
	}
	if c.len() != 1 {
		t.Errorf("%d entries", c.len())
	}
	for i := range 2000 {
		c.put(fmt.Sprint(i), made(time.Minute, 8<<10))
		c.get([]byte("a"), now)
	}
	if c.get([]byte("a"), now) == nil {
		t.Error("what is used is forgotten")
	}
	if c.get([]byte("0"), now) != nil || c.bytes > cacheBytes {
		t.Errorf("grows without bound: %d bytes", c.bytes)
	}
	total := 0
	for el := c.recent.Front(); el != nil; el = el.Next() {
		total += el.Value.(*entry).size()
	}
	if total != c.bytes || c.recent.Len() != c.len() {
		t.Errorf("%d bytes counted, %d held; %d entries, %d listed", c.bytes, total, c.len(), c.recent.Len())
	}
}

func TestQuickDoesNotAllocate(t *testing.T) {
	s, msg := remembering(t, "echo.default.svc.cluster.local.")
	out, now := make([]byte, 0, usualBuffer), time.Now()
	if n := testing.AllocsPerRun(100, func() { s.quick(out, msg, false, now) }); n != 0 {
		t.Errorf("%v allocations per reply from memory", n)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("a median of nothing")
	}
	for _, d := range []time.Duration{0, time.Microsecond, 17 * time.Microsecond, time.Millisecond, 70 * time.Millisecond, time.Second, 10 * time.Second} {
		h = histogram{}
		h.add(d)
		if got := h.quantile(0.5); got < d || float64(got) > max(1.26*float64(d), 1300) {
			t.Errorf("%v counted as %v", d, got)
		}
	}
	h = histogram{}
	for i := range 100 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	if p50, p99 := h.quantile(0.5), h.quantile(0.99); p50 < 50*time.Millisecond || p50 > 64*time.Millisecond || p99 < 99*time.Millisecond {
		t.Errorf("median %v, 99th percentile %v", p50, p99)
	}
	h.add(100 * time.Hour)
}
