package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	wire "github.com/miekg/dns"
)

func TestRoute(t *testing.T) {
	cfg := Config{
		Namespace:       "default",
		Namespaces:      []string{"Team-A", "dev", "local", "default"},
		Connection:      "lab",
		IncludeSuffixes: []string{"corp.internal.", "aws"},
		Reverse: []netip.Prefix{
			netip.MustParsePrefix("10.130.0.0/15"), netip.MustParsePrefix("10.200.16.0/20"), netip.MustParsePrefix("fd00:10::/30"),
		},
		Up: true,
	}
	const none = "-"
	for _, tt := range []struct {
		situation string
		name      string
		qtype     uint16
		cluster   string // the name asked of the cluster; "" means upstream, none that nobody is asked
		fallback  bool
	}{
		{"service, whole name", "echo.default.svc.cluster.local.", wire.TypeA, "echo.default.svc.cluster.local.", false},
		{"service, mixed case", "eChO.Default.SVC.cluster.LOCAL.", wire.TypeA, "echo.default.svc.cluster.local.", false},
		{"service, not absolute", "echo.default.svc.cluster.local", wire.TypeA, "echo.default.svc.cluster.local.", false},
		{"the cluster domain itself", "cluster.local.", wire.TypeSOA, "cluster.local.", false},
		{"pod", "10-132-0-4.default.pod.cluster.local.", wire.TypeA, "10-132-0-4.default.pod.cluster.local.", false},
		{"a label that ends like the domain", "notcluster.local.", wire.TypeA, "", false},
		{"an escaped dot before the domain", `x\.cluster.local.`, wire.TypeA, "", false},
		{"an escaped backslash before the domain", `x\\.cluster.local.`, wire.TypeA, `x\\.cluster.local.`, false},

		{"service with svc", "echo.kube-system.svc.", wire.TypeA, "echo.kube-system.svc.cluster.local.", false},
		{"svc alone is a service", "svc.", wire.TypeA, "svc.default.svc.cluster.local.", true},
		{"endpoint with svc", "web-0.web.default.svc.", wire.TypeA, "web-0.web.default.svc.cluster.local.", false},

		{"connected namespace", "echo.default.", wire.TypeAAAA, "echo.default.svc.cluster.local.", true},
		{"listed namespace", "echo.team-a.", wire.TypeA, "echo.team-a.svc.cluster.local.", true},
		{"port in a namespace", "_http._tcp.echo.default.", wire.TypeSRV, "_http._tcp.echo.default.svc.cluster.local.", true},
		{"endpoint in a namespace", "web-0.web.default.", wire.TypeA, "web-0.web.default.svc.cluster.local.", true},
		{"a listed namespace that is a public TLD", "echo.dev.", wire.TypeA, "", false},
		{"a listed namespace that is mDNS's", "printer.local.", wire.TypeA, "", false},
		{"a namespace nobody listed", "echo.kube-system.", wire.TypeA, "", false},

		{"single label", "echo.", wire.TypeA, "echo.default.svc.cluster.local.", true},
		{"single label that is a public TLD", "app.", wire.TypeA, "app.default.svc.cluster.local.", true},
		{"single label named like a namespace", "default.", wire.TypeA, "default.default.svc.cluster.local.", true},
		{"a validator about a TLD", "com.", wire.TypeDS, "", false},
		{"a resolver about a TLD", "com.", wire.TypeNS, "", false},
		{"the root", ".", wire.TypeNS, "", false},
		{"localhost", "localhost.", wire.TypeA, "", false},
		{"no service's name", "_dmarc.", wire.TypeA, "", false},
		{"no service's name either", `a\.b.`, wire.TypeA, "", false},

		{"wpad", "wpad.", wire.TypeA, "", false},
		{"wpad in a namespace", "WPAD.default.", wire.TypeA, "", false},
		{"wpad with svc", "wpad.default.svc.", wire.TypeA, none, false},
		{"wpad through the search list", "wpad.default.svc.cluster.local.", wire.TypeA, none, false},

		{"alias of a whole name", "echo.default.svc.cluster.local.lab.culvert.internal.", wire.TypeA, "echo.default.svc.cluster.local.", false},
		{"alias with svc", "echo.default.svc.lab.culvert.internal.", wire.TypeA, "echo.default.svc.cluster.local.", false},
		{"alias with any namespace", "echo.kube-system.lab.culvert.internal.", wire.TypeA, "echo.kube-system.svc.cluster.local.", false},
		{"alias of a single label", "echo.lab.culvert.internal.", wire.TypeA, "echo.default.svc.cluster.local.", false},
		{"alias of another connection", "echo.prod.culvert.internal.", wire.TypeA, "", false},

		{"included suffix", "db.corp.internal.", wire.TypeMX, "db.corp.internal.", false},
		{"included suffix itself", "corp.internal.", wire.TypeA, "corp.internal.", false},
		{"a label that ends like the suffix", "xcorp.internal.", wire.TypeA, "", false},
		{"included single label", "aws.", wire.TypeA, "aws.", false},

		{"address in a reverse prefix", "7.4.131.10.in-addr.arpa.", wire.TypePTR, "7.4.131.10.in-addr.arpa.", false},
		{"address beyond it", "7.4.132.10.in-addr.arpa.", wire.TypePTR, "", false},
		{"zone in a reverse prefix", "130.10.in-addr.arpa.", wire.TypeSOA, "130.10.in-addr.arpa.", false},
		{"zone around a reverse prefix", "10.in-addr.arpa.", wire.TypeSOA, "", false},
		{"prefix between octets, inside", "1.31.200.10.in-addr.arpa.", wire.TypePTR, "1.31.200.10.in-addr.arpa.", false},
		{"prefix between octets, outside", "1.32.200.10.in-addr.arpa.", wire.TypePTR, "", false},
		{"service discovery below a zone", "lb._dns-sd._udp.0.0.130.10.in-addr.arpa.", wire.TypePTR, "lb._dns-sd._udp.0.0.130.10.in-addr.arpa.", false},
		{"classless delegation", "0/25.2.0.192.in-addr.arpa.", wire.TypePTR, "", false},
		{"no address at all", "x.in-addr.arpa.", wire.TypePTR, "", false},
		{"octet out of range", "1.1.300.10.in-addr.arpa.", wire.TypePTR, "", false},

		{"anything else", "www.example.com.", wire.TypeA, "", false},
		{"another cluster domain", "echo.default.svc.cluster.test.", wire.TypeA, "", false},
	} {
		d := Route(cfg, tt.name, tt.qtype)
		got := ""
		switch d.Source {
		case SourceCluster:
			got = d.Name
		case SourceNone:
			got = none
		}
		if got != tt.cluster || d.Fallback != tt.fallback || d.Reason == "" {
			t.Errorf("%s: %s: %v, fallback %t; want %q, fallback %t", tt.situation, tt.name, d, d.Fallback, tt.cluster, tt.fallback)
		}
	}
}

func TestRouteReverse6(t *testing.T) {
	cfg := Config{Reverse: []netip.Prefix{netip.MustParsePrefix("fd00:10::/30")}}
	for addr, want := range map[string]Source{
		"fd00:10::1": SourceCluster, "fd00:13:ffff::1": SourceCluster, "fd00:14::1": SourceUpstream, "fd00:f::1": SourceUpstream,
	} {
		name, err := wire.ReverseAddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		if d := Route(cfg, name, wire.TypePTR); d.Source != want {
			t.Errorf("%s: %v", addr, d)
		}
	}
}

func TestRouteWithoutNamespaceOrCluster(t *testing.T) {
	for _, name := range []string{"echo.", "echo.default.", "7.4.131.10.in-addr.arpa.", "echo.lab.culvert.internal."} {
		if d := Route(Config{}, name, wire.TypeA); d.Source != SourceUpstream {
			t.Errorf("%s: %v", name, d)
		}
	}
	if d := Route(Config{ClusterDomain: "K8s.Example."}, "a.b.svc", wire.TypeA); d.Name != "a.b.svc.k8s.example." {
		t.Errorf("own cluster domain: %v", d)
	}
}

func TestRouteNeverMakesAnImpossibleName(t *testing.T) {
	cfg := Config{Namespace: "default"}
	long := strings.Repeat(strings.Repeat("a", 60)+".", 4)
	if d := Route(cfg, long+"default.", wire.TypeA); d.Source != SourceUpstream {
		t.Errorf("in a namespace: %v", d)
	}
	if d := Route(cfg, long+"svc.", wire.TypeA); d.Source != SourceNone {
		t.Errorf("with svc: %v", d)
	}
}

func TestReserved(t *testing.T) {
	for name, want := range map[string]bool{
		"default": false, "team-a": false, "production": false, "prod": true, "staging": false, "test": false, "corp": false, "": false,
		"com": true, "DEV": true, "io": true, "ck": true, "local": true, "onion": true, "arpa": true, "xn--p1ai": true,
	} {
		if Reserved(name) != want {
			t.Errorf("Reserved(%q) = %t", name, !want)
		}
	}
}

func TestDomains(t *testing.T) {
	cfg := Config{Namespace: "default", Namespaces: []string{"dev", "team-a"}, Connection: "lab", IncludeSuffixes: []string{"Corp.Internal"},
		Reverse: []netip.Prefix{netip.MustParsePrefix("10.130.0.0/15")}}
	want := []string{"130.10.in-addr.arpa", "131.10.in-addr.arpa", "cluster.local", "corp.internal", "default", "lab.culvert.internal", "svc", "team-a"}
	if got := cfg.Domains(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestReverseZones(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.0.0.0/8":      "10.in-addr.arpa.",
		"10.130.0.0/16":   "130.10.in-addr.arpa.",
		"10.130.0.0/15":   "130.10.in-addr.arpa. 131.10.in-addr.arpa.",
		"10.130.4.128/26": strings.Join(lastOctets("4.130.10.in-addr.arpa.", 128, 64), " "),
		"10.1.2.3/32":     "3.2.1.10.in-addr.arpa.",
		"fd00:10::/32":    "0.1.0.0.0.0.d.f.ip6.arpa.",
		"fd00:10::/31":    "0.1.0.0.0.0.d.f.ip6.arpa. 1.1.0.0.0.0.d.f.ip6.arpa.",
		"0.0.0.0/0":       "in-addr.arpa.",
		"::/0":            "ip6.arpa.",
	} {
		if got := strings.Join(ReverseZones(netip.MustParsePrefix(prefix)), " "); got != want {
			t.Errorf("%s: %s", prefix, got)
		}
	}
	if got := ReverseZones(netip.Prefix{}); got != nil {
		t.Errorf("no prefix: %q", got)
	}
}

func lastOctets(zone string, from, n int) []string {
	var out []string
	for i := range n {
		out = append(out, strconv.Itoa(from+i)+"."+zone)
	}
	return out
}

// Whatever is in a reverse zone of a prefix is in the prefix, and the other way round: Route finds the PTR names of
// exactly the prefix's addresses, and each lies in one of its zones.
func FuzzReverse(f *testing.F) {
	f.Add([]byte{10, 130, 0, 0}, uint8(15), []byte{10, 131, 255, 1})
	f.Add(netip.MustParseAddr("fd00:10::").AsSlice(), uint8(30), netip.MustParseAddr("fd00:13::9").AsSlice())
	f.Fuzz(func(t *testing.T, network []byte, bits uint8, host []byte) {
		base, ok1 := netip.AddrFromSlice(network)
		addr, ok2 := netip.AddrFromSlice(host)
		if !ok1 || !ok2 || base.BitLen() != addr.BitLen() || base.Is4In6() || addr.Is4In6() {
			return
		}
		prefix, err := base.Prefix(int(bits) % (base.BitLen() + 1))
		if err != nil {
			t.Fatal(err)
		}
		name, err := wire.ReverseAddr(addr.String())
		if err != nil {
			t.Fatal(err)
		}
		inZone := slices.ContainsFunc(ReverseZones(prefix), func(z string) bool { return wire.IsSubDomain(z, name) })
		routed := Route(Config{Reverse: []netip.Prefix{prefix}}, name, wire.TypePTR).Source == SourceCluster
		if want := prefix.Contains(addr); inZone != want || routed != want {
			t.Errorf("%s in %s: %t; in its zones: %t; routed: %t", addr, prefix, want, inZone, routed)
		}
	})
}
