package helper

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/node/hostnet"
)

// fine is an open request and a state that are in order; each hostile row spoils one thing.
func fine() (OpenRequest, hostnet.State) {
	addrs := []netip.Prefix{netip.MustParsePrefix("245.1.2.10/32"), netip.MustParsePrefix("fd00:c0de::10/128")}
	state := hostnet.State{
		Interface: "culvert0", MTU: 1420, Addresses: addrs, Table: 7830,
		Priority: hostnet.Priority{V4: 5000, V6: 32765},
		SkipMarks: hostnet.SkipMarks{
			V4: []hostnet.Mark{{Value: 0xca6c, Mask: 0xffffffff}, {Value: 0x80000, Mask: 0xff0000}},
			V6: []hostnet.Mark{{Value: 1, Mask: 1}},
		},
		DNS: hostdns.Config{Servers: []netip.Addr{addrs[0].Addr(), addrs[1].Addr()}, Search: []string{"default.svc.cluster.local", "_x.y."}},
	}
	for _, p := range []string{"10.0.0.0/8", "172.20.0.0/16", "192.168.0.0/16", "100.64.0.0/10", "245.0.0.0/8", "fd00::/8", "10.96.0.1/32"} {
		state.Routes = append(state.Routes, hostnet.Route{Prefix: netip.MustParsePrefix(p)})
	}
	state.Routes = append(state.Routes, hostnet.Route{Prefix: netip.MustParsePrefix("8.8.8.8/32"), Throw: true})
	return OpenRequest{Interface: "culvert0", MTU: 1420, Addresses: addrs}, state
}

func TestRequestsInOrder(t *testing.T) {
	open, state := fine()
	if err := checkOpen(open); err != nil {
		t.Error(err)
	}
	if err := (Limits{}).checkState(state, state); err != nil {
		t.Error(err)
	}
	open.Interface, open.Addresses, open.MTU = "", open.Addresses[:1], 576
	if err := checkOpen(open); err != nil {
		t.Error(err)
	}
}

func TestHostileOpen(t *testing.T) {
	addr := func(texts ...string) func(*OpenRequest) {
		return func(r *OpenRequest) {
			r.Addresses = nil
			for _, s := range texts {
				r.Addresses = append(r.Addresses, netip.MustParsePrefix(s))
			}
		}
	}
	iface := func(name string) func(*OpenRequest) { return func(r *OpenRequest) { r.Interface = name } }
	mtu := func(n int) func(*OpenRequest) { return func(r *OpenRequest) { r.MTU = n } }
	for name, spoil := range map[string]func(*OpenRequest){
		"the host's interface":         iface("eth0"),
		"a path":                       iface("../culvert0"),
		"a name out of range":          iface("culvert64"),
		"a name with a zero in front":  iface("culvert01"),
		"a name with a newline":        iface("culvert0\n"),
		"a very long name":             iface("culvert" + strings.Repeat("1", 1000)),
		"no address":                   addr(),
		"the zero address":             func(r *OpenRequest) { r.Addresses = []netip.Prefix{{}} },
		"a LAN address":                addr("192.168.1.1/32"),
		"a public address":             addr("8.8.8.8/32"),
		"loopback":                     addr("127.0.0.1/32"),
		"the broadcast address":        addr("255.255.255.255/32"),
		"a wide address":               addr("245.1.2.10/31"),
		"a wide IPv6 address":          addr("fd00::1/64"),
		"link-local IPv6":              addr("fe80::1/128"),
		"public IPv6":                  addr("2001:db8::1/128"),
		"IPv4 in IPv6":                 addr("::ffff:245.1.2.3/128"),
		"two of one family":            addr("245.1.2.10/32", "245.1.2.12/32"),
		"too many":                     addr("245.1.2.10/32", "fd00::1/128", "fd00::2/128"),
		"an MTU of nothing":            mtu(0),
		"a negative MTU":               mtu(-1),
		"an MTU that IPv6 cannot have": mtu(1279),
		"a huge MTU":                   mtu(9001),
	} {
		r, _ := fine()
		spoil(&r)
		if err := checkOpen(r); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

func TestHostileState(t *testing.T) {
	type state = hostnet.State
	route := func(text string) func(*state) {
		return func(s *state) { s.Routes = []hostnet.Route{{Prefix: netip.MustParsePrefix(text)}} }
	}
	throw := func(text string) func(*state) {
		return func(s *state) { s.Routes = []hostnet.Route{{Prefix: netip.MustParsePrefix(text), Throw: true}} }
	}
	search := func(names ...string) func(*state) { return func(s *state) { s.DNS.Search = names } }
	server := func(text string) func(*state) {
		return func(s *state) { s.DNS.Servers = []netip.Addr{netip.MustParseAddr(text)} }
	}
	for name, spoil := range map[string]func(*state){
		"another interface":          func(s *state) { s.Interface = "culvert1" },
		"the host's interface":       func(s *state) { s.Interface = "eth0" },
		"no interface":               func(s *state) { s.Interface = "" },
		"the main table":             func(s *state) { s.Table = 254 },
		"another connection's table": func(s *state) { s.Table = 7831 },
		"other addresses":            func(s *state) { s.Addresses = s.Addresses[:1] },
		"one address twice": func(s *state) {
			s.Addresses = []netip.Prefix{s.Addresses[0], s.Addresses[0]}
			s.DNS.Servers = s.DNS.Servers[:1]
		},
		"a tiny MTU":             func(s *state) { s.MTU = 100 },
		"priority of local":      func(s *state) { s.Priority.V4 = -1 },
		"priority of main":       func(s *state) { s.Priority.V4 = 32766 },
		"huge priority":          func(s *state) { s.Priority.V6 = 1 << 31 },
		"the default route":      route("0.0.0.0/0"),
		"the IPv6 default route": route("::/0"),
		"half the Internet":      route("0.0.0.0/1"),
		"the other half":         route("128.0.0.0/1"),
		"half of IPv6":           route("8000::/1"),
		"all of class E":         route("240.0.0.0/4"),
		"all of ULA":             route("fc00::/7"),
		"a public prefix":        route("8.8.8.0/24"),
		"a public IPv6 prefix":   route("2001:db8::/32"),
		"around a private one":   route("172.0.0.0/8"),
		"next to a private one":  route("172.32.0.0/16"),
		"loopback":               route("127.0.0.0/8"),
		"cloud metadata":         route("169.254.169.254/32"),
		"multicast":              route("224.0.0.0/24"),
		"broadcast":              route("255.0.0.0/8"),
		"link-local IPv6":        route("fe80::/64"),
		"IPv6 multicast":         route("ff02::/16"),
		"IPv4 in IPv6":           route("::ffff:10.0.0.0/104"),
		"host bits":              route("10.0.0.1/8"),
		"no prefix":              func(s *state) { s.Routes = []hostnet.Route{{}} },
		"twice":                  func(s *state) { s.Routes = append(s.Routes, s.Routes[0]) },
		"once through, once thrown": func(s *state) {
			s.Routes = append(s.Routes, hostnet.Route{Prefix: s.Routes[0].Prefix, Throw: true})
		},
		"throw everything":        throw("0.0.0.0/0"),
		"throw all of IPv6":       throw("::/0"),
		"throw with host bits":    throw("10.0.0.1/8"),
		"throw no prefix":         func(s *state) { s.Routes = []hostnet.Route{{Throw: true}} },
		"too many routes":         manyRoutes,
		"a mark of nothing":       marks(hostnet.Mark{}),
		"a mark under no mask":    marks(hostnet.Mark{Value: 1}),
		"no mark at all as one":   marks(hostnet.Mark{Mask: 0xff}),
		"a mark beyond its mask":  marks(hostnet.Mark{Value: 0x100, Mask: 0xff}),
		"one mark among good":     marks(hostnet.Mark{Value: 1, Mask: 1}, hostnet.Mark{}),
		"too many marks":          marks(manyMarks(maxMarks + 1)...),
		"IPv6's marks of nothing": func(s *state) { s.SkipMarks.V6 = []hostnet.Mark{{}} },
		"another DNS server":      server("8.8.8.8"),
		"loopback DNS":            server("127.0.0.1"),
		"a DNS server nowhere":    func(s *state) { s.DNS.Servers = []netip.Addr{{}} },
		"no DNS server":           func(s *state) { s.DNS.Servers = nil },
		"many DNS servers":        func(s *state) { s.DNS.Servers = append(s.DNS.Servers, s.DNS.Servers...) },
		"DNS options":             func(s *state) { s.DNS.Options = []string{"rotate"} },
		"the root":                search("."),
		"no name":                 search(""),
		"a newline in a name":     search("x\nnameserver 8.8.8.8"),
		"a space in a name":       search("x y"),
		"a NUL in a name":         search("x\x00"),
		"a comment":               search("#"),
		"an empty label":          search("a..b"),
		"a label too long":        search(strings.Repeat("a", 64)),
		"a name too long":         search(strings.Repeat("a.", 127) + "a"),
		"a label with a dash end": search("a-.b"),
		"a routing domain's root": func(s *state) { s.DNS.Domains = []string{"."} },
		"too many search domains": search(strings.Split(strings.Repeat("a,", 65), ",")...),
	} {
		_, s := fine()
		_, open := fine()
		spoil(&s)
		if err := (Limits{}).checkState(s, open); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

func marks(list ...hostnet.Mark) func(*hostnet.State) {
	return func(s *hostnet.State) { s.SkipMarks.V4 = list }
}

func manyMarks(n int) (out []hostnet.Mark) {
	for i := range n {
		out = append(out, hostnet.Mark{Value: 0xff000000 + uint32(i), Mask: 0xffffffff})
	}
	return out
}

func manyRoutes(s *hostnet.State) {
	for i := range maxRoutes {
		s.Routes = append(s.Routes, hostnet.Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 32)})
	}
}

func TestReset(t *testing.T) {
	many := func(n int) (out []netip.Prefix) {
		for i := range n {
			out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32))
		}
		return out
	}
	for name, row := range map[string]struct {
		prefixes []netip.Prefix
		fine     bool
	}{
		"of both families":    {[]netip.Prefix{netip.MustParsePrefix("10.130.0.0/16"), netip.MustParsePrefix("fd10::/64")}, true},
		"as many as possible": {many(maxRoutes), true},
		"too many":            {many(maxRoutes + 1), false},
		"none":                {nil, false},
		"everything":          {[]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, false},
		"a public one":        {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("8.8.8.0/24")}, false},
		"loopback":            {[]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, false},
		"with host bits":      {[]netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}, false},
		"no prefix":           {[]netip.Prefix{{}}, false},
	} {
		if err := (Limits{}).checkReset(row.prefixes); (err == nil) != row.fine || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := encode(request{Type: typeReset, Reset: many(maxRoutes)}); err != nil {
		t.Error(err)
	}
}

func TestMostRoutesAndMarksFitInAMessage(t *testing.T) {
	_, s := fine()
	s.Routes = nil
	for i := range maxRoutes {
		a := netip.MustParseAddr(fmt.Sprintf("fd10:130:aaaa:bbbb:cccc:dddd:eeee:%x", i))
		s.Routes = append(s.Routes, hostnet.Route{Prefix: netip.PrefixFrom(a, 128), Throw: true})
	}
	s.SkipMarks = hostnet.SkipMarks{V4: manyMarks(maxMarks), V6: manyMarks(maxMarks)}
	if err := (Limits{}).checkState(s, s); err != nil {
		t.Error(err)
	}
	if _, err := encode(request{Type: typeApply, State: &s}); err != nil {
		t.Error(err)
	}
}

func TestLimitsFile(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"one prefix":          {"prefixes: [203.0.113.0/24]\n", ""},
		"several, one by one": {"# ours\nprefixes:\n- 203.0.113.0/24\n- 2001:db8::/32\n", ""},
		"empty":               {"", ""},
		"no prefix":           {"prefixes: [203.0.113.0]\n", "203.0.113.0"},
		"host bits":           {"prefixes: [203.0.113.1/24]\n", "normal form"},
		"the default route":   {"prefixes: [0.0.0.0/0]\n", "shorter"},
		"half of IPv6":        {"prefixes: [\"2000::/3\"]\n", "shorter"},
		"loopback":            {"prefixes: [127.0.0.0/8]\n", "127.0.0.0/8"},
		"multicast":           {"prefixes: [224.0.0.0/8]\n", "224.0.0.0/4"},
		"an unknown key":      {"prefix: [203.0.113.0/24]\n", "line 1"},
		"not a list":          {"prefixes: 203.0.113.0/24\n", "only key"},
		"no YAML":             {"{", "only key"},
	} {
		path := filepath.Join(t.TempDir(), "limits.yaml")
		if err := os.WriteFile(path, []byte(row.text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := LoadLimits(path)
		if row.want == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q in it", name, err, row.want)
		}
	}
}

func TestLimitsFileAllowsWhatItLists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, []byte("prefixes: [203.0.113.0/24]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := LoadLimits(path)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"203.0.113.0/24": true, "203.0.113.128/25": true, "203.0.112.0/23": false, "203.0.114.0/24": false, "10.0.0.0/8": true} {
		if err := l.allows(netip.MustParsePrefix(text)); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestLimitsFileThatOthersCanWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadLimits(path); err == nil || !strings.Contains(err.Error(), "chmod 644") {
		t.Errorf("%v, want what to do", err)
	}
	if l, err := LoadLimits(path + ".missing"); err != nil || len(l.Prefixes) != 0 {
		t.Errorf("a missing file: %v, %v", l, err)
	}
}

func TestConnectionNames(t *testing.T) {
	for name, want := range map[string]bool{
		"default": true, "a": true, "lab-2": true, strings.Repeat("a", 32): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "../x": false, "a/b": false, "a b": false,
		"a over b": false, "a\n": false, strings.Repeat("a", 33): false,
	} {
		if err := CheckName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}
