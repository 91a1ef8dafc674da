//go:build netns

package reach

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/internal/packet"
	"github.com/culvert-dev/culvert/node/hostnet"
)

// inNamespace runs the calling test again in a process with a network namespace of its own and reports whether
// this is that process.
//
//	socket ── our table, rules and one-way filter ── culvert0 ── Tap ── cluster (packets by hand)
//	          v0 192.168.77.1/24 ═ v1 (nobody answers), the default route
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("CULVERT_TEST_NAMESPACE") == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "CULVERT_TEST_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in its network namespace (root is needed): %v", err)
	}
	return false
}

// sh runs a shell script.
func sh(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
}

const hostNetwork = `
ip link set lo up
ip link add v0 type veth peer name v1
ip link set v0 up; ip link set v1 up
ip addr add 192.168.77.1/24 dev v0
ip -6 addr add fd77::1/64 dev v0 nodad
ip route add default via 192.168.77.2
ip neigh replace 192.168.77.2 lladdr 02:00:00:00:00:02 dev v0`

// subnets are the cluster's. Those at 10.134 are silent, those at 10.135 refused by the gateway.
const subnets = "10.130.0.0/16 10.132.0.0/16 10.134.0.0/16 10.135.0.0/16 fd10:130::/112 fd10:134::/112"

// cluster is a tunnel in place, and its far end.
type cluster struct {
	prober *Prober
	mute   atomic.Bool
}

// connect brings up the tunnel as the product does.
func connect(t *testing.T) *cluster {
	t.Helper()
	sh(t, hostNetwork)
	host, closeHost, err := hostnet.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeHost)
	scope := hostnet.Scope{Interface: "culvert0", Name: "default"}
	file, index, err := host.CreateTUN(scope)
	if err != nil {
		t.Fatal(err)
	}
	scope.Index = index
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	tap := NewTap(dev)
	c := &cluster{prober: New(Config{Interface: "culvert0", Tap: tap})}
	var far sync.WaitGroup
	far.Go(func() { c.serve(tap) })
	t.Cleanup(func() { tap.Close(); far.Wait() })
	state := hostnet.State{Interface: "culvert0", MTU: 1400, Priority: hostnet.Priority{V4: 5000, V6: 5000},
		Addresses: []netip.Prefix{netip.PrefixFrom(self4, 32), netip.PrefixFrom(self6, 128)}}
	for _, p := range append(prefixes(subnets), netip.PrefixFrom(gateway4, 32), netip.PrefixFrom(gateway6, 128)) {
		state.Routes = append(state.Routes, hostnet.Route{Prefix: p})
	}
	if _, err := hostnet.Set(t.Context(), host, scope, state); err != nil {
		t.Fatal(err)
	}
	return c
}

// serve answers what comes through the tunnel as the gateway does.
func (c *cluster) serve(tap *Tap) {
	const offset = 16
	bufs, sizes := make([][]byte, tap.BatchSize()), make([]int, tap.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 1<<16)
	}
	for {
		n, err := tap.Read(bufs, sizes, offset)
		if err != nil {
			return
		}
		for i := range n {
			if e := c.answer(bufs[i][offset : offset+sizes[i]]); e != nil {
				_, _ = tap.Write([][]byte{append(make([]byte, offset), e...)}, offset)
			}
		}
	}
}

func (c *cluster) answer(pkt []byte) []byte {
	h, err := packet.Parse(pkt)
	silent := netip.MustParsePrefix("10.134.0.0/16").Contains(h.Dst) || netip.MustParsePrefix("fd10:134::/112").Contains(h.Dst)
	if err != nil || h.TTL > 1 || c.mute.Load() || silent {
		return nil
	}
	if netip.MustParsePrefix("10.135.0.0/16").Contains(h.Dst) {
		return errorAbout(pkt, packet.Prohibited)
	}
	return errorAbout(pkt, packet.TimeExceeded)
}

// probe probes the subnets and returns verdicts and details by prefix.
func (c *cluster) probe(t *testing.T, of string) map[string]Result {
	t.Helper()
	out := map[string]Result{}
	start := time.Now()
	results := c.prober.Probe(t.Context(), Targets(prefixes(of), prefixes(subnets), []netip.Addr{gateway4, gateway6}))
	for _, r := range results {
		t.Logf("%s (%v) %v", r.Detail, r.Verdict, r.RTT)
		out[r.Prefix.String()] = r
	}
	if took := time.Since(start); took > budget+time.Second {
		t.Errorf("the run took %v", took)
	}
	return out
}

// want checks a verdict and that the detail holds some words.
func want(t *testing.T, results map[string]Result, prefix string, verdict Verdict, words string) {
	t.Helper()
	if r := results[prefix]; r.Verdict != verdict || !strings.Contains(r.Detail, words) {
		t.Errorf("%s is %s (%s), want %s with %q", prefix, r.Verdict, r.Detail, verdict, words)
	}
}

func TestNamespaceVerdicts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := connect(t)
	got := c.probe(t, subnets)
	want(t, got, "10.130.0.0/16", Working, "answers")
	want(t, got, "10.132.0.0/16", Working, "answers")
	want(t, got, "fd10:130::/112", Working, "answers")
	want(t, got, "10.134.0.0/16", Silent, "no answer from the cluster")
	want(t, got, "fd10:134::/112", Silent, "no answer from the cluster")
	want(t, got, "10.135.0.0/16", Refused, "gateway")
	if r := got["10.130.0.0/16"]; r.RTT <= 0 || r.Route.Interface != "culvert0" || r.Route.Table != hostnet.Table("culvert0") {
		t.Errorf("%+v", r)
	}
}

func TestNamespaceStolenRoutes(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := connect(t)
	for _, row := range []struct{ name, set, unset, prefix, words string }{
		{"a rule in front of ours", "ip route add 10.132.0.0/16 via 192.168.77.3 table 52; ip rule add priority 100 to 10.132.0.0/16 lookup 52",
			"ip rule del priority 100; ip route flush table 52", "10.132.0.0/16", "leave by v0 (table 52, next hop 192.168.77.3), not by culvert0"},
		{"a rule for this user", "ip route add default dev v0 table 52; ip rule add priority 100 uidrange 0-0 lookup 52",
			"ip rule del priority 100; ip route flush table 52", "10.132.0.0/16", "leave by v0 (table 52), not by culvert0"},
		{"a rule over IPv6", "ip -6 route add default dev v0 table 52; ip -6 rule add priority 100 lookup 52",
			"ip -6 rule del priority 100; ip -6 route flush table 52", "fd10:130::/112", "leave by v0 (table 52), not by culvert0"},
		{"a blackhole", "ip route add blackhole 10.132.0.0/16 table 52; ip rule add priority 100 lookup 52",
			"ip rule del priority 100; ip route flush table 52", "10.132.0.0/16", "a blackhole route"},
		{"an unreachable route", "ip route add unreachable 10.132.0.0/16 table 52; ip rule add priority 100 lookup 52",
			"ip rule del priority 100; ip route flush table 52", "10.132.0.0/16", "an unreachable route"},
		{"a prohibiting route", "ip route add prohibit 10.132.0.0/16 table 52; ip rule add priority 100 lookup 52",
			"ip rule del priority 100; ip route flush table 52", "10.132.0.0/16", "a prohibiting route"},
		{"a blackhole over IPv6", "ip -6 route add blackhole fd10:130::/112 table 52; ip -6 rule add priority 100 lookup 52",
			"ip -6 rule del priority 100; ip -6 route flush table 52", "fd10:130::/112", "a blackhole route"},
		{"an address of this host", "ip addr add 10.132.0.1/32 dev lo", "ip addr del 10.132.0.1/32 dev lo", "10.132.0.0/16", "an address of this host"},
	} {
		t.Run(row.name, func(t *testing.T) {
			sh(t, row.set)
			want(t, c.probe(t, row.prefix), row.prefix, Taken, row.words)
			sh(t, row.unset)
			want(t, c.probe(t, row.prefix), row.prefix, Working, "")
		})
	}
}

func TestNamespaceFirewalls(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := connect(t)
	const v4, v6 = "10.132.0.0/16", "fd10:130::/112"
	for _, row := range []struct {
		name, chain, rule, prefix string
		want                      Verdict
		words                     string
	}{
		{"drop", "type filter hook output priority 0", "ip daddr 10.132.0.0/16 drop", v4, Blocked, "firewall drops packets to it"},
		{"drop over IPv6", "type filter hook output priority 0", "ip6 daddr fd10:130::/112 drop", v6, Blocked, "firewall drops packets to it"},
		{"reject", "type filter hook output priority 0", "ip daddr 10.132.0.0/16 reject", v4, Blocked, "firewall drops packets to it"},
		{"reject over IPv6", "type filter hook output priority 0", "ip6 daddr fd10:130::/112 reject with icmpv6 type admin-prohibited", v6, Blocked, "firewall drops packets to it"},
		{"drop after routing", "type filter hook postrouting priority 300", "ip daddr 10.132.0.0/16 drop", v4, Blocked, "firewall drops packets to it"},
		{"drop by interface", "type filter hook output priority 0", "oifname culvert0 drop", v4, Blocked, "firewall drops packets to it"},
		{"mark, and a rule for it", "type route hook output priority -150", "ip daddr 10.132.0.0/16 meta mark set 0x77", v4, Blocked, "do not get as far as culvert0"},
		{"redirect to this host", "type nat hook output priority -100", "ip daddr 10.132.0.0/16 udp dport 33434-33435 redirect to :9", v4, Taken, "diverted on this host"},
		{"drop of answers", "type filter hook input priority 10", "iifname culvert0 icmp type time-exceeded drop", v4, Blocked, "drops the answers"},
		{"drop of answers before routing", "type filter hook prerouting priority -350", "iifname culvert0 meta l4proto ipv6-icmp drop", v6, Blocked, "drops the answers"},
	} {
		t.Run(row.name, func(t *testing.T) {
			sh(t, "ip rule add priority 90 fwmark 0x77 lookup 52; ip route add default via 192.168.77.2 table 52")
			sh(t, "nft add table inet corp; nft 'add chain inet corp c { "+row.chain+"; }'; nft add rule inet corp c "+row.rule)
			got := c.probe(t, row.prefix+" 10.130.0.0/16")
			want(t, got, row.prefix, row.want, row.words)
			if !strings.Contains(row.rule, "culvert0") { // the others are about one prefix alone
				want(t, got, "10.130.0.0/16", Working, "")
			}
			sh(t, "nft delete table inet corp; ip rule del priority 90; ip route flush table 52")
			want(t, c.probe(t, row.prefix), row.prefix, Working, "")
		})
	}
}

// Our own one-way filter lets answers in, as errors related to what this host sent.
func TestNamespaceOneWayFilter(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := connect(t)
	out, err := exec.Command("nft", "list", "table", "inet", "culvert_culvert0").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ct state related") {
		t.Fatalf("the filter is not in place, so this proves nothing: %v\n%s", err, out)
	}
	want(t, c.probe(t, "10.130.0.0/16 fd10:130::/112"), "10.130.0.0/16", Working, "")
	sh(t, "nft delete table inet culvert_culvert0; nft add table inet blind; nft 'add chain inet blind input { type filter hook input priority 0; }'; "+
		"nft add rule inet blind input iifname culvert0 ct state established accept; nft add rule inet blind input iifname culvert0 drop")
	want(t, c.probe(t, "10.130.0.0/16"), "10.130.0.0/16", Blocked, "drops the answers") // what it would be without "related"
}

// All prefixes of a cluster that is gone are silent together, in the time of one.
func TestNamespaceSilentCluster(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	c := connect(t)
	c.mute.Store(true)
	start := time.Now()
	for prefix, r := range c.probe(t, subnets) {
		if r.Verdict != Silent {
			t.Errorf("%s is %s", prefix, r.Verdict)
		}
	}
	if took := time.Since(start); took < patience[0]+patience[1] {
		t.Errorf("given up after %v", took)
	}
}
