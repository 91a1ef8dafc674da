package helper

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/hostnet/hosttest"
)

// noSockets stands in for the resolver's sockets on a host that has the addresses in memory only.
func noSockets(context.Context, *descriptors, []netip.Prefix) error { return nil }

// otherPrograms is a host with a VPN and with an unmarked rule and route in our table's place.
func otherPrograms() hosttest.State {
	route := func(prefix string, table int) hosttest.Route {
		return hosttest.Route{Route: hostnet.Route{Prefix: netip.MustParsePrefix(prefix)}, Dev: "tun0", Table: table}
	}
	return hosttest.State{
		Links: map[string]hosttest.Link{"tun0": {Index: 7}},
		Rules: []hosttest.Rule{
			{Table: 255}, {Table: 254, Rule: hostnet.Rule{Priority: 32766}}, {Table: 52, Rule: hostnet.Rule{Priority: 5270}},
			{Table: 7830, Rule: hostnet.Rule{Priority: 5000}}, {Table: 7830, Rule: hostnet.Rule{Priority: 5000, IPv6: true}},
		},
		Routes: []hosttest.Route{route("10.0.0.0/8", 254), route("fd00::/8", 254), route("10.200.0.0/16", 7830)},
	}
}

// pathsIn are places of a test's own, with a resolver file.
func pathsIn(t *testing.T) Paths {
	t.Helper()
	dir := t.TempDir()
	p := Paths{
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), UAPIDir: filepath.Join(dir, "uapi"),
		ResolvConf: filepath.Join(dir, "resolv.conf"), Limits: filepath.Join(dir, "limits.yaml"),
	}
	if err := os.WriteFile(p.ResolvConf, []byte("nameserver 192.168.77.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// ourRules returns the priorities of our rules of one family.
func ourRules(s hosttest.State, ipv6 bool) []int {
	var out []int
	for _, r := range s.Rules {
		if r.Protocol == hostnet.Protocol && r.IPv6 == ipv6 {
			out = append(out, r.Priority)
		}
	}
	return out
}

// deleteOurRules is what systemd-networkd does to rules that it does not know.
func deleteOurRules(s *hosttest.State) {
	s.Rules = slices.DeleteFunc(s.Rules, func(r hosttest.Rule) bool { return r.Protocol == hostnet.Protocol })
}
