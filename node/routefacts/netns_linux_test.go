//go:build netns

package routefacts

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// inNamespace runs f in a network namespace of its own. The goroutine ends with its thread locked, so
// that the thread goes too and no other goroutine ever runs in that namespace.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("unshare the network namespace: %v (this test needs root)", err)
	}
}

// ip runs ip(8) in the calling thread's namespace, one command per line.
func ip(t *testing.T, script string, options ...string) {
	t.Helper()
	cmd := exec.Command("ip", append(options, "-batch", "-")...)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("ip -batch: %v\n%s\n%s", err, script, out)
	}
}

const oddHost = `
link set lo up
link add eth0 type veth peer name far
link add tun0 type veth peer name vpn
link add br0 type bridge
link set eth0 up
link set far up
link set tun0 up
link set vpn up
link set br0 up
addr add 192.0.2.2/24 dev eth0
addr add 2001:db8::2/64 dev eth0 nodad
route add default via 192.0.2.1
route add 10.0.0.0/8 dev tun0 metric 50
route add 10.9.0.0/16 nexthop via 192.0.2.7 dev eth0 nexthop dev tun0
route add blackhole 10.66.0.0/16
route add unreachable 10.67.0.0/16
route add prohibit 10.68.0.0/16
route add default dev tun0 table 51820
route add throw 10.3.0.0/16 table 51820
route add 10.4.0.0/16 dev tun0 table 70000 proto 202
rule add not fwmark 0xca6c table 51820 priority 20000
rule add table main suppress_prefixlength 0 priority 19999
rule add to 10.4.0.0/16 table 70000 priority 5270 protocol 202
rule add from 192.0.2.2 table 70000 priority 5271
rule add fwmark 0x80000/0xff0000 table main priority 5210
rule add uidrange 1000-1999 ipproto tcp dport 443 table 51820 priority 5280
rule add iif eth0 blackhole priority 5290
rule add oif tun0 unreachable priority 5291
rule add to 10.99.0.0/16 prohibit priority 5292
rule add goto 19999 priority 5300
`

const oddHost6 = `
route add fd00:1::/48 dev tun0
route add unreachable fd00:2::/48 table 51820
rule add to fd00:2::/48 table 51820 priority 5270
`

func TestReadOddHost(t *testing.T) {
	inNamespace(t, func() {
		ip(t, oddHost)
		ip(t, oddHost6, "-6")
		facts, err := Read(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		if len(facts.Warnings) > 0 {
			t.Errorf("warnings %q", facts.Warnings)
		}
		checkLinks(t, facts)
		checkRoutes(t, facts)
		checkRules(t, facts)
	})
}

func linkNamed(facts policy.Facts, name string) policy.Link {
	for _, l := range facts.Links {
		if l.Name == name {
			return l
		}
	}
	return policy.Link{}
}

func checkLinks(t *testing.T, facts policy.Facts) {
	if l := linkNamed(facts, "lo"); l.Index == 0 || !l.Loopback || !l.Up || l.Kind != "" {
		t.Errorf("lo is %+v", l)
	}
	eth := linkNamed(facts, "eth0")
	if eth.Kind != "veth" || !eth.Up || eth.MTU != 1500 {
		t.Errorf("eth0 is %+v", eth)
	}
	for _, want := range []string{"192.0.2.2/24", "2001:db8::2/64"} {
		if !slices.Contains(eth.Addresses, netip.MustParsePrefix(want)) {
			t.Errorf("eth0 has %v, not %s", eth.Addresses, want)
		}
	}
	if l := linkNamed(facts, "br0"); l.Kind != "bridge" {
		t.Errorf("br0 is %+v", l)
	}
}

func checkRoutes(t *testing.T, facts policy.Facts) {
	eth, tun := linkNamed(facts, "eth0").Index, linkNamed(facts, "tun0").Index
	addr := netip.MustParseAddr
	for _, want := range []policy.Route{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Table: 254, Type: policy.Unicast, Protocol: 3, NextHops: []policy.NextHop{{Addr: addr("192.0.2.1"), Link: eth}}},
		{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Table: 254, Type: policy.Unicast, Protocol: 3, Scope: policy.ScopeLink, Metric: 50, NextHops: []policy.NextHop{{Link: tun}}},
		{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Table: 254, Type: policy.Unicast, Protocol: 3, NextHops: []policy.NextHop{{Addr: addr("192.0.2.7"), Link: eth}, {Link: tun}}},
		{Prefix: netip.MustParsePrefix("10.66.0.0/16"), Table: 254, Type: policy.Blackhole, Protocol: 3},
		{Prefix: netip.MustParsePrefix("10.67.0.0/16"), Table: 254, Type: policy.Unreachable, Protocol: 3},
		{Prefix: netip.MustParsePrefix("10.68.0.0/16"), Table: 254, Type: policy.Prohibit, Protocol: 3},
		{Prefix: netip.MustParsePrefix("10.3.0.0/16"), Table: 51820, Type: policy.Throw, Protocol: 3},
		{Prefix: netip.MustParsePrefix("10.4.0.0/16"), Table: 70000, Type: policy.Unicast, Protocol: 202, Scope: policy.ScopeLink, NextHops: []policy.NextHop{{Link: tun}}},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Table: 254, Type: policy.Unicast, Protocol: policy.ProtocolKernel, Scope: policy.ScopeLink, NextHops: []policy.NextHop{{Link: eth}}, PreferredSource: addr("192.0.2.2")},
		{Prefix: netip.MustParsePrefix("fd00:1::/48"), Table: 254, Type: policy.Unicast, Protocol: 3, Metric: 1024, NextHops: []policy.NextHop{{Link: tun}}},
	} {
		if !slices.ContainsFunc(facts.Routes, func(r policy.Route) bool { return sameRoute(r, want) }) {
			t.Errorf("no route %+v", want)
		}
	}
	local := func(r policy.Route) bool {
		return r.Type == policy.Local && r.Table == policy.TableLocal && r.Prefix == netip.MustParsePrefix("192.0.2.2/32")
	}
	if !slices.ContainsFunc(facts.Routes, local) {
		t.Error("the local table was not read")
	}
	v6 := func(r policy.Route) bool {
		return r.Type == policy.Unreachable && r.Table == 51820 && r.Prefix == netip.MustParsePrefix("fd00:2::/48")
	}
	if !slices.ContainsFunc(facts.Routes, v6) {
		t.Error("the IPv6 route in a table of its own was not read")
	}
}

func sameRoute(a, b policy.Route) bool {
	hops := slices.Equal(a.NextHops, b.NextHops)
	a.NextHops, b.NextHops = nil, nil
	return hops && a.Prefix == b.Prefix && a.Table == b.Table && a.Type == b.Type && a.Protocol == b.Protocol &&
		a.Scope == b.Scope && a.Metric == b.Metric && a.PreferredSource == b.PreferredSource
}

func checkRules(t *testing.T, facts policy.Facts) {
	full := ^uint32(0)
	prefix := netip.MustParsePrefix
	for _, want := range []policy.Rule{
		{Family: 4, Priority: 0, Action: "lookup", Table: 255, Protocol: 2},
		{Family: 4, Priority: 32766, Action: "lookup", Table: 254, Protocol: 2},
		{Family: 4, Priority: 32767, Action: "lookup", Table: 253, Protocol: 2},
		{Family: 6, Priority: 32766, Action: "lookup", Table: 254, Protocol: 2},
		{Family: 4, Priority: 20000, Action: "lookup", Table: 51820, Invert: true, Mark: policy.Mark{Value: 0xca6c, Mask: full}},
		{Family: 4, Priority: 19999, Action: "lookup", Table: 254, MinPrefixLen: 1},
		{Family: 4, Priority: 5270, Action: "lookup", Table: 70000, Dst: prefix("10.4.0.0/16"), Protocol: policy.ProtocolCulvert},
		{Family: 4, Priority: 5271, Action: "lookup", Table: 70000, Src: prefix("192.0.2.2/32")},
		{Family: 4, Priority: 5210, Action: "lookup", Table: 254, Mark: policy.Mark{Value: 0x80000, Mask: 0xff0000}},
		{Family: 4, Priority: 5290, Action: "blackhole", IIF: "eth0"},
		{Family: 4, Priority: 5291, Action: "unreachable", OIF: "tun0"},
		{Family: 4, Priority: 5292, Action: "prohibit", Dst: prefix("10.99.0.0/16")},
		{Family: 4, Priority: 5300, Action: "goto", Goto: 19999},
		{Family: 6, Priority: 5270, Action: "lookup", Table: 51820, Dst: prefix("fd00:2::/48")},
	} {
		if !slices.Contains(facts.Rules, want) {
			t.Errorf("no rule %+v among %+v", want, facts.Rules)
		}
	}
	users := func(r policy.Rule) bool {
		return r.Priority == 5280 && r.Partial && r.UIDs != nil && *r.UIDs == policy.UIDRange{First: 1000, Last: 1999}
	}
	if !slices.ContainsFunc(facts.Rules, users) {
		t.Errorf("no rule for users 1000 to 1999 with further selectors")
	}
}

// TestReadNexthopObjects: with nexthop_compat_mode at 0 the kernel no longer writes into a route what
// the next hop object stands for.
func TestReadNexthopObjects(t *testing.T) {
	for _, mode := range []string{"1", "0"} {
		t.Run("compat mode "+mode, func(t *testing.T) {
			inNamespace(t, func() {
				ip(t, `
link set lo up
link add eth0 type veth peer name far
link set eth0 up
link set far up
addr add 192.0.2.2/24 dev eth0
nexthop add id 1 via 192.0.2.1 dev eth0
nexthop add id 2 via 192.0.2.7 dev eth0
nexthop add id 3 blackhole
nexthop add id 10 group 1/2
route add 10.1.0.0/16 nhid 1
route add 10.2.0.0/16 nhid 10
route add 10.3.0.0/16 nhid 3
route add 10.4.0.0/16 dev eth0 tos 0x10
`)
				ip(t, "nexthop add id 20 dev eth0\nroute add fd00:5::/48 nhid 20\nroute add fd00:6::/48 dev eth0 from fd00:7::/48", "-6")
				if err := os.WriteFile("/proc/sys/net/ipv4/nexthop_compat_mode", []byte(mode), 0o644); err != nil {
					t.Error(err)
				}
				facts, err := Read(context.Background())
				if err != nil || len(facts.Warnings) > 0 {
					t.Errorf("%v, warnings %q", err, facts.Warnings)
				}
				checkNexthopRoutes(t, facts)
			})
		})
	}
}

func checkNexthopRoutes(t *testing.T, facts policy.Facts) {
	eth, pf := linkNamed(facts, "eth0").Index, netip.MustParsePrefix
	one := policy.NextHop{Addr: netip.MustParseAddr("192.0.2.1"), Link: eth}
	two := policy.NextHop{Addr: netip.MustParseAddr("192.0.2.7"), Link: eth}
	for _, want := range []policy.Route{
		{Prefix: pf("10.1.0.0/16"), Type: policy.Unicast, NextHops: []policy.NextHop{one}},
		{Prefix: pf("10.2.0.0/16"), Type: policy.Unicast, NextHops: []policy.NextHop{one, two}},
		{Prefix: pf("10.3.0.0/16"), Type: policy.Blackhole},
		{Prefix: pf("10.4.0.0/16"), Type: policy.Unicast, TOS: 0x10, NextHops: []policy.NextHop{{Link: eth}}},
		{Prefix: pf("fd00:5::/48"), Type: policy.Unicast, NextHops: []policy.NextHop{{Link: eth}}},
		{Prefix: pf("fd00:6::/48"), Type: policy.Unicast, Source: pf("fd00:7::/48"), NextHops: []policy.NextHop{{Link: eth}}},
	} {
		if !slices.ContainsFunc(facts.Routes, func(r policy.Route) bool {
			return r.Prefix == want.Prefix && r.Type == want.Type && r.TOS == want.TOS && r.Source == want.Source && slices.Equal(r.NextHops, want.NextHops)
		}) {
			t.Errorf("no route %+v", want)
		}
	}
}

// TestReadWhileRoutesChange reads a table that is being filled: whatever the moment, what was there
// before is there.
func TestReadWhileRoutesChange(t *testing.T) {
	inNamespace(t, func() {
		ip(t, "link set lo up\nlink add eth0 type veth peer name far\nlink set eth0 up\nlink set far up\nroute add 10.0.0.0/8 dev eth0")
		var script strings.Builder
		for i := range 2000 {
			script.WriteString("route add 10." + strconv.Itoa(i/250) + "." + strconv.Itoa(i%250) + ".0/24 dev eth0\n")
		}
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(script.String())
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		for range 20 {
			facts, err := Read(context.Background())
			if err != nil {
				t.Error(err)
			}
			if !slices.ContainsFunc(facts.Routes, func(r policy.Route) bool { return r.Prefix == netip.MustParsePrefix("10.0.0.0/8") }) {
				t.Error("a route that was there all the time is missing")
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("ip -batch: %v", err)
		}
		facts, err := Read(context.Background())
		if err != nil || len(facts.Warnings) > 0 {
			t.Errorf("after the change: %v, warnings %q", err, facts.Warnings)
		}
		if n := len(facts.Routes); n < 2001 {
			t.Errorf("%d routes, want at least 2001", n)
		}
	})
}
