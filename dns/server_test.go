package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	wire "github.com/miekg/dns"
)

// clusterZone is what the fake cluster knows.
func clusterZone(t testing.TB) func(*wire.Msg, bool) *wire.Msg {
	records := []string{
		"echo.default.svc.cluster.local. 5 IN A 10.130.0.7",
		"echo.other.svc.cluster.local. 5 IN A 10.130.0.8",
		"_http._tcp.echo.default.svc.cluster.local. 5 IN SRV 0 100 80 echo.default.svc.cluster.local.",
		"alias.default.svc.cluster.local. 5 IN CNAME echo.other.svc.cluster.local.",
		"loop.default.svc.cluster.local. 5 IN A 127.0.0.1",
		"loop.default.svc.cluster.local. 5 IN AAAA ::1",
		"mixed.default.svc.cluster.local. 5 IN A 169.254.169.254",
		"mixed.default.svc.cluster.local. 5 IN A 10.130.0.9",
		"7.0.130.10.in-addr.arpa. 5 IN PTR echo.default.svc.cluster.local.",
		"db.corp.internal. 300 IN A 10.130.0.10",
	}
	return zone(t, records...)
}

// upstreamZone is what the host's resolvers know.
func upstreamZone(t testing.TB) func(*wire.Msg, bool) *wire.Msg {
	return zone(t, "www.example.com. 300 IN A 192.0.2.1", "intranet. 300 IN A 192.0.2.2", "host.default. 300 IN A 192.0.2.3")
}

func addresses(m *wire.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *wire.A:
			out = append(out, rr.A.String())
		case *wire.AAAA:
			out = append(out, rr.AAAA.String())
		}
	}
	return strings.Join(out, " ")
}

func TestAnswers(t *testing.T) {
	gateway, upstream := startFake(t, clusterZone(t)), startFake(t, upstreamZone(t))
	cfg := connected(gateway, upstream)
	cfg.IncludeSuffixes = []string{"corp.internal"}
	cfg.Connection = "lab"
	cfg.Reverse = []netip.Prefix{netip.MustParsePrefix("10.130.0.0/15")}
	r := startResolver(t, cfg, Options{})
	for _, tt := range []struct {
		name  string
		qtype uint16
		rcode int
		want  string
	}{
		{"echo.default.svc.cluster.local", wire.TypeA, wire.RcodeSuccess, "10.130.0.7"},
		{"EcHo.DeFault.svc", wire.TypeA, wire.RcodeSuccess, "10.130.0.7"},
		{"echo.default", wire.TypeA, wire.RcodeSuccess, "10.130.0.7"},
		{"echo.other.svc", wire.TypeA, wire.RcodeSuccess, "10.130.0.8"},
		{"echo", wire.TypeA, wire.RcodeSuccess, "10.130.0.7"},
		{"echo", wire.TypeAAAA, wire.RcodeSuccess, ""},
		{"alias", wire.TypeA, wire.RcodeSuccess, "10.130.0.8"},
		{"echo.lab.culvert.internal", wire.TypeA, wire.RcodeSuccess, "10.130.0.7"},
		{"intranet", wire.TypeA, wire.RcodeSuccess, "192.0.2.2"},
		{"host.default", wire.TypeA, wire.RcodeSuccess, "192.0.2.3"},
		{"nobody", wire.TypeA, wire.RcodeNameError, ""},
		{"nobody.default.svc", wire.TypeA, wire.RcodeNameError, ""},
		{"db.corp.internal", wire.TypeA, wire.RcodeSuccess, "10.130.0.10"},
		{"www.example.com", wire.TypeA, wire.RcodeSuccess, "192.0.2.1"},
		{"www.example.com", wire.TypeTXT, wire.RcodeSuccess, ""},
		{"gone.example.com", wire.TypeA, wire.RcodeNameError, ""},
		{"wpad.default.svc.cluster.local", wire.TypeA, wire.RcodeNameError, ""},
	} {
		for _, network := range []string{"udp", "tcp", "udp"} { // the last from memory
			q := question(tt.name, tt.qtype)
			m := r.ask(network, q)
			if m.Rcode != tt.rcode || addresses(m) != tt.want {
				t.Errorf("%s %s %s: %s %q, want %s %q", tt.name, wire.TypeToString[tt.qtype], network,
					wire.RcodeToString[m.Rcode], addresses(m), wire.RcodeToString[tt.rcode], tt.want)
			}
			if m.Question[0] != q.Question[0] {
				t.Errorf("%s: question came back as %v", tt.name, m.Question[0])
			}
			if len(m.Answer) > 0 && m.Answer[0].Header().Name != q.Question[0].Name {
				t.Errorf("%s: answer is about %s", tt.name, m.Answer[0].Header().Name)
			}
			if m.IsEdns0() != nil {
				t.Errorf("%s: OPT record without being asked", tt.name)
			}
		}
	}
	if ptr := r.lookup("7.0.130.10.in-addr.arpa", wire.TypePTR); len(ptr.Answer) != 1 {
		t.Errorf("PTR: %v", ptr)
	}
	srv := r.lookup("_http._tcp.echo.default", wire.TypeSRV)
	if len(srv.Answer) != 1 || srv.Answer[0].(*wire.SRV).Target != "echo.default.svc.cluster.local." {
		t.Errorf("SRV: %v", srv)
	}
}

// Go's own resolver, which compares owner names and follows aliases itself.
func TestGoResolver(t *testing.T) {
	gateway, upstream := startFake(t, clusterZone(t)), startFake(t, upstreamZone(t))
	cfg := connected(gateway, upstream)
	cfg.Reverse = []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16")}
	r := startResolver(t, cfg, Options{})
	std := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, r.addr)
	}}
	for name, want := range map[string]string{
		"echo.": "10.130.0.7", "EcHo.default.": "10.130.0.7", "alias.": "10.130.0.8", "echo.default.svc.cluster.local.": "10.130.0.7",
		"www.example.com.": "192.0.2.1", "intranet.": "192.0.2.2",
	} {
		if got, err := std.LookupHost(t.Context(), name); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, srv, err := std.LookupSRV(t.Context(), "http", "tcp", "echo.default."); err != nil || len(srv) != 1 || srv[0].Port != 80 {
		t.Errorf("SRV: %v, %v", srv, err)
	}
	if got, err := std.LookupAddr(t.Context(), "10.130.0.7"); err != nil || len(got) != 1 || got[0] != "echo.default.svc.cluster.local." {
		t.Errorf("PTR: %v, %v", got, err)
	}
	var dnsErr *net.DNSError
	if _, err := std.LookupHost(t.Context(), "nobody."); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound {
		t.Errorf("a name nobody has: %v", err)
	}
}

func TestIPv6Sockets(t *testing.T) {
	conn, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Skipf("NOT RUN: THE RESOLVER OVER IPV6, FOR WANT OF IT ON LOOPBACK: %v", err)
	}
	s := NewServer(Options{UDP: []net.PacketConn{conn}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	m, _, err := new(wire.Client).Exchange(question("echo", wire.TypeA), conn.LocalAddr().String())
	if err != nil || m.Rcode != wire.RcodeServerFailure {
		t.Errorf("%v, %v", m, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestEqualQuestionsAreAskedOnceAndRemembered(t *testing.T) {
	gateway := startFake(t, clusterZone(t))
	r := startResolver(t, connected(gateway), Options{})
	for i := range 20 {
		r.lookup([]string{"echo", "ECHO"}[i%2], wire.TypeA)
	}
	if n := gateway.queries.Load(); n != 1 {
		t.Errorf("the cluster was asked %d times", n)
	}
	stats := r.Stats()
	if stats.Queries != 20 || stats.Cached != 19 || stats.Cluster != 1 {
		t.Errorf("stats: %+v", stats)
	}
	cfg := connected(gateway)
	cfg.Generation++
	r.Set(cfg)
	r.lookup("echo", wire.TypeA)
	if n := gateway.queries.Load(); n != 2 {
		t.Errorf("after a change of generation the cluster was asked %d times", n)
	}
}

func TestLoopbackAnswersOfTheClusterAreDropped(t *testing.T) {
	gateway := startFake(t, clusterZone(t))
	r := startResolver(t, connected(gateway), Options{Own: func(a netip.Addr) bool { return a == netip.MustParseAddr("10.130.0.8") }})
	for name, want := range map[string]string{"loop": "", "mixed": "10.130.0.9", "echo.other.svc": ""} {
		q := question(name, wire.TypeA)
		q.SetEdns0(1232, false)
		m := r.ask("udp", q)
		if m.Rcode != wire.RcodeSuccess || addresses(m) != want || extendedError(m) != wire.ExtendedErrorCodeBlocked {
			t.Errorf("%s: %v", name, m)
		}
	}
	if n := r.Stats().Blocked; n != 3 {
		t.Errorf("blocked %d", n)
	}
}

func extendedError(m *wire.Msg) uint16 {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*wire.EDNS0_EDE); ok {
				return ede.InfoCode
			}
		}
	}
	return 0xFFFF
}

func TestTunnelDown(t *testing.T) {
	gateway, upstream := startFake(t, clusterZone(t)), startFake(t, upstreamZone(t))
	cfg := connected(gateway, upstream)
	cfg.Up = false
	r := startResolver(t, cfg, Options{})
	for name, rcode := range map[string]int{
		"echo.default.svc.cluster.local": wire.RcodeServerFailure,
		"echo":                           wire.RcodeServerFailure, // unknown outside, maybe known inside
		"intranet":                       wire.RcodeSuccess,
		"www.example.com":                wire.RcodeSuccess,
		"gone.example.com":               wire.RcodeNameError,
	} {
		q := question(name, wire.TypeA)
		q.SetEdns0(1232, false)
		m := r.ask("udp", q)
		if m.Rcode != rcode {
			t.Errorf("%s: %s", name, wire.RcodeToString[m.Rcode])
		}
		if rcode == wire.RcodeServerFailure && extendedError(m) != wire.ExtendedErrorCodeNoReachableAuthority {
			t.Errorf("%s: extended error %d", name, extendedError(m))
		}
	}
	if n := gateway.queries.Load(); n != 0 {
		t.Errorf("the gateway was asked %d times", n)
	}
	cfg.Up = true
	r.Set(cfg)
	if m := r.lookup("echo", wire.TypeA); addresses(m) != "10.130.0.7" {
		t.Errorf("tunnel up again: %v", m)
	}
}
