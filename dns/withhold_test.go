package dns

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// vpn is what the tests leave to others.
var vpn = []Withheld{
	{netip.MustParsePrefix("10.132.0.0/16"), "OpenVPN on tun0"},
	{netip.MustParsePrefix("10.132.64.0/26"), "WireGuard on wg0"},
	{netip.MustParsePrefix("fd00:132::/48"), ""},
}

// yieldZone is a cluster some of whose addresses are left to others.
func yieldZone(t testing.TB) func(*wire.Msg, bool) *wire.Msg {
	return zone(t,
		"gone.default.svc.cluster.local. 5 IN A 10.132.64.7",
		"gone.default.svc.cluster.local. 5 IN A 10.132.70.1",
		"gone.default.svc.cluster.local. 5 IN AAAA fd00:132::7",
		"half.default.svc.cluster.local. 5 IN A 10.132.64.8",
		"half.default.svc.cluster.local. 5 IN A 10.130.0.8",
		"half.default.svc.cluster.local. 5 IN AAAA fd00:130::8",
		"four.default.svc.cluster.local. 5 IN A 10.132.64.9",
		"alias.default.svc.cluster.local. 5 IN CNAME gone.default.svc.cluster.local.",
		"stays.default.svc.cluster.local. 5 IN A 10.130.0.9",
		"odd.default.svc.cluster.local. 5 IN A 127.0.0.1",
		"odd.default.svc.cluster.local. 5 IN A 10.132.64.10",
		"mapped.default.svc.cluster.local. 5 IN AAAA ::ffff:10.132.64.11",
		"7.64.132.10.in-addr.arpa. 5 IN PTR gone.default.svc.cluster.local.",
		"any.default.svc.cluster.local. 5 IN A 10.132.64.12",
		"any.default.svc.cluster.local. 5 IN TXT \"text\"",
		"db.corp.internal. 300 IN A 10.132.1.1",
	)
}

// yielding is a resolver for yieldZone; its host's resolvers know a name of the VPN's network.
func yielding(t testing.TB) (*resolver, *fake, Config) {
	gateway := startFake(t, yieldZone(t))
	upstream := startFake(t, zone(t, "www.example.com. 300 IN A 10.132.64.99", "intranet. 300 IN A 10.132.64.98"))
	cfg := connected(gateway, upstream)
	cfg.IncludeSuffixes = []string{"corp.internal"}
	cfg.Connection = "lab"
	cfg.Reverse = []netip.Prefix{netip.MustParsePrefix("10.132.0.0/16")}
	cfg.Withheld = vpn
	return startResolver(t, cfg, Options{}), gateway, cfg
}

func withEDNS(name string, qtype uint16) *wire.Msg {
	q := question(name, qtype)
	q.SetEdns0(1232, false)
	return q
}

func TestAddressesLeftToOthersAreWithheld(t *testing.T) {
	r, _, _ := yielding(t)
	for _, tt := range []struct {
		situation string
		name      string
		qtype     uint16
		rcode     int
		want      string
		text      string // of the extended error; "" for none
	}{
		{"all left to others", "gone.default.svc.cluster.local", wire.TypeA, wire.RcodeServerFailure, "", "10.132.64.7 is left to WireGuard on wg0; see `culvert why gone.default.svc.cluster.local`"},
		{"IPv6, by nobody known", "gone.default.svc.cluster.local", wire.TypeAAAA, wire.RcodeServerFailure, "", "fd00:132::7 is left to another network; see `culvert why gone.default.svc.cluster.local`"},
		{"a short name", "gone", wire.TypeA, wire.RcodeServerFailure, "", "10.132.64.7 is left to WireGuard on wg0; see `culvert why gone`"},
		{"the connection's own zone", "gone.lab.culvert.internal", wire.TypeA, wire.RcodeServerFailure, "", "10.132.64.7 is left to WireGuard on wg0; see `culvert why gone.lab.culvert.internal`"},
		{"an alias", "alias", wire.TypeA, wire.RcodeServerFailure, "", "10.132.64.7 is left to WireGuard on wg0; see `culvert why alias`"},
		{"an included suffix", "db.corp.internal", wire.TypeA, wire.RcodeServerFailure, "", "10.132.1.1 is left to OpenVPN on tun0; see `culvert why db.corp.internal`"},
		{"some left to others", "half", wire.TypeA, wire.RcodeSuccess, "10.130.0.8", "10.132.64.8 is left to WireGuard on wg0; see `culvert why half`"},
		{"the other family", "half", wire.TypeAAAA, wire.RcodeSuccess, "fd00:130::8", ""},
		{"no record of the type", "four", wire.TypeAAAA, wire.RcodeSuccess, "", ""},
		{"not left to anyone", "stays", wire.TypeA, wire.RcodeSuccess, "10.130.0.9", ""},
		{"beside an address that cannot be", "odd", wire.TypeA, wire.RcodeServerFailure, "", "10.132.64.10 is left to WireGuard on wg0; see `culvert why odd`"},
		{"IPv4 mapped into IPv6", "mapped", wire.TypeAAAA, wire.RcodeServerFailure, "", "10.132.64.11 is left to WireGuard on wg0; see `culvert why mapped`"},
		{"any type, one is left", "any.default.svc", wire.TypeANY, wire.RcodeSuccess, "", "10.132.64.12 is left to WireGuard on wg0; see `culvert why any.default.svc`"},
		{"the host's own resolvers", "www.example.com", wire.TypeA, wire.RcodeSuccess, "10.132.64.99", ""},
		{"the host's own resolvers after the cluster", "intranet", wire.TypeA, wire.RcodeSuccess, "10.132.64.98", ""},
		{"a reverse name", "7.64.132.10.in-addr.arpa", wire.TypePTR, wire.RcodeSuccess, "", ""},
	} {
		for _, network := range []string{"udp", "tcp"} { // the second from memory
			m := r.ask(network, withEDNS(tt.name, tt.qtype))
			if m.Rcode != tt.rcode || addresses(m) != tt.want {
				t.Errorf("%s (%s): %s %q", tt.situation, network, wire.RcodeToString[m.Rcode], addresses(m))
			}
			if errs := extendedErrors(m); !slices.Equal(errs, expected(tt.text)) {
				t.Errorf("%s (%s): extended errors %v", tt.situation, network, errs)
			}
			if m.Rcode == wire.RcodeServerFailure && len(m.Answer)+len(m.Ns) > 0 {
				t.Errorf("%s (%s): a failure with records: %v", tt.situation, network, m)
			}
			if plain := r.ask(network, question(tt.name, tt.qtype)); plain.Rcode != tt.rcode || addresses(plain) != tt.want || plain.IsEdns0() != nil {
				t.Errorf("%s (%s), without EDNS: %v", tt.situation, network, plain)
			}
		}
	}
	if ptr := r.lookup("7.64.132.10.in-addr.arpa", wire.TypePTR); len(ptr.Answer) != 1 {
		t.Errorf("PTR: %v", ptr)
	}
	if r.Stats().Withheld == 0 || r.Stats().ServFail == 0 {
		t.Errorf("not counted: %+v", r.Stats())
	}
}

func expected(text string) []ExtendedError {
	if text == "" {
		return nil
	}
	return []ExtendedError{{wire.ExtendedErrorCodeFiltered, "Filtered", text}}
}

func TestWithholdingFollowsTheConfigurationAtOnce(t *testing.T) {
	r, gateway, cfg := yielding(t)
	check := func(situation string, withheld []Withheld, rcode int, want string) {
		t.Helper()
		cfg.Withheld = withheld
		r.Set(cfg)
		for _, qname := range []string{"gone", "GONE"} {
			if m := r.lookup(qname, wire.TypeA); m.Rcode != rcode || addresses(m) != want {
				t.Errorf("%s: %v", situation, m)
			}
		}
	}
	check("the VPN is up", vpn, wire.RcodeServerFailure, "")
	check("the VPN is gone", nil, wire.RcodeSuccess, "10.132.64.7 10.132.70.1")
	check("the VPN has another route", vpn[1:2], wire.RcodeSuccess, "10.132.70.1")
	check("the VPN is up again", vpn, wire.RcodeServerFailure, "")
	if n := gateway.queries.Load(); n != 1 {
		t.Errorf("the cluster was asked %d times", n)
	}
}

// A question that was asked before the VPN came is answered by what holds when its answer comes.
func TestWithholdingCoversQuestionsInFlight(t *testing.T) {
	release := make(chan struct{})
	good := yieldZone(t)
	gateway := startFake(t, func(q *wire.Msg, tcp bool) *wire.Msg { <-release; return good(q, tcp) })
	r := startResolver(t, connected(gateway), Options{})
	got := make(chan *wire.Msg, 1)
	go func() {
		m, _, err := (&wire.Client{Timeout: 10 * time.Second}).Exchange(question("gone", wire.TypeA), r.addr)
		if err != nil {
			m = new(wire.Msg)
		}
		got <- m
	}()
	waitFor(t, "the question", func() bool { return gateway.queries.Load() > 0 })
	cfg := connected(gateway)
	cfg.Withheld = vpn
	r.Set(cfg)
	close(release)
	if m := <-got; m.Rcode != wire.RcodeServerFailure {
		t.Errorf("%v", m)
	}
}

// withholding are the rules of a configuration that only withholds.
func withholding(prefixes []Withheld) *outward { return newOutward(&Config{Withheld: prefixes}, nil) }

// thinned asks the filter for what a client that asked q gets of m as the cluster's answer.
func thinned(t testing.TB, withheld []Withheld, q, m *wire.Msg) (out *wire.Msg, same bool) {
	t.Helper()
	query, v := parseQuery(pack(t, q))
	if v != verdictAsk {
		t.Fatal(v)
	}
	name := q.Question[0].Name
	s := NewServer(Options{})
	a, err := s.clusterAnswer(s.state.Load(), heard(t, m), &query, name, name)
	if err != nil {
		t.Fatal(err)
	}
	b := withholding(withheld).told(&query, a)
	out = new(wire.Msg)
	if err := out.Unpack(appendReply(nil, &query, b, time.Now(), 65535)); err != nil {
		t.Fatalf("not valid: %v", err)
	}
	return out, a == b
}

func TestWithheldHintsGlueAndSignatures(t *testing.T) {
	const sig = " 8 3 5 20300101000000 20200101000000 1 cluster.local. AAAA"
	for _, tt := range []struct {
		situation           string
		qtype               uint16
		answer, extra       []string
		rcode               int
		wantAnswer, wantAdd []string
	}{
		{"glue of SRV", wire.TypeSRV,
			[]string{"x.cluster.local. 5 IN SRV 0 1 80 a.cluster.local.", "x.cluster.local. 5 IN SRV 0 1 80 b.cluster.local."},
			[]string{"a.cluster.local. 5 IN A 10.132.0.1", "b.cluster.local. 5 IN A 10.130.0.1"}, wire.RcodeSuccess,
			[]string{"x.cluster.local. 5 IN SRV 0 1 80 a.cluster.local.", "x.cluster.local. 5 IN SRV 0 1 80 b.cluster.local."},
			[]string{"b.cluster.local. 5 IN A 10.130.0.1"}},
		{"hints", wire.TypeHTTPS,
			[]string{`x.cluster.local. 5 IN HTTPS 1 . alpn="h2" ipv4hint="10.132.0.1,10.130.0.1" ipv6hint="fd00:132::1"`}, nil, wire.RcodeSuccess,
			[]string{`x.cluster.local. 5 IN HTTPS 1 . alpn="h2" ipv4hint="10.130.0.1"`}, nil},
		{"a mandatory hint", wire.TypeSVCB,
			[]string{`x.cluster.local. 5 IN SVCB 1 . mandatory="alpn,ipv4hint" alpn="h2" ipv4hint="10.132.0.1"`}, nil, wire.RcodeSuccess,
			[]string{`x.cluster.local. 5 IN SVCB 1 . mandatory="alpn" alpn="h2"`}, nil},
		{"the only mandatory key", wire.TypeSVCB,
			[]string{`x.cluster.local. 5 IN SVCB 1 . mandatory="ipv4hint" ipv4hint="10.132.0.1"`}, nil, wire.RcodeSuccess,
			[]string{`x.cluster.local. 5 IN SVCB 1 .`}, nil},
		{"signatures of thinned sets", wire.TypeA,
			[]string{"x.cluster.local. 5 IN A 10.132.0.1", "x.cluster.local. 5 IN A 10.130.0.1", "X.cluster.local. 5 IN RRSIG A" + sig},
			[]string{"y.cluster.local. 5 IN A 10.130.0.2", "y.cluster.local. 5 IN RRSIG A" + sig}, wire.RcodeSuccess,
			[]string{"x.cluster.local. 5 IN A 10.130.0.1"},
			[]string{"y.cluster.local. 5 IN A 10.130.0.2", "y.cluster.local. 5 IN RRSIG A" + sig}},
		{"a signature is no answer", wire.TypeANY,
			[]string{"x.cluster.local. 5 IN A 10.132.0.1", "x.cluster.local. 5 IN RRSIG A" + sig, "x.cluster.local. 5 IN RRSIG MX" + sig}, nil,
			wire.RcodeServerFailure, nil, nil},
	} {
		q := withEDNS("x.cluster.local", tt.qtype)
		m := new(wire.Msg).SetReply(q)
		m.AuthenticatedData = true
		for _, s := range tt.answer {
			m.Answer = append(m.Answer, rr(t, s))
		}
		for _, s := range tt.extra {
			m.Extra = append(m.Extra, rr(t, s))
		}
		out, _ := thinned(t, vpn, q, m)
		extra := slices.DeleteFunc(slices.Clone(out.Extra), func(r wire.RR) bool { return r.Header().Rrtype == wire.TypeOPT })
		if out.Rcode != tt.rcode || !sameText(t, out.Answer, tt.wantAnswer) || !sameText(t, extra, tt.wantAdd) || out.AuthenticatedData {
			t.Errorf("%s: %v", tt.situation, out)
		}
		if len(out.Extra)-len(extra) != 1 || extendedError(out) != codeWithheld {
			t.Errorf("%s: OPT records: %v", tt.situation, out.Extra)
		}
	}
}

func sameText(t testing.TB, got []wire.RR, want []string) bool {
	t.Helper()
	return slices.EqualFunc(got, want, func(g wire.RR, w string) bool { return strings.EqualFold(g.String(), rr(t, w).String()) })
}

func TestAThinnedAnswerKeepsWhatItWas(t *testing.T) {
	q := withEDNS("x.cluster.local", wire.TypeA)
	m := new(wire.Msg).SetReply(q)
	m.Authoritative = true
	m.Answer = []wire.RR{rr(t, "x.cluster.local. 20 IN A 10.132.0.1"), rr(t, "x.cluster.local. 20 IN A 10.130.0.1"), rr(t, "x.cluster.local. 20 IN A 127.0.0.1")}
	query, _ := parseQuery(pack(t, q))
	s := NewServer(Options{})
	a, err := s.clusterAnswer(s.state.Load(), heard(t, m), &query, "x.cluster.local.", "x.cluster.local.")
	if err != nil {
		t.Fatal(err)
	}
	rules := withholding(vpn)
	out := new(wire.Msg)
	if err := out.Unpack(appendReply(nil, &query, rules.told(&query, a), a.born.Add(7*time.Second), 512)); err != nil {
		t.Fatal(err)
	}
	if !out.Authoritative || addresses(out) != "10.130.0.1" || out.Answer[0].Header().Ttl != 13 {
		t.Errorf("%v", out)
	}
	codes := []uint16{}
	for _, e := range extendedErrors(out) {
		codes = append(codes, e.Code)
	}
	if !slices.Equal(codes, []uint16{wire.ExtendedErrorCodeBlocked, wire.ExtendedErrorCodeFiltered}) {
		t.Errorf("extended errors %v", codes)
	}
}

func TestAThinnedAnswerIsTruncatedLikeAnyOther(t *testing.T) {
	var records []string
	for i := range 200 {
		records = append(records, fmt.Sprintf("big.default.svc.cluster.local. 5 IN A 10.%d.0.%d", 130+i%2*2, i))
	}
	gateway := startFake(t, zone(t, records...))
	cfg := connected(gateway)
	cfg.Withheld = vpn
	r := startResolver(t, cfg, Options{})
	if m := r.ask("udp", question("big", wire.TypeA)); !m.Truncated || len(m.Answer) == 0 || strings.Contains(addresses(m), "10.132.") {
		t.Errorf("%v", m)
	}
	if m := r.ask("tcp", question("big", wire.TypeA)); m.Truncated || len(m.Answer) != 100 || strings.Contains(addresses(m), "10.132.") {
		t.Errorf("%v", m)
	}
}

// The text of an extended error is one people copy a command from, and fits every reply.
func TestTheExplanationIsSafeAndShort(t *testing.T) {
	rules := withholding([]Withheld{{netip.MustParsePrefix("10.0.0.0/8"), strings.Repeat("ü", 100)}, vpn[0]})
	label := strings.Repeat("a", 63)
	for name, want := range map[string]string{
		"gone.": "10.132.0.1 is left to OpenVPN on tun0; see `culvert why gone`",
		label + "." + label + "." + label + "." + label[:61] + ".": "10.132.0.1 is left to OpenVPN on tun0; see `culvert why 10.132.0.1`",
		"$(reboot).":    "10.132.0.1 is left to OpenVPN on tun0; see `culvert why 10.132.0.1`",
		"`reboot`.":     "10.132.0.1 is left to OpenVPN on tun0; see `culvert why 10.132.0.1`",
		"-f.":           "10.132.0.1 is left to OpenVPN on tun0; see `culvert why 10.132.0.1`",
		"_x._tcp.gone.": "10.132.0.1 is left to OpenVPN on tun0; see `culvert why _x._tcp.gone`",
	} {
		q := question(name, wire.TypeA)
		q.SetEdns0(512, true)
		m := new(wire.Msg).SetReply(q)
		m.Answer = []wire.RR{rr(t, ". 5 IN A 10.132.0.1")}
		m.Answer[0].Header().Name = name
		query, _ := parseQuery(pack(t, q))
		s := NewServer(Options{})
		a, err := s.clusterAnswer(s.state.Load(), heard(t, m), &query, name, name)
		if err != nil {
			t.Fatal(err)
		}
		reply, out := appendReply(nil, &query, rules.told(&query, a), time.Now(), 512), new(wire.Msg)
		if err := out.Unpack(reply); err != nil || out.Truncated || !out.IsEdns0().Do() {
			t.Errorf("%s: %v, %v", name, err, out)
		}
		if errs := extendedErrors(out); !slices.Equal(errs, expected(want)) {
			t.Errorf("%s: %v", name, errs)
		}
	}
	q, _ := parseQuery(pack(t, question("x.", wire.TypeA)))
	if text := rules.loss(&q, new(answer), netip.MustParseAddr("10.1.1.1"), errWithheld).text; len(text) > 120 || strings.ToValidUTF8(text, "") != text {
		t.Errorf("%q", text)
	}
}

// find agrees with looking at every prefix.
func TestWithheldSetAgainstItsTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	addr := func() netip.Addr {
		if rnd.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(rnd.IntN(3)), byte(rnd.IntN(4)) << 6, byte(rnd.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0xfd, byte(rnd.IntN(2)), 15: byte(rnd.IntN(256))})
	}
	for range 2000 {
		var all []Withheld
		for i := range rnd.IntN(12) {
			a := addr()
			all = append(all, Withheld{netip.PrefixFrom(a, rnd.IntN(a.BitLen()+1)), fmt.Sprint(i)})
		}
		all = append(all, Withheld{Owner: "invalid"}, Withheld{netip.MustParsePrefix("::ffff:10.0.0.0/104"), "mapped"})
		set := newWithheldMap(all)
		for range 30 {
			a := addr()
			got, ok := set.find(a)
			want, found := twinFind(all, a)
			if ok != found || got != want {
				t.Fatalf("%v in %v: %v %t, want %v %t", a, all, got, ok, want, found)
			}
		}
	}
}

// twinFind is the slow and obvious find.
func twinFind(all []Withheld, addr netip.Addr) (best Withheld, found bool) {
	for _, p := range all {
		if p.Prefix.Contains(addr) && (!found || p.Prefix.Bits() > best.Prefix.Bits()) {
			best, found = Withheld{p.Prefix.Masked(), p.Owner}, true
		}
	}
	return best, found
}

// Whatever the cluster answers, no withheld address is in what a client gets, the rest is, and an answer without one is
// the same to the byte.
func FuzzWithhold(f *testing.F) {
	q := withEDNS("x.cluster.local", wire.TypeA)
	m := new(wire.Msg).SetReply(q)
	m.Answer = []wire.RR{rr(f, "x.cluster.local. 5 IN CNAME y.cluster.local."), rr(f, "y.cluster.local. 5 IN A 10.132.0.1"), rr(f, "y.cluster.local. 5 IN A 10.130.0.1")}
	m.Extra = []wire.RR{rr(f, `z.cluster.local. 5 IN HTTPS 1 y.cluster.local. mandatory=ipv4hint ipv4hint=10.132.0.1,10.130.0.1 ipv6hint=fd00:132::1`)}
	f.Add(pack(f, m), wire.TypeA)
	m.Answer = m.Answer[:2]
	m.SetEdns0(1232, true)
	m.Compress = true
	f.Add(pack(f, m), wire.TypeA)
	f.Add(pack(f, m), wire.TypeANY)
	m.Answer = []wire.RR{rr(f, "x.cluster.local. 5 IN A 10.130.0.1"), rr(f, "x.cluster.local. 5 IN RRSIG A 8 3 5 20300101000000 20200101000000 1 cluster.local. AAAA")}
	f.Add(pack(f, m), wire.TypeA)
	rules := withholding(vpn)
	s := NewServer(Options{})
	f.Fuzz(func(t *testing.T, response []byte, qtype uint16) {
		if len(response) < headerBytes {
			return
		}
		query, v := parseQuery(pack(t, withEDNS("x.cluster.local", qtype)))
		if v != verdictAsk {
			return
		}
		m := new(wire.Msg)
		if m.Unpack(response) != nil {
			return
		}
		a, err := s.clusterAnswer(s.state.Load(), reply{msg: m, source: SourceCluster}, &query, "x.cluster.local.", "x.cluster.local.")
		if err != nil {
			return
		}
		now := a.born
		before, after := appendReply(nil, &query, a, now, 1<<17), appendReply(nil, &query, rules.told(&query, a), now, 1<<17)
		given, got := new(wire.Msg), new(wire.Msg)
		if given.Unpack(before) != nil {
			return
		}
		if err := got.Unpack(after); err != nil {
			t.Fatalf("%v\nbecame %x: %v", given, after, err)
		}
		want, touched := twinThin(given, qtype)
		if !touched {
			if !bytes.Equal(before, after) {
				t.Errorf("%v\nbecame\n%v", given, got)
			}
			return
		}
		if got.Rcode != want.Rcode || !sameRecords(got, want) || got.AuthenticatedData {
			t.Errorf("%v\nbecame\n%v\nwant\n%v", given, got, want)
		}
		if again, touched := twinThin(got, qtype); touched {
			t.Errorf("withheld addresses in %v (%v)", got, again)
		}
	})
}

// twinThin is the slow and obvious filter: it builds a message of what may stay. It reports whether anything may not.
func twinThin(m *wire.Msg, qtype uint16) (*wire.Msg, bool) {
	touched := map[string]bool{}
	out := &wire.Msg{MsgHdr: m.MsgHdr, Question: m.Question}
	keep := func(rrs []wire.RR) (left []wire.RR) {
		for _, r := range rrs {
			if r = twinRecord(wire.Copy(r), touched); r != nil {
				left = append(left, r)
			}
		}
		return left
	}
	out.Answer, out.Ns, out.Extra = keep(m.Answer), keep(m.Ns), keep(m.Extra)
	unsigned := func(rrs []wire.RR) (left []wire.RR) {
		for _, r := range rrs {
			if sig, ok := r.(*wire.RRSIG); !ok || !touched[setName(sig.Hdr.Name, sig.TypeCovered)] {
				left = append(left, r)
			}
		}
		return left
	}
	out.Answer, out.Ns, out.Extra = unsigned(out.Answer), unsigned(out.Ns), unsigned(out.Extra)
	if answers(m, qtype) && !answers(out, qtype) {
		out.Rcode, out.Answer, out.Ns, out.Extra = wire.RcodeServerFailure, nil, nil, nil
	}
	return out, len(touched) > 0
}

func setName(owner string, rtype uint16) string { return fmt.Sprint(strings.ToLower(owner), rtype) }

// twinRecord returns what may stay of r, or nil, and notes the set of records that loses something.
func twinRecord(r wire.RR, touched map[string]bool) wire.RR {
	out := func(ip []byte) bool {
		addr, _ := netip.AddrFromSlice(ip)
		_, withheld := twinFind(vpn, addr.Unmap())
		if withheld {
			touched[setName(r.Header().Name, r.Header().Rrtype)] = true
		}
		return withheld
	}
	switch r := r.(type) {
	case *wire.A:
		if out(r.A) {
			return nil
		}
	case *wire.AAAA:
		if out(r.AAAA) {
			return nil
		}
	case *wire.SVCB:
		twinHints(r, out)
	case *wire.HTTPS:
		twinHints(&r.SVCB, out)
	}
	return r
}

func twinHints(r *wire.SVCB, out func([]byte) bool) {
	lost := map[wire.SVCBKey]bool{}
	var left []wire.SVCBKeyValue
	for _, v := range r.Value {
		switch hint := v.(type) {
		case *wire.SVCBIPv4Hint:
			clean := &wire.SVCBIPv4Hint{}
			for _, ip := range hint.Hint {
				if !out(ip) {
					clean.Hint = append(clean.Hint, ip)
				}
			}
			if v = clean; len(clean.Hint) == 0 {
				lost[v.Key()] = true
			}
		case *wire.SVCBIPv6Hint:
			clean := &wire.SVCBIPv6Hint{}
			for _, ip := range hint.Hint {
				if !out(ip) {
					clean.Hint = append(clean.Hint, ip)
				}
			}
			if v = clean; len(clean.Hint) == 0 {
				lost[v.Key()] = true
			}
		}
		if !lost[v.Key()] {
			left = append(left, v)
		}
	}
	r.Value = nil
	for _, v := range left {
		if mandatory, ok := v.(*wire.SVCBMandatory); ok && len(lost) > 0 {
			keys := &wire.SVCBMandatory{}
			for _, k := range mandatory.Code {
				if !lost[k] {
					keys.Code = append(keys.Code, k)
				}
			}
			if v = keys; len(keys.Code) == 0 {
				continue
			}
		}
		r.Value = append(r.Value, v)
	}
}

// remembersCluster returns a server that remembers the cluster's answer to the packed query msg: addresses 10.130.0.x.
func remembersCluster(t testing.TB, records int) (s *Server, msg []byte) {
	t.Helper()
	s = NewServer(Options{})
	const name = "echo.default.svc.cluster.local."
	m := withEDNS(name, wire.TypeA)
	msg = pack(t, m)
	q, v := parseQuery(msg)
	if v != verdictAsk {
		t.Fatal(v)
	}
	response := new(wire.Msg).SetReply(m)
	for i := range records {
		response.Answer = append(response.Answer, rr(t, fmt.Sprintf("%s 3600 IN A 10.130.0.%d", name, i+1)))
	}
	a, err := s.clusterAnswer(s.state.Load(), heard(t, response), &q, name, name)
	if err != nil {
		t.Fatal(err)
	}
	a.life = time.Hour
	s.state.Load().clusterCache.put(string(q.appendKey(nil)), a)
	return s, msg
}

// elsewhere are prefixes around the ones the tests use.
func elsewhere(n int) []Withheld {
	var out []Withheld
	for i := range n {
		out = append(out, Withheld{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 131, byte(i), 0}), 24), "OpenVPN on tun0"})
	}
	return out
}

func TestWithholdingNothingDoesNotAllocate(t *testing.T) {
	for _, prefixes := range []int{0, 100} {
		s, msg := remembersCluster(t, 2)
		s.Set(Config{Withheld: elsewhere(prefixes)})
		out, now := make([]byte, 0, usualBuffer), time.Now()
		if n := testing.AllocsPerRun(100, func() { s.quick(out, msg, false, now) }); n != 0 {
			t.Errorf("%v allocations per reply from memory with %d prefixes withheld", n, prefixes)
		}
	}
}

// BenchmarkWithhold is the work per cached query of the cluster's, two addresses, with the filter in its way.
func BenchmarkWithhold(b *testing.B) {
	for _, bb := range []struct {
		name     string
		withheld []Withheld
	}{
		{"nothing", nil},
		{"100-prefixes-elsewhere", elsewhere(100)},
		{"one-of-two-addresses", append(elsewhere(100), Withheld{netip.MustParsePrefix("10.130.0.1/32"), "OpenVPN on tun0"})},
		{"both-addresses", append(elsewhere(100), Withheld{netip.MustParsePrefix("10.130.0.0/16"), "OpenVPN on tun0"})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s, msg := remembersCluster(b, 2)
			s.Set(Config{Withheld: bb.withheld})
			out, now := make([]byte, 0, usualBuffer), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				if reply, _, _ := s.quick(out, msg, false, now); reply == nil {
					b.Fatal("not from memory")
				}
			}
		})
	}
}
