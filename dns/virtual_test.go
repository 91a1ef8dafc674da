package dns

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// testPool leases the addresses of 211.55.48.0/20 in turn, at most limit of them.
type testPool struct {
	mu     sync.Mutex
	limit  int
	next   netip.Addr
	vips   map[netip.Addr]netip.Addr
	reals  map[netip.Addr]netip.Addr
	leases int             // calls of Lease
	names  map[string]bool // in them
}

var errTestPool = errors.New("every virtual address is in use")

func newTestPool(limit int) *testPool {
	return &testPool{limit: limit, next: netip.MustParseAddr("211.55.48.1"), vips: map[netip.Addr]netip.Addr{}, reals: map[netip.Addr]netip.Addr{}, names: map[string]bool{}}
}

func (p *testPool) Lease(real netip.Addr, name string) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leases++
	p.names[name] = true
	if vip, ok := p.vips[real]; ok {
		return vip, nil
	}
	if len(p.vips) >= p.limit {
		return netip.Addr{}, errTestPool
	}
	vip := p.next
	p.next = vip.Next()
	p.vips[real], p.reals[vip] = vip, real
	return vip, nil
}

func (p *testPool) Real(vip netip.Addr) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	real, ok := p.reals[vip]
	return real, ok
}

// asked returns how often a lease was asked for so far.
func (p *testPool) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leases
}

// resize makes limit the size of the pool.
func (p *testPool) resize(limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
}

// forget takes all addresses back and hands out others from now on.
func (p *testPool) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.vips)
	clear(p.reals)
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// hiding is what the tests configure: all of 10.132.0.0/16 and a part of 10.130.0.0/16 hidden behind twins, the large
// 10.64.0.0/10 and loopback behind the pool, fd00:132::/48 without a twin of its own.
func hiding(cfg Config) Config {
	cfg.Twins = []Twin{
		{Real: netip.MustParsePrefix("10.132.0.0/16"), Virtual: netip.MustParsePrefix("246.132.0.0/16")},
		{Real: netip.MustParsePrefix("10.130.0.0/16"), Virtual: netip.MustParsePrefix("246.130.0.0/16")},
		{Real: netip.MustParsePrefix("10.64.0.0/10"), Pooled: true},
		{Real: netip.MustParsePrefix("127.0.0.0/8"), Pooled: true},
		{Real: netip.MustParsePrefix("fd00:130::/52"), Virtual: netip.MustParsePrefix("fd99:0:0:a000::/52")},
	}
	cfg.Hidden = prefixes("10.132.0.0/16", "10.130.64.0/18", "10.64.0.0/10", "127.0.0.0/8", "fd00:130::/52", "fd00:132::/48")
	cfg.VirtualSubnets = prefixes("246.0.0.0/8", "211.55.48.0/20", "fd99::/48")
	cfg.OthersVirtual = prefixes("248.132.0.0/16")
	cfg.Pools = prefixes("211.55.48.0/20")
	cfg.Withheld = []Withheld{
		{netip.MustParsePrefix("10.132.0.0/16"), "OpenVPN on tun0"}, // hidden first
		{netip.MustParsePrefix("10.140.0.0/16"), "OpenVPN on tun0"},
		{netip.MustParsePrefix("fd00:132::/48"), "OpenVPN on tun0"},
	}
	return cfg
}

func hidingZone(t testing.TB) func(*wire.Msg, bool) *wire.Msg {
	return zone(t,
		"direct.default.svc.cluster.local. 5 IN A 10.132.4.7",
		"direct.default.svc.cluster.local. 5 IN AAAA fd00:130::7",
		"slice.default.svc.cluster.local. 5 IN A 10.130.64.1",
		"slice.default.svc.cluster.local. 5 IN A 10.130.0.1",
		"pooled.default.svc.cluster.local. 5 IN A 10.64.0.1",
		"pooled.default.svc.cluster.local. 5 IN A 10.64.0.2",
		"third.default.svc.cluster.local. 5 IN A 10.64.0.3",
		"mixed.default.svc.cluster.local. 5 IN A 10.64.0.4",
		"mixed.default.svc.cluster.local. 5 IN A 10.132.0.4",
		"mixed.default.svc.cluster.local. 5 IN A 10.140.0.4",
		"alias.default.svc.cluster.local. 5 IN CNAME middle.default.svc.cluster.local.",
		"middle.default.svc.cluster.local. 5 IN CNAME direct.default.svc.cluster.local.",
		"v6.default.svc.cluster.local. 5 IN AAAA fd00:132::1",
		"mapped.default.svc.cluster.local. 5 IN AAAA ::ffff:10.132.4.8",
		"forged.default.svc.cluster.local. 5 IN A 246.132.4.7",
		"forged.default.svc.cluster.local. 5 IN A 248.132.4.7",
		"forged.default.svc.cluster.local. 5 IN A 10.150.0.1",
		"lo.default.svc.cluster.local. 5 IN A 127.0.0.5",
		"lo6.default.svc.cluster.local. 5 IN AAAA ::1",
		"native.default.svc.cluster.local. 5 IN A 10.150.0.1",
		"7.4.132.10.in-addr.arpa. 5 IN PTR direct.default.svc.cluster.local.",
		"1.0.64.10.in-addr.arpa. 5 IN PTR pooled.default.svc.cluster.local.",
	)
}

// hidingResolver is a resolver for hidingZone with two addresses in its pool; the host's resolvers name a hidden one.
func hidingResolver(t testing.TB, handle func(*wire.Msg, bool) *wire.Msg) (*resolver, *fake, Config, *testPool) {
	gateway := startFake(t, handle)
	upstream := startFake(t, zone(t, "www.example.com. 300 IN A 10.132.64.99"))
	cfg := hiding(connected(gateway, upstream))
	cfg.Reverse = prefixes("10.132.0.0/16", "10.64.0.0/10")
	pool := newTestPool(2)
	return startResolver(t, cfg, Options{Pool: pool}), gateway, cfg, pool
}

const usedUp = "every virtual address is in use; see `culvert status` and cluster.virtualIPSubnet"

func TestHiddenAddressesAreAnsweredWithVirtualOnes(t *testing.T) {
	r, _, _, pool := hidingResolver(t, hidingZone(t))
	for _, tt := range []struct {
		situation string
		name      string
		qtype     uint16
		rcode     int
		want      string
		texts     []string // of the extended errors
	}{
		{"a twin", "direct.default.svc.cluster.local", wire.TypeA, wire.RcodeSuccess, "246.132.4.7", nil},
		{"a short name", "direct", wire.TypeA, wire.RcodeSuccess, "246.132.4.7", nil},
		{"IPv6", "direct", wire.TypeAAAA, wire.RcodeSuccess, "fd99:0:0:a000::7", nil},
		{"two aliases", "alias", wire.TypeA, wire.RcodeSuccess, "246.132.4.7", nil},
		{"only a part is hidden", "slice", wire.TypeA, wire.RcodeSuccess, "246.130.64.1 10.130.0.1", nil},
		{"pooled", "pooled", wire.TypeA, wire.RcodeSuccess, "211.55.48.1 211.55.48.2", nil},
		{"the pool is used up", "third", wire.TypeA, wire.RcodeServerFailure, "", []string{usedUp}},
		{"some are left to others, one has no address of the pool", "mixed", wire.TypeA, wire.RcodeSuccess, "246.132.0.4",
			[]string{usedUp, "10.140.0.4 is left to OpenVPN on tun0; see `culvert why mixed`"}},
		{"still leased", "pooled", wire.TypeA, wire.RcodeSuccess, "211.55.48.1 211.55.48.2", nil},
		{"IPv6 without a twin is withheld", "v6", wire.TypeAAAA, wire.RcodeServerFailure, "",
			[]string{"fd00:132::1 is left to OpenVPN on tun0; see `culvert why v6`"}},
		{"IPv4 mapped into IPv6", "mapped", wire.TypeAAAA, wire.RcodeSuccess, "246.132.4.8", nil},
		{"the cluster names a virtual address", "forged", wire.TypeA, wire.RcodeSuccess, "10.150.0.1",
			[]string{"the cluster named 246.132.4.7, which cannot be one of its addresses"}},
		{"loopback that nothing stands for", "lo6", wire.TypeAAAA, wire.RcodeSuccess, "",
			[]string{"the cluster named ::1, which cannot be one of its addresses"}},
		{"not hidden", "native", wire.TypeA, wire.RcodeSuccess, "10.150.0.1", nil},
		{"the host's own resolvers", "www.example.com", wire.TypeA, wire.RcodeSuccess, "10.132.64.99", nil},
	} {
		for _, network := range []string{"udp", "tcp"} { // the second from memory
			m := r.ask(network, withEDNS(tt.name, tt.qtype))
			if m.Rcode != tt.rcode || addresses(m) != tt.want {
				t.Errorf("%s (%s): %s %q", tt.situation, network, wire.RcodeToString[m.Rcode], addresses(m))
			}
			var texts []string
			for _, e := range extendedErrors(m) {
				texts = append(texts, e.Text)
			}
			if !slices.Equal(texts, tt.texts) {
				t.Errorf("%s (%s): extended errors %q", tt.situation, network, texts)
			}
			if plain := r.ask(network, question(tt.name, tt.qtype)); plain.Rcode != tt.rcode || addresses(plain) != tt.want || plain.IsEdns0() != nil {
				t.Errorf("%s (%s), without EDNS: %v", tt.situation, network, plain)
			}
		}
	}
	if s := r.Stats(); s.Virtual == 0 || s.NoLease == 0 || s.Withheld == 0 {
		t.Errorf("not counted: %+v", s)
	}
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if want := []string{"mixed", "pooled", "third"}; !slices.Equal(slices.Sorted(maps.Keys(pool.names)), fullNames(want...)) {
		t.Errorf("leased for %v", pool.names)
	}
}

// fullNames are the names of services in the connected namespace.
func fullNames(names ...string) (full []string) {
	for _, name := range names {
		full = append(full, name+".default.svc.cluster.local.")
	}
	return full
}

// underRules asks the rules of cfg for what a client that asked q gets of m as the cluster's answer.
func underRules(t testing.TB, cfg Config, pool Pool, q, m *wire.Msg) *wire.Msg {
	t.Helper()
	query, v := parseQuery(pack(t, q))
	if v != verdictAsk {
		t.Fatal(v)
	}
	s := NewServer(Options{Pool: pool})
	s.Set(cfg)
	name, st := q.Question[0].Name, s.state.Load()
	a, err := s.clusterAnswer(st, heard(t, m), &query, name, name)
	if err != nil {
		t.Fatal(err)
	}
	out := new(wire.Msg)
	if err := out.Unpack(appendReply(nil, &query, st.outward.told(&query, a), a.born, 65535)); err != nil {
		t.Fatalf("not valid: %v", err)
	}
	return out
}

func records(t testing.TB, texts []string) (out []wire.RR) {
	for _, s := range texts {
		out = append(out, rr(t, s))
	}
	return out
}

func TestVirtualAddressesInEveryRecord(t *testing.T) {
	const sig = " 8 3 5 20300101000000 20200101000000 1 cluster.local. AAAA"
	for _, tt := range []struct {
		situation                string
		qtype                    uint16
		answer, ns, extra        []string
		rcode                    int
		wantAnswer, wantNs, want []string
		authentic                bool
	}{
		{"A", wire.TypeA, []string{"x.cluster.local. 5 IN A 10.132.255.255"}, nil, nil, 0, []string{"x.cluster.local. 5 IN A 246.132.255.255"}, nil, nil, false},
		{"AAAA", wire.TypeAAAA, []string{"x.cluster.local. 5 IN AAAA fd00:130:0:fff::ffff"}, nil, nil, 0, []string{"x.cluster.local. 5 IN AAAA fd99:0:0:afff::ffff"}, nil, nil, false},
		{"glue of SRV", wire.TypeSRV,
			[]string{"x.cluster.local. 5 IN SRV 0 1 80 a.cluster.local."}, nil,
			[]string{"a.cluster.local. 5 IN A 10.132.0.1", "b.cluster.local. 5 IN A 10.150.0.1"}, 0,
			[]string{"x.cluster.local. 5 IN SRV 0 1 80 a.cluster.local."}, nil,
			[]string{"a.cluster.local. 5 IN A 246.132.0.1", "b.cluster.local. 5 IN A 10.150.0.1"}, false},
		{"glue of MX", wire.TypeMX,
			[]string{"x.cluster.local. 5 IN MX 10 a.cluster.local."}, nil, []string{"a.cluster.local. 5 IN AAAA fd00:130::1"}, 0,
			[]string{"x.cluster.local. 5 IN MX 10 a.cluster.local."}, nil, []string{"a.cluster.local. 5 IN AAAA fd99:0:0:a000::1"}, false},
		{"glue of NS in a referral, one left to others", wire.TypeA, nil,
			[]string{"cluster.local. 3 IN NS a.cluster.local."}, []string{"a.cluster.local. 3 IN A 10.132.0.1", "a.cluster.local. 3 IN A 10.140.0.1"}, 0,
			nil, []string{"cluster.local. 3 IN NS a.cluster.local."}, []string{"a.cluster.local. 3 IN A 246.132.0.1"}, false},
		{"hints", wire.TypeHTTPS,
			[]string{`x.cluster.local. 5 IN HTTPS 1 . mandatory="ipv4hint" alpn="h2" ipv4hint="10.132.0.1,10.150.0.1,10.140.0.1" ipv6hint="fd00:130::1"`}, nil, nil, 0,
			[]string{`x.cluster.local. 5 IN HTTPS 1 . mandatory="ipv4hint" alpn="h2" ipv4hint="246.132.0.1,10.150.0.1" ipv6hint="fd99:0:0:a000::1"`}, nil, nil, false},
		{"a hint without an address of the pool", wire.TypeSVCB,
			[]string{`x.cluster.local. 5 IN SVCB 1 . mandatory="alpn,ipv4hint" alpn="h2" ipv4hint="10.64.0.1"`}, nil, nil, 0,
			[]string{`x.cluster.local. 5 IN SVCB 1 . mandatory="alpn" alpn="h2"`}, nil, nil, false},
		{"signatures of changed sets", wire.TypeA,
			[]string{"x.cluster.local. 5 IN A 10.132.0.1", "X.cluster.local. 5 IN RRSIG A" + sig, "x.cluster.local. 5 IN RRSIG MX" + sig}, nil,
			[]string{"y.cluster.local. 5 IN A 10.150.0.2", "y.cluster.local. 5 IN RRSIG A" + sig}, 0,
			[]string{"x.cluster.local. 5 IN A 246.132.0.1", "x.cluster.local. 5 IN RRSIG MX" + sig}, nil,
			[]string{"y.cluster.local. 5 IN A 10.150.0.2", "y.cluster.local. 5 IN RRSIG A" + sig}, false},
		{"nothing hidden", wire.TypeA,
			[]string{"x.cluster.local. 5 IN A 10.150.0.1", "x.cluster.local. 5 IN RRSIG A" + sig}, nil, nil, 0,
			[]string{"x.cluster.local. 5 IN A 10.150.0.1", "x.cluster.local. 5 IN RRSIG A" + sig}, nil, nil, true},
		{"a signature is no answer", wire.TypeANY,
			[]string{"x.cluster.local. 5 IN A 10.64.0.1", "x.cluster.local. 5 IN RRSIG A" + sig}, nil, nil, wire.RcodeServerFailure, nil, nil, nil, false},
	} {
		q := withEDNS("x.cluster.local", tt.qtype)
		m := new(wire.Msg).SetReply(q)
		m.AuthenticatedData = true
		m.Answer, m.Ns, m.Extra = records(t, tt.answer), records(t, tt.ns), records(t, tt.extra)
		out := underRules(t, hiding(Config{}), nil, q, m)
		extra := slices.DeleteFunc(slices.Clone(out.Extra), func(r wire.RR) bool { return r.Header().Rrtype == wire.TypeOPT })
		if out.Rcode != tt.rcode || !sameText(t, out.Answer, tt.wantAnswer) || !sameText(t, out.Ns, tt.wantNs) || !sameText(t, extra, tt.want) ||
			out.AuthenticatedData != tt.authentic || len(out.Extra) != len(extra)+1 {
			t.Errorf("%s: %v", tt.situation, out)
		}
	}
}

// Clients forget a virtual address well before anybody else can get it. The cluster's answers are capped as a whole
// already; this must hold whatever that cap is.
func TestVirtualAddressesAreNotRememberedForLong(t *testing.T) {
	m := new(wire.Msg)
	m.Answer = records(t, []string{"x. 300 IN A 10.132.0.1", "x. 300 IN A 10.150.0.1", "y. 300 IN A 10.150.0.2", "x. 300 IN TXT t", "x. 7 IN AAAA fd00:132::1"})
	changeAddresses(m, func(addr netip.Addr) netip.Addr {
		switch addr.String() {
		case "10.132.0.1":
			return netip.MustParseAddr("246.132.0.1")
		case "fd00:132::1":
			return netip.MustParseAddr("fd99::1")
		}
		return addr
	})
	var ttls []uint32
	for _, r := range m.Answer {
		ttls = append(ttls, r.Header().Ttl)
	}
	if !slices.Equal(ttls, []uint32{30, 30, 300, 300, 7}) {
		t.Errorf("TTLs %v", ttls)
	}
	if VirtualTTL > 30*time.Second || VirtualTTL >= 2*time.Minute {
		t.Errorf("VirtualTTL is %v", VirtualTTL)
	}
}

func TestReverseNamesOfVirtualAddresses(t *testing.T) {
	r, gateway, _, pool := hidingResolver(t, hidingZone(t))
	r.lookup("pooled", wire.TypeA) // leases 211.55.48.1
	pool.resize(3)
	if vip, err := pool.Lease(netip.MustParseAddr("10.200.0.1"), "x."); err != nil || vip.String() != "211.55.48.3" {
		t.Fatal(vip, err)
	}
	for _, tt := range []struct {
		situation, name string
		rcode           int
		want            string // of the PTR record
		asks            bool
	}{
		{"a twin", "7.4.132.246.in-addr.arpa.", wire.RcodeSuccess, "direct.default.svc.cluster.local.", true},
		{"its real address", "7.4.132.10.in-addr.arpa.", wire.RcodeSuccess, "direct.default.svc.cluster.local.", true},
		{"a twin without a name", "8.4.132.246.in-addr.arpa.", wire.RcodeNameError, "", true},
		{"of the pool", "1.48.55.211.in-addr.arpa.", wire.RcodeSuccess, "pooled.default.svc.cluster.local.", true},
		{"of the pool, without a name", "2.48.55.211.in-addr.arpa.", wire.RcodeNameError, "", true},
		{"of the pool, not leased", "9.48.55.211.in-addr.arpa.", wire.RcodeNameError, "", false},
		{"of the pool, leased for what has no twin any more", "3.48.55.211.in-addr.arpa.", wire.RcodeNameError, "", false},
		{"below an address", "b._dns-sd._udp.7.4.132.246.in-addr.arpa.", wire.RcodeNameError, "", false},
		{"the zone", "132.246.in-addr.arpa.", wire.RcodeSuccess, "", false},
		{"a part of the pool's zone", "48.55.211.in-addr.arpa.", wire.RcodeSuccess, "", false},
		{"odd digits", "007.4.132.246.in-addr.arpa.", wire.RcodeNameError, "", false},
	} {
		before := gateway.queries.Load()
		for _, spelling := range []string{tt.name, strings.ToUpper(tt.name)} {
			m := r.lookup(spelling, wire.TypePTR)
			got := ""
			for _, rr := range m.Answer {
				if ptr, ok := rr.(*wire.PTR); ok && strings.EqualFold(ptr.Hdr.Name, spelling) {
					got += ptr.Ptr
				}
			}
			if m.Rcode != tt.rcode || got != tt.want || len(m.Answer) > 1 {
				t.Errorf("%s: %v", tt.situation, m)
			}
			for _, soa := range m.Ns {
				if !wire.IsSubDomain(soa.Header().Name, strings.ToLower(tt.name)) && !wire.IsSubDomain(soa.Header().Name, spelling) {
					t.Errorf("%s: the SOA record %v is not above the name", tt.situation, soa)
				}
			}
		}
		if asked := gateway.queries.Load() > before; asked != tt.asks {
			t.Errorf("%s: the cluster was asked: %t", tt.situation, asked)
		}
	}
}

func TestReverseZonesOfVirtualAddressesAreFewAndOurs(t *testing.T) {
	cfg := Config{
		Twins: []Twin{
			{Real: netip.MustParsePrefix("10.128.0.0/12"), Virtual: netip.MustParsePrefix("246.128.0.0/12")},
			{Real: netip.MustParsePrefix("10.0.0.0/9"), Virtual: netip.MustParsePrefix("246.0.0.0/9"), Pooled: true},
			{Real: netip.MustParsePrefix("fd00:130::/52"), Virtual: netip.MustParsePrefix("fd99:0:0:a000::/52")},
		},
		Pools: prefixes("247.0.0.0/8", "211.55.48.0/20"),
	}
	domains := cfg.Domains()
	for _, want := range []string{"128.246.in-addr.arpa", "143.246.in-addr.arpa", "247.in-addr.arpa", "48.55.211.in-addr.arpa", "63.55.211.in-addr.arpa", "a.0.0.0.0.0.0.0.0.9.9.d.f.ip6.arpa"} {
		if !slices.Contains(domains, want) {
			t.Errorf("no %s in %v", want, domains)
		}
	}
	if len(domains) != 2+16+1+16+1 {
		t.Errorf("%d domains: %v", len(domains), domains)
	}
	for _, domain := range domains[:len(domains)-2] {
		if d := Route(cfg, "1."+domain, wire.TypePTR); d.Source == SourceUpstream {
			t.Errorf("%s: %v", domain, d)
		}
	}
}

func TestOfTheClustersNamesOnlyRealAddressesAreBelieved(t *testing.T) {
	own := netip.MustParseAddr("10.132.9.9") // the host has an address where the cluster has its own
	q := withEDNS("x.cluster.local", wire.TypeA)
	classE := Twin{Real: netip.MustParsePrefix("246.200.0.0/16"), Virtual: netip.MustParsePrefix("247.200.0.0/16")}
	for _, tt := range []struct {
		situation, named string
		hidden           []netip.Prefix
		rcode            int
		want             string
	}{
		{"a virtual address", "246.132.0.1", nil, wire.RcodeSuccess, ""},
		{"an address that may become one", "211.55.48.77", nil, wire.RcodeSuccess, ""},
		{"a cluster in class E", "246.200.0.1", nil, wire.RcodeSuccess, "246.200.0.1"},
		{"a cluster in class E, hidden", "246.200.0.1", prefixes("246.200.0.0/16"), wire.RcodeSuccess, "247.200.0.1"},
		{"the host's own, not hidden", "10.132.9.9", nil, wire.RcodeServerFailure, ""},
		{"the host's own, hidden", "10.132.9.9", prefixes("10.132.0.0/16"), wire.RcodeSuccess, "246.132.9.9"},
		{"loopback, not hidden", "127.0.0.1", nil, wire.RcodeServerFailure, ""},
		{"loopback, hidden", "127.0.0.1", prefixes("127.0.0.0/8"), wire.RcodeSuccess, "211.55.48.1"},
		{"link-local", "169.254.169.254", prefixes("0.0.0.0/0"), wire.RcodeSuccess, ""},
	} {
		cfg := hiding(Config{})
		cfg.Twins = append(cfg.Twins, classE)
		cfg.Hidden, cfg.Withheld = tt.hidden, nil
		m := new(wire.Msg).SetReply(q)
		m.Answer = records(t, []string{"x.cluster.local. 5 IN A " + tt.named})
		query, _ := parseQuery(pack(t, q))
		events := 0
		s := NewServer(Options{Pool: newTestPool(1), Events: func(Event) { events++ }, Own: func(addr netip.Addr) bool { return addr == own }})
		s.Set(cfg)
		a, err := s.clusterAnswer(s.state.Load(), heard(t, m), &query, "x.cluster.local.", "x.cluster.local.")
		if err != nil {
			t.Fatal(err)
		}
		out := new(wire.Msg)
		if err := out.Unpack(appendReply(nil, &query, s.outgoing(&query, a), a.born, 65535)); err != nil {
			t.Fatal(err)
		}
		if out.Rcode != tt.rcode || addresses(out) != tt.want || tt.want == "" && extendedError(out) != wire.ExtendedErrorCodeBlocked {
			t.Errorf("%s: %v", tt.situation, out)
		}
		if blocked := tt.want == ""; blocked != (events == 1) || blocked != (s.Stats().Blocked == 1) {
			t.Errorf("%s: %d events, %d blocked", tt.situation, events, s.Stats().Blocked)
		}
	}
}

func TestHidingFollowsTheConfigurationAtOnce(t *testing.T) {
	r, gateway, cfg, _ := hidingResolver(t, hidingZone(t))
	check := func(situation string, change func(), asked int64, want string) {
		t.Helper()
		before := gateway.queries.Load()
		change()
		r.Set(cfg)
		for _, qname := range []string{"direct", "DIRECT"} {
			if m := r.lookup(qname, wire.TypeA); addresses(m) != want {
				t.Errorf("%s: %v", situation, m)
			}
		}
		if n := gateway.queries.Load() - before; n != asked {
			t.Errorf("%s: the cluster was asked %d times", situation, n)
		}
	}
	all := cfg.Hidden
	cfg.Withheld = nil
	check("hidden", func() {}, 1, "246.132.4.7")
	check("the VPN is gone", func() { cfg.Hidden = nil }, 0, "10.132.4.7")
	check("the VPN is back", func() { cfg.Hidden = all }, 0, "246.132.4.7")
	check("another twin", func() { cfg.Twins = slices.Clone(cfg.Twins); cfg.Twins[0].Virtual = prefixes("247.1.0.0/16")[0] }, 1, "247.1.4.7")
	check("a subnet more", func() { cfg.Twins = append(cfg.Twins, Twin{Real: prefixes("10.99.0.0/16")[0], Pooled: true}) }, 1, "247.1.4.7")
	check("another order", func() { slices.Reverse(cfg.Twins) }, 0, "247.1.4.7")
	check("another virtual subnet", func() { cfg.VirtualSubnets = prefixes("240.0.0.0/4") }, 1, "247.1.4.7")
	check("without a pool's prefix", func() { cfg.Pools = nil }, 1, "247.1.4.7")
}

func TestLeasesAreRenewedWithEveryReply(t *testing.T) {
	r, gateway, _, pool := hidingResolver(t, hidingZone(t))
	for i := range 3 {
		if m := r.lookup("pooled", wire.TypeA); addresses(m) != "211.55.48.1 211.55.48.2" {
			t.Fatalf("%v", m)
		}
		if n := pool.asked(); n < 2*(i+1) {
			t.Errorf("%d leases asked for after %d replies", n, i+1)
		}
	}
	pool.forget()
	for range 2 {
		if m := r.lookup("pooled", wire.TypeA); addresses(m) != "211.55.48.3 211.55.48.4" {
			t.Errorf("another lease: %v", m)
		}
	}
	pool.forget()
	pool.resize(1)
	if m := r.lookup("pooled", wire.TypeA); addresses(m) != "211.55.48.5" {
		t.Errorf("one of two: %v", m)
	}
	pool.resize(9)
	if m := r.lookup("pooled", wire.TypeA); addresses(m) != "211.55.48.5 211.55.48.6" {
		t.Errorf("room again: %v", m)
	}
	if n := gateway.queries.Load(); n != 1 {
		t.Errorf("the cluster was asked %d times", n)
	}
}

func TestAVirtualAnswerIsTruncatedLikeAnyOther(t *testing.T) {
	var texts []string
	for i := range 100 {
		texts = append(texts, fmt.Sprintf("big.default.svc.cluster.local. 5 IN A 10.132.0.%d", i))
	}
	r, _, _, _ := hidingResolver(t, zone(t, texts...))
	for _, size := range []uint16{0, 512, 1232} {
		q := question("big", wire.TypeA)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		m := r.ask("udp", q)
		if !m.Truncated || len(m.Answer) == 0 || len(m.Answer) == 100 || strings.Contains(addresses(m), "10.132.") {
			t.Errorf("%d bytes: %v", size, m)
		}
		if m := r.ask("tcp", q); m.Truncated || len(m.Answer) != 100 || strings.Contains(addresses(m), "10.132.") {
			t.Errorf("%v", m)
		}
	}
	q := question("big", wire.TypeA)
	q.SetEdns0(4096, false)
	if m := r.ask("udp", q); m.Truncated || len(m.Answer) != 100 {
		t.Errorf("%v", m)
	}
}

// A virtual answer ages like the one it is made from.
func TestAVirtualAnswerAges(t *testing.T) {
	q := withEDNS("x.cluster.local", wire.TypeA)
	m := new(wire.Msg).SetReply(q)
	m.Authoritative = true
	m.Answer = records(t, []string{"x.cluster.local. 20 IN A 10.132.0.1"})
	query, _ := parseQuery(pack(t, q))
	s := NewServer(Options{})
	s.Set(hiding(Config{}))
	a, err := s.clusterAnswer(s.state.Load(), heard(t, m), &query, "x.cluster.local.", "x.cluster.local.")
	if err != nil {
		t.Fatal(err)
	}
	out := new(wire.Msg)
	if err := out.Unpack(appendReply(nil, &query, s.outgoing(&query, a), a.born.Add(7*time.Second), 512)); err != nil {
		t.Fatal(err)
	}
	if !out.Authoritative || addresses(out) != "246.132.0.1" || out.Answer[0].Header().Ttl != 13 {
		t.Errorf("%v", out)
	}
}

func TestTraceOfAHiddenName(t *testing.T) {
	r, _, _, _ := hidingResolver(t, hidingZone(t))
	trace := func(name string) Question {
		t.Helper()
		tr, err := r.Trace(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(tr.Addresses, slices.Concat(tr.Lookups[0].Questions[0].Addresses, tr.Lookups[0].Questions[1].Addresses)) {
			t.Errorf("%s: %v", name, tr)
		}
		return tr.Lookups[0].Questions[0]
	}
	a := trace("slice.default.svc.cluster.local.")
	if fmt.Sprint(a.Given, a.Addresses, a.Virtual, a.Withheld) != "[10.130.64.1 10.130.0.1] [246.130.64.1 10.130.0.1] [{10.130.64.1 246.130.64.1 }] []" {
		t.Errorf("direct: %+v", a)
	}
	a = trace("pooled.")
	if fmt.Sprint(a.Given, a.Addresses, a.Virtual) != "[10.64.0.1 10.64.0.2] [211.55.48.1 211.55.48.2] [{10.64.0.1 211.55.48.1 } {10.64.0.2 211.55.48.2 }]" {
		t.Errorf("pooled: %+v", a)
	}
	a = trace("mixed.")
	want := []VirtualAddr{{Real: netip.MustParseAddr("10.64.0.4"), Error: errTestPool.Error()}, {Real: netip.MustParseAddr("10.132.0.4"), VIP: netip.MustParseAddr("246.132.0.4")}}
	if !slices.Equal(a.Virtual, want) || len(a.Given) != 3 || len(a.Addresses) != 1 || len(a.Withheld) != 1 || len(a.Errors) != 2 {
		t.Errorf("used up: %+v", a)
	}
}

// Replies follow a configuration that changes all the time, and each is right for one of them.
func TestHidingWhileTheConfigurationChanges(t *testing.T) {
	r, _, cfg, pool := hidingResolver(t, hidingZone(t))
	pool.resize(100)
	cfg.Withheld = nil
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		hidden := cfg.Hidden
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := cfg
			if i%2 == 0 {
				next.Hidden = nil
			} else {
				next.Hidden = slices.Clone(hidden)
			}
			r.Set(next)
		}
	})
	want := map[string][]string{
		"direct": {"10.132.4.7", "246.132.4.7"},
		"pooled": {"10.64.0.1 10.64.0.2", "211.55.48.1 211.55.48.2", "211.55.48.2 211.55.48.1"},
		"slice":  {"10.130.64.1 10.130.0.1", "246.130.64.1 10.130.0.1"},
	}
	var asking sync.WaitGroup
	for name, answers := range want {
		asking.Go(func() {
			c := &wire.Client{Timeout: 12 * time.Second}
			for range 200 {
				m, _, err := c.Exchange(question(name, wire.TypeA), r.addr)
				if err != nil || !slices.Contains(answers, addresses(m)) {
					t.Errorf("%s: %v %v", name, err, m)
					return
				}
			}
		})
	}
	asking.Wait()
	close(stop)
	wg.Wait()
}

// hidesCluster is remembersCluster with its addresses, 10.130.0.x, hidden behind a twin or a pool.
func hidesCluster(t testing.TB, n int, pooled bool) (s *Server, msg []byte) {
	s, msg = remembersCluster(t, n)
	a := s.state.Load().clusterCache
	twin := Twin{Real: netip.MustParsePrefix("10.130.0.0/16"), Virtual: netip.MustParsePrefix("246.130.0.0/16"), Pooled: pooled}
	s.opts.Pool = newTestPool(1 << 16)
	s.Set(Config{Twins: []Twin{twin}, Hidden: prefixes("10.130.0.0/16")})
	s.state.Load().clusterCache = a
	return s, msg
}

func TestVirtualRepliesFromMemoryDoNotAllocate(t *testing.T) {
	for _, pooled := range []bool{false, true} {
		s, msg := hidesCluster(t, 3, pooled)
		out, now := make([]byte, 0, usualBuffer), time.Now()
		m := new(wire.Msg)
		if reply, _, _ := s.quick(out, msg, false, now); m.Unpack(reply) != nil || len(m.Answer) != 3 || strings.Contains(addresses(m), "10.130.") {
			t.Fatalf("%v", m)
		}
		if n := testing.AllocsPerRun(100, func() { s.quick(out, msg, false, now) }); n != 0 {
			t.Errorf("%v allocations per reply from memory, pooled: %t", n, pooled)
		}
	}
}

// Whatever the cluster answers, clients get virtual addresses in place of the hidden ones and everything else as it
// was; and putting the real addresses back gives what the cluster said.
func FuzzVirtual(f *testing.F) {
	q := withEDNS("x.cluster.local", wire.TypeA)
	m := new(wire.Msg).SetReply(q)
	m.Answer = records(f, []string{"x.cluster.local. 5 IN CNAME y.cluster.local.", "y.cluster.local. 5 IN A 10.132.0.1", "y.cluster.local. 5 IN A 10.130.0.1"})
	m.Ns = records(f, []string{"cluster.local. 5 IN NS z.cluster.local."})
	m.Extra = records(f, []string{`z.cluster.local. 5 IN HTTPS 1 y.cluster.local. mandatory=ipv4hint ipv4hint=10.132.0.1,10.130.0.1 ipv6hint=fd00:130::1,fd00:131::1`, "z.cluster.local. 5 IN AAAA fd00:130::1"})
	f.Add(pack(f, m), wire.TypeA)
	m.SetEdns0(1232, true)
	m.Compress = true
	f.Add(pack(f, m), wire.TypeA)
	m.Answer = records(f, []string{"x.cluster.local. 5 IN A 10.132.0.1", "x.cluster.local. 5 IN RRSIG A 8 3 5 20300101000000 20200101000000 1 cluster.local. AAAA"})
	m.AuthenticatedData = true
	f.Add(pack(f, m), wire.TypeANY)
	m.Answer = records(f, []string{"x.cluster.local. 5 IN A 246.132.0.1", "x.cluster.local. 5 IN AAAA ::ffff:10.132.0.9"})
	f.Add(pack(f, m), wire.TypeAAAA)
	s := NewServer(Options{})
	s.Set(twoWay)
	st := s.state.Load()
	f.Fuzz(func(t *testing.T, response []byte, qtype uint16) {
		query, v := parseQuery(pack(t, withEDNS("x.cluster.local", qtype)))
		if v != verdictAsk || len(response) < headerBytes {
			return
		}
		m := new(wire.Msg)
		if m.Unpack(response) != nil {
			return
		}
		a, err := s.clusterAnswer(st, reply{msg: m, source: SourceCluster}, &query, "x.cluster.local.", "x.cluster.local.")
		if err != nil {
			return
		}
		before := appendReply(nil, &query, a, a.born, 1<<17)
		after := appendReply(nil, &query, st.outward.told(&query, a), a.born, 1<<17)
		given, got, want := new(wire.Msg), new(wire.Msg), new(wire.Msg)
		if given.Unpack(before) != nil {
			return
		}
		if err := got.Unpack(after); err != nil {
			t.Fatalf("%v\nbecame %x: %v", given, after, err)
		}
		want.Unpack(before)
		if touched := twinVirtual(want, true); !touched && !bytes.Equal(before, after) {
			t.Errorf("%v\nbecame\n%v", given, got)
		}
		if got.MsgHdr != want.MsgHdr || !sameRecords(got, want) {
			t.Errorf("%v\nbecame\n%v\nwant\n%v", given, got, want)
		}
		back := got.Copy()
		twinVirtual(back, false)
		if unsigned := withoutSignatures(given, got); !sameRecords(back, unsigned) {
			t.Errorf("%v\nwent and came back as\n%v", unsigned, back)
		}
	})
}

// twoWay hides some prefixes behind twins, and lets no answer name what lies there.
var twoWay = Config{
	Twins: []Twin{
		{Real: netip.MustParsePrefix("10.132.0.0/16"), Virtual: netip.MustParsePrefix("246.132.0.0/16")},
		{Real: netip.MustParsePrefix("fd00:130::/32"), Virtual: netip.MustParsePrefix("fd99:9999::/32")},
	},
	Hidden:         prefixes("10.132.0.0/16", "fd00:130::/32"),
	VirtualSubnets: prefixes("246.0.0.0/8", "fd99:9999::/32"),
}

// twinVirtual is the slow and obvious rewriter for twoWay: on the way out, or back. It reports whether it changed
// anything.
func twinVirtual(m *wire.Msg, outward bool) bool {
	touched := map[string]bool{}
	for _, rrs := range [][]wire.RR{m.Answer, m.Ns, m.Extra} {
		for _, r := range rrs {
			note := func(ip []byte) {
				if twinAddress(ip, outward) {
					touched[setName(r.Header().Name, r.Header().Rrtype)] = true
				}
			}
			switch r := r.(type) {
			case *wire.A:
				note(r.A)
			case *wire.AAAA:
				note(r.AAAA)
			case *wire.SVCB:
				eachHint(r, note)
			case *wire.HTTPS:
				eachHint(&r.SVCB, note)
			}
		}
	}
	unsigned := func(rrs []wire.RR) (left []wire.RR) {
		for _, r := range rrs {
			if sig, ok := r.(*wire.RRSIG); !ok || !touched[setName(sig.Hdr.Name, sig.TypeCovered)] {
				left = append(left, r)
			}
		}
		return left
	}
	m.Answer, m.Ns, m.Extra = unsigned(m.Answer), unsigned(m.Ns), unsigned(m.Extra)
	if len(touched) > 0 {
		m.AuthenticatedData = false
	}
	return len(touched) > 0
}

func eachHint(r *wire.SVCB, f func([]byte)) {
	for _, v := range r.Value {
		switch hint := v.(type) {
		case *wire.SVCBIPv4Hint:
			for _, ip := range hint.Hint {
				f(ip)
			}
		case *wire.SVCBIPv6Hint:
			for _, ip := range hint.Hint {
				f(ip)
			}
		}
	}
}

// twinAddress changes ip in place: 10.132.x.y to 246.132.x.y, also mapped into IPv6, and fd00:130::/32 to
// fd99:9999::/32; or back. It reports whether it did.
func twinAddress(ip []byte, outward bool) bool {
	pairs := [][2]string{
		{"\x0a\x84", "\xf6\x84"},
		{"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x84", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xf6\x84"},
		{"\xfd\x00\x01\x30", "\xfd\x99\x99\x99"},
	}
	for i, p := range pairs {
		from, to := p[0], p[1]
		if !outward {
			from, to = to, from
		}
		if (i == 0) == (len(ip) == 4) && strings.HasPrefix(string(ip), from) {
			copy(ip, to)
			return true
		}
	}
	return false
}

// withoutSignatures returns m without those signatures that are not in like.
func withoutSignatures(m, like *wire.Msg) *wire.Msg {
	text := fmt.Sprint(like)
	out := m.Copy()
	for _, rrs := range []*[]wire.RR{&out.Answer, &out.Ns, &out.Extra} {
		*rrs = slices.DeleteFunc(*rrs, func(r wire.RR) bool {
			return r.Header().Rrtype == wire.TypeRRSIG && !strings.Contains(text, r.String())
		})
	}
	return out
}

// BenchmarkVirtual is the work per cached query of the cluster's, by what becomes of its addresses.
func BenchmarkVirtual(b *testing.B) {
	for _, n := range []int{1, 3, 100} {
		for _, kind := range []string{"native", "twin", "pool"} {
			b.Run(fmt.Sprintf("%s-%d", kind, n), func(b *testing.B) {
				s, msg := remembersCluster(b, n)
				if kind != "native" {
					s, msg = hidesCluster(b, n, kind == "pool")
				}
				out, now := make([]byte, 0, usualBuffer), time.Now()
				b.ReportAllocs()
				for b.Loop() {
					if reply, _, _ := s.quick(out, msg, true, now); reply == nil {
						b.Fatal("not from memory")
					}
				}
			})
		}
	}
}

// BenchmarkRewrite is the work of putting virtual addresses into an answer for the first time.
func BenchmarkRewrite(b *testing.B) {
	for _, n := range []int{1, 3, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, msg := hidesCluster(b, n, false)
			q, _ := parseQuery(msg)
			a, rules := s.remembered(&q, time.Now()), s.state.Load().outward
			b.ReportAllocs()
			for b.Loop() {
				if rules.dress(&q, a).out.counts[0] != uint16(n) {
					b.Fatal("not all there")
				}
			}
		})
	}
}

// BenchmarkVirtualEndToEnd asks over UDP, by what becomes of the address: for one name from memory, and for a new one
// each time.
func BenchmarkVirtualEndToEnd(b *testing.B) {
	address := rr(b, "x. 3600 IN A 10.132.0.7").(*wire.A).A
	gateway := startFake(b, func(q *wire.Msg, _ bool) *wire.Msg {
		m := new(wire.Msg).SetReply(q)
		m.Answer = []wire.RR{&wire.A{Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 30}, A: address}}
		return m
	})
	for _, kind := range []string{"native", "twin", "pool"} {
		cfg := connected(gateway)
		if kind != "native" {
			cfg.Twins = []Twin{{Real: netip.MustParsePrefix("10.132.0.0/16"), Virtual: netip.MustParsePrefix("246.132.0.0/16"), Pooled: kind == "pool"}}
			cfg.Hidden = prefixes("10.132.0.0/16")
		}
		r := startResolver(b, cfg, Options{Pool: newTestPool(1)})
		b.Run("cached-"+kind, func(b *testing.B) {
			load(b, r.addr, 16, func(int) string { return "echo.default.svc.cluster.local." })
		})
		b.Run("first-"+kind, func(b *testing.B) { load(b, r.addr, 1, freshName()) })
	}
}
