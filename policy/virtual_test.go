package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// twinsOf reads "REAL VIRTUAL [pooled]" lines: twins as they are kept, which say no workload.
func twinsOf(text string) []Twin {
	var out []Twin
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 {
			out = append(out, Twin{Real: netip.MustParsePrefix(f[0]), Virtual: netip.MustParsePrefix(f[1]), Pooled: len(f) > 2})
		}
	}
	return out
}

// twinTexts is the inverse, in one line, with reasons.
func twinTexts(twins []Twin) string {
	var out []string
	for _, x := range twins {
		out = append(out, x.Real.String())
		if x.Virtual.IsValid() {
			out = append(out, x.Virtual.String())
		}
		if x.Pooled {
			out = append(out, "pooled")
		}
		if x.Via != "" {
			out = append(out, "via "+x.Via)
		}
		out = append(out, strings.Fields(x.Reason)...)
	}
	return strings.Join(out, " ")
}

func TestTwins(t *testing.T) {
	ula := netip.MustParsePrefix("fd12:3456:789a::/48")
	for name, tc := range map[string]struct {
		cluster  Cluster
		host     string
		flags    []string
		assigned string
		v4       string
		noClassE bool
		rules    []RoutingRule
		want     string // "REAL VIRTUAL [pooled] [via WORKLOAD]" or "REAL REASON" lines
		pools    string
	}{
		"the same low octets": {cluster: lab, want: `10.130.0.0/16 246.130.0.0/16
			10.132.0.0/16 246.132.0.0/16`},
		"IPv6, in the ULA": {cluster: cluster("fd00:aa:0:1::/112"), want: "fd00:aa:0:1::/112 fd12:3456:789a:1::/112"},
		"two that would have one twin": {cluster: cluster("10.132.0.0/16", "172.132.0.0/16"), want: `10.132.0.0/16 246.132.0.0/16
			172.132.0.0/16 246.133.0.0/16`},
		"at the end of the subnet on with its beginning": {cluster: cluster("10.239.0.0/16", "172.239.0.0/16"), want: `10.239.0.0/16 246.239.0.0/16
			172.239.0.0/16 246.0.0.0/16`},
		"not where the pool is, or would be": {cluster: cluster("10.250.0.0/16"), want: "10.250.0.0/16 246.0.0.0/16"},
		"a host route in the way": {cluster: cluster("10.130.0.0/16"), host: "link tun0 tun p2p\n246.130.9.0/24 dev tun0",
			want: "10.130.0.0/16 246.131.0.0/16"},
		"our own route is in nobody's way": {cluster: cluster("10.130.0.0/16"), host: "link culvert0 tun p2p\n246.130.0.0/16 dev culvert0",
			want: "10.130.0.0/16 246.130.0.0/16"},
		"a cluster in class E": {cluster: cluster("246.130.0.0/16"), want: "246.130.0.0/16 246.131.0.0/16"},
		"the host routes all of it": {cluster: cluster("10.130.0.0/16"), host: "blackhole 240.0.0.0/4",
			want: "10.130.0.0/16 250.130.0.0/16 pooled", pools: "246.240.0.0/12"},
		"a default route, in halves too, is not in the way": {cluster: cluster("10.130.0.0/16"), host: "link tun0 tun p2p\n0.0.0.0/1 dev tun0\n128.0.0.0/1 dev tun0",
			want: "10.130.0.0/16 246.130.0.0/16"},
		"1/16 of the subnet, and more": {cluster: cluster("10.16.0.0/12", "172.0.0.0/11"), want: `10.16.0.0/12 246.16.0.0/12
			172.0.0.0/11 252.0.0.0/11 pooled`, pools: "246.240.0.0/12"},
		"1/16 of the subnet sixteen times, and the pool is one of it": {cluster: cluster("", "16.0.0.0/8", "18.0.0.0/12"), v4: "240.0.0.0/8",
			want: "16.0.0.0/8 241.0.0.0/8 pooled 18.0.0.0/12 240.0.0.0/12", pools: "240.240.0.0/12"},
		"a prefix that has no place on the wire": {cluster: cluster("", "64.0.0.0/4"), want: "64.0.0.0/4 no room for it beside the virtual subnet 246.0.0.0/8 in 240.0.0.0/4"},
		"wire prefixes keep away from the subnet, overlays, the cluster and the end": {cluster: cluster("", "6.0.0.0/8", "3.0.0.0/8", "15.0.0.0/8", "247.0.0.0/16"),
			want: "3.0.0.0/8 248.0.0.0/8 pooled 6.0.0.0/8 249.0.0.0/8 pooled 15.0.0.0/8 240.0.0.0/8 pooled 247.0.0.0/16 246.0.0.0/16", pools: "246.240.0.0/12"},
		"a small subnet": {cluster: cluster("10.130.0.0/24", "10.132.0.0/20"), v4: "211.55.48.0/20", want: `10.130.0.0/24 250.130.0.0/24 pooled
			10.132.0.0/20 250.132.0.0/20 pooled`, pools: "211.55.48.0/20"},
		"a small subnet of class E":        {cluster: cluster("10.130.0.0/24"), v4: "246.1.0.0/20", want: "10.130.0.0/24 250.130.0.0/24 pooled", pools: "246.1.0.0/20"},
		"a host that cannot route class E": {cluster: cluster("10.130.0.0/24"), noClassE: true, want: "10.130.0.0/24 250.130.0.0/24 pooled", pools: "246.0.0.0/8"},
		"all of class E: its end is left out": {cluster: cluster("", "31.0.0.0/8", "32.0.0.0/7"), v4: "240.0.0.0/4",
			want: "31.0.0.0/8 240.0.0.0/8 32.0.0.0/7 no room for it beside the virtual subnet 240.0.0.0/4 in 240.0.0.0/4"},
		"the end of class E: so is it of the pool": {cluster: cluster("", "10.0.0.0/8"), v4: "254.0.0.0/7", want: "10.0.0.0/8 250.0.0.0/8 pooled", pools: "254.224.0.0/11"},
		"IPv6, too large for the ULA":              {cluster: cluster("", "fd00:aa::/48"), want: "fd00:aa::/48 fdfd:ec7f:d9d8::/48 pooled", pools: "fd12:3456:789a:f000::/52"},
		"the gateway has no loopback": {cluster: Cluster{}, rules: []RoutingRule{via("127.1.0.0/16"), via("::1/128")},
			want: "127.1.0.0/16 the gateway has no loopback to offer ::1/128 the gateway has no loopback to offer"},
		"nor if a workload's had been in use": {cluster: Cluster{}, rules: []RoutingRule{via("127.1.0.0/16")}, assigned: "127.1.0.0/16 240.0.0.0/16 pooled",
			want: "127.1.0.0/16 the gateway has no loopback to offer"},
		"a workload's loopback": {cluster: Cluster{}, rules: []RoutingRule{viaWorkload("127.0.0.0/8", "echo"), viaWorkload("::1/128", "shop/web")},
			want: "127.0.0.0/8 240.0.0.0/8 pooled via echo ::1/128 fdfd:ec7f:d9d8::1/128 pooled via shop/web", pools: "246.240.0.0/12 fd12:3456:789a:f000::/52"},
		"a part of a workload's loopback, which would fit": {cluster: Cluster{}, rules: []RoutingRule{viaWorkload("127.0.0.53/32", "echo")},
			want: "127.0.0.53/32 240.0.0.0/32 pooled via echo", pools: "246.240.0.0/12"},
		"a workload for all pods": {cluster: lab, rules: []RoutingRule{viaWorkload("pods", "shop/deployment/echo")}, want: `10.130.0.0/16 246.130.0.0/16
			10.132.0.0/16 246.132.0.0/16 via shop/deployment/echo`},
		"a workload for some": {cluster: lab, rules: []RoutingRule{viaWorkload("10.132.64.0/18", "echo")}, want: `10.130.0.0/16 246.130.0.0/16
			10.132.0.0/18 246.132.0.0/18 10.132.64.0/18 246.132.64.0/18 via echo 10.132.128.0/17 246.132.128.0/17`},
		"two for two parts": {cluster: lab, rules: []RoutingRule{viaWorkload("10.132.0.0/17", "echo"), viaWorkload("10.132.128.0/17", "web")}, want: `10.130.0.0/16 246.130.0.0/16
			10.132.0.0/17 246.132.0.0/17 via echo 10.132.128.0/17 246.132.128.0/17 via web`},
		"a workload for more than the cluster": {cluster: lab, rules: []RoutingRule{viaWorkload("10.0.0.0/8", "echo")}, want: "10.0.0.0/8 250.0.0.0/8 pooled via echo",
			pools: "246.240.0.0/12"},
		"a workload beyond the cluster": {cluster: lab, rules: []RoutingRule{viaWorkload("240.240.0.0/16", "echo")}, want: `10.130.0.0/16 246.130.0.0/16
			10.132.0.0/16 246.132.0.0/16 240.240.0.0/16 246.0.0.0/16 via echo`},
		"the gateway divides nothing": {cluster: lab, rules: []RoutingRule{via("10.132.64.0/18")}, want: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16"},
		"nor does a workload within its own": {cluster: lab, rules: []RoutingRule{viaWorkload("10.132.0.0/16", "echo"), viaWorkload("10.132.64.0/18", "echo")},
			want: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16 via echo"},
		"also-proxied within a workload's": {cluster: lab, flags: []string{"--also-proxy=10.132.0.0/17"}, rules: []RoutingRule{viaWorkload("10.132.0.0/16", "echo")},
			want: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/17 246.132.0.0/17 10.132.128.0/17 246.132.128.0/17 via echo"},
		"assigned before a workload had a part": {cluster: cluster("", "10.132.0.0/23"), assigned: "10.132.0.0/23 246.9.0.0/23", rules: []RoutingRule{viaWorkload("10.132.1.0/24", "echo")},
			want: "10.132.0.0/24 246.9.0.0/24 10.132.1.0/24 246.9.1.0/24 via echo"},
		"assigned while a workload had a part": {cluster: cluster("", "10.132.0.0/23"), assigned: "10.132.0.0/24 246.9.0.0/24\n10.132.1.0/24 246.9.1.0/24",
			want: "10.132.0.0/23 246.9.0.0/23"},
		"one twin for what lies in another": {cluster: cluster("10.132.4.0/24", "10.132.0.0/16"), flags: []string{"--also-proxy=10.132.8.0/24"},
			want: "10.132.0.0/16 246.132.0.0/16"},
		"assigned before": {cluster: lab, assigned: "10.130.0.0/16 246.9.0.0/16", want: `10.130.0.0/16 246.9.0.0/16
			10.132.0.0/16 246.132.0.0/16`},
		"what another had is kept for it": {cluster: cluster("10.130.0.0/16"), assigned: "10.77.0.0/16 246.130.0.0/16", want: "10.130.0.0/16 246.131.0.0/16"},
		"assigned before, now the host's, and still ours": {cluster: cluster("10.130.0.0/16"), assigned: "10.130.0.0/16 246.9.0.0/16", host: "blackhole 246.9.3.0/24",
			want: "10.130.0.0/16 246.9.0.0/16"},
		"assigned before, now the cluster has it too": {cluster: cluster("10.130.0.0/16", "246.9.0.0/16"), assigned: "10.130.0.0/16 246.9.0.0/16",
			want: "10.130.0.0/16 246.9.0.0/16 246.9.0.0/16 246.10.0.0/16"},
		"pooled before, though it would fit": {cluster: cluster("10.130.0.0/16"), assigned: "10.128.0.0/9 247.128.0.0/9 pooled",
			want: "10.130.0.0/16 247.130.0.0/16 pooled", pools: "246.240.0.0/12"},
		"assigned in another subnet, or where the pool is": {cluster: lab, assigned: "10.130.0.0/16 247.9.0.0/16\n10.132.0.0/16 246.250.0.0/16",
			want: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16"},
		"assigned with nonsense": {cluster: cluster("10.130.0.0/16"), assigned: "10.130.0.0/16 246.9.0.0/17\n10.130.0.0/17 246.9.0.0/17\nfd00::/16 246.9.0.0/16\n10.130.128.0/17 246.9.0.0/17",
			want: "10.130.0.0/16 246.9.0.0/16"},
		"grown": {cluster: cluster("", "10.132.0.0/23"), assigned: "10.132.1.0/24 246.9.1.0/24", want: "10.132.0.0/23 246.9.0.0/23"},
		"grown over two that fit": {cluster: cluster("", "10.132.0.0/22"), assigned: "10.132.1.0/24 246.9.1.0/24\n10.132.2.0/24 246.9.2.0/24",
			want: "10.132.0.0/22 246.9.0.0/22"},
		"grown over two that do not fit": {cluster: cluster("", "10.132.0.0/22"), assigned: "10.132.1.0/24 246.9.1.0/24\n10.132.2.0/24 246.9.9.0/24",
			want: "10.132.0.0/24 246.132.0.0/24 10.132.1.0/24 246.9.1.0/24 10.132.2.0/24 246.9.9.0/24 10.132.3.0/24 246.132.3.0/24"},
		"grown, but the twin lies otherwise in its surroundings": {cluster: cluster("", "10.132.0.0/23"), assigned: "10.132.1.0/24 246.9.4.0/24",
			want: "10.132.0.0/24 246.132.0.0/24 10.132.1.0/24 246.9.4.0/24"},
		"grown, but the rest of the twin was another's": {cluster: cluster("", "10.132.0.0/23"), want: "10.132.0.0/24 246.132.0.0/24 10.132.1.0/24 246.9.1.0/24",
			assigned: "10.132.1.0/24 246.9.1.0/24\n10.77.0.0/24 246.9.0.0/24"},
		"grown, but the rest of the twin is the host's": {cluster: cluster("", "10.132.0.0/23"), host: "blackhole 246.9.0.0/23",
			want: "10.132.0.0/24 246.132.0.0/24 10.132.1.0/24 246.9.1.0/24", assigned: "10.132.1.0/24 246.9.1.0/24"},
		"grown too large, the part that was stays": {cluster: cluster("", "10.128.0.0/11"), assigned: "10.128.0.0/12 246.128.0.0/12",
			want: "10.128.0.0/12 246.128.0.0/12 10.144.0.0/12 246.144.0.0/12"},
		"a part that had its own keeps it": {cluster: cluster("", "10.132.0.0/22"), assigned: "10.132.0.0/22 246.9.0.0/22\n10.132.1.0/24 246.7.1.0/24",
			want: "10.132.0.0/24 246.9.0.0/24 10.132.1.0/24 246.7.1.0/24 10.132.2.0/23 246.9.2.0/23"},
		"shrunk": {cluster: cluster("", "10.132.1.0/24"), assigned: "10.132.0.0/23 246.9.4.0/23", want: "10.132.1.0/24 246.9.5.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			v4 := DefaultVirtualSubnet
			if tc.v4 != "" {
				v4 = netip.MustParsePrefix(tc.v4)
			}
			p := NewPlan(Input{
				Cluster: tc.cluster, Facts: host(t, office+tc.host), Settings: withRules(settings(t, tc.flags...), tc.rules...), Own: Own{Interface: "culvert0"},
				Virtual: Virtual{V4: v4, V6: ula, NoClassE: tc.noClassE, Assigned: twinsOf(tc.assigned)},
			})
			same(t, "twins", twinTexts(p.Twins), strings.Join(strings.Fields(tc.want), " "))
			same(t, "pools", prefixTexts(p.Pools), tc.pools)
		})
	}
}

func TestNoVirtualSubnetNoTwins(t *testing.T) {
	if p := NewPlan(Input{Cluster: lab, Facts: host(t, office)}); p.Twins != nil {
		t.Errorf("got %v", p.Twins)
	}
	p := NewPlan(Input{Cluster: lab, Facts: host(t, office), Virtual: Virtual{V6: netip.MustParsePrefix("fd12::/48")}})
	if len(p.Twins) != 2 || p.Twins[0].Reason != "there is no virtual subnet for IPv4" {
		t.Errorf("got %v", p.Twins)
	}
}

// TestTwinsLieApart allocates twins on random hosts, and again after many a change with what the plans
// before assigned. What stands for an address never changes.
func TestTwinsLieApart(t *testing.T) {
	seed, rounds := testSeed(t), 200
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		h := randomHost{rand.New(rand.NewPCG(seed, uint64(round))), IPv4}
		if round%3 == 0 {
			h.family = IPv6
		}
		in := h.input()
		in.Virtual = randomVirtual
		for step := range 8 {
			before := NewPlan(in)
			apart(t, in, before)
			in.Virtual = in.Virtual.Keep(before.Undivided)
			if again := NewPlan(in); !slices.Equal(again.Twins, before.Twins) {
				t.Errorf("assigned %v, then %v", before.Twins, again.Twins)
			}
			for range 4 {
				in = h.changed(in)
			}
			unmoved(t, before.Twins, NewPlan(in).Twins)
			if t.Failed() {
				t.Fatalf("seed %d round %d step %d", seed, round, step)
			}
		}
	}
}

// apart checks that twins are as long as what they stand for, lie where those of their kind do, stand
// for all that is wanted and overlap neither each other nor a wanted prefix nor, if they are new and
// programs use them, a route of the host.
func apart(t *testing.T, in Input, p Plan) {
	t.Helper()
	var cluster, others, reals []netip.Prefix
	old := rangesOf()
	for _, x := range in.Virtual.Assigned {
		old = joined(old, rangesOf(x.Virtual))
	}
	for _, w := range wishesOf(in).wants {
		cluster = append(cluster, w.prefix)
	}
	for _, x := range p.Twins {
		if x.Virtual.IsValid() == (x.Reason != "") {
			t.Errorf("%+v has a twin and a reason, or neither", x)
		}
		if slices.ContainsFunc(reals, x.Real.Overlaps) {
			t.Errorf("two twins for a part of %v: %v", x.Real, p.Twins)
		}
		reals = append(reals, x.Real)
		if !x.Virtual.IsValid() {
			continue
		}
		if i := slices.IndexFunc(others, x.Virtual.Overlaps); i >= 0 {
			t.Errorf("the twin %v of %v overlaps %v", x.Virtual, x.Real, others[i])
		}
		others = append(others, x.Virtual)
		if isLoopback(x.Real) && (x.Via == "" || !x.Pooled) {
			t.Errorf("loopback as %+v", x)
		}
		inPlace(t, in, x)
		if old.covers(x.Virtual) {
			continue
		}
		if i := slices.IndexFunc(cluster, x.Virtual.Overlaps); i >= 0 && !old.overlaps(x.Virtual) {
			t.Errorf("the twin %v of %v overlaps %v of the cluster", x.Virtual, x.Real, cluster[i])
		}
		for _, r := range in.Facts.Routes {
			if !x.Pooled && !isDefault(r) && r.Prefix.Overlaps(x.Virtual) && !old.overlaps(r.Prefix) && !old.overlaps(x.Virtual) {
				t.Errorf("the new twin %v of %v overlaps the host's %v", x.Virtual, x.Real, r.Prefix)
			}
		}
	}
	for _, v := range p.Vias {
		if len(v.Twins) == 0 || len(v.Twins) > maxTwins {
			t.Errorf("the agent in %s is told of %d twins", v.Workload, len(v.Twins))
		}
	}
	for _, x := range p.Twins {
		told := p.PeerTwins
		if i := slices.IndexFunc(p.Vias, func(v Via) bool { return v.Workload == x.Via }); i >= 0 {
			told = p.Vias[i].Twins
		}
		if x.Virtual.IsValid() && !slices.ContainsFunc(told, func(y Twin) bool { return y.says(x) }) {
			t.Errorf("nobody is told of %+v: %v", x, told)
		}
	}
	if len(p.PeerTwins) > maxTwins {
		t.Errorf("a Peer is told of %d twins", len(p.PeerTwins))
	}
	if set := rangesOf(reals...); slices.ContainsFunc(cluster, func(p netip.Prefix) bool { return !set.covers(p) }) {
		t.Errorf("%v do not stand for all of %v", reals, cluster)
	}
}

// inPlace checks where one twin lies.
func inPlace(t *testing.T, in Input, x Twin) {
	t.Helper()
	subnet, wire, pool := in.Virtual.V4, netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("246.240.0.0/12")
	if x.Real.Addr().Is6() {
		subnet, wire, pool = in.Virtual.V6, netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("fd46:0:f::/48")
	}
	right := x.Virtual == x.Virtual.Masked() && x.Virtual.Bits() == x.Real.Bits() && covers(wire, x.Virtual) &&
		x.Pooled != covers(subnet, x.Virtual) && !pool.Overlaps(x.Virtual)
	if !right {
		t.Errorf("%+v is no twin in %v", x, subnet)
	}
	a := lastAddr(x.Real)
	if back := x.RealOf(x.VirtualOf(a)); back != a || x.VirtualOf(a) != lastAddr(x.Virtual) {
		t.Errorf("%+v: %v stands for %v, which stands for %v", x, x.VirtualOf(a), a, back)
	}
}

// unmoved checks that what stood for an address still does, if anything does.
func unmoved(t *testing.T, before, after []Twin) {
	t.Helper()
	for _, x := range before {
		for _, y := range after {
			if y.Reason == noLoopback {
				continue
			}
			for _, a := range []netip.Addr{x.Real.Addr(), lastAddr(x.Real), y.Real.Addr(), lastAddr(y.Real)} {
				was, is := x.VirtualOf(a), y.VirtualOf(a)
				if was.IsValid() && y.Real.Contains(a) && (was != is || x.Pooled != y.Pooled) {
					t.Errorf("%v was %v in %+v and is %v in %+v", a, was, x, is, y)
				}
			}
		}
	}
}

// TestPlannerLeavesTwins: a route into a twin comes and goes. The twin stays where a plan was kept; a new
// one keeps out of the way.
func TestPlannerLeavesTwins(t *testing.T) {
	free, taken := host(t, office), host(t, office+"blackhole 246.130.9.0/24")
	for _, kept := range []bool{false, true} {
		var p Planner
		virtual := Virtual{V4: DefaultVirtualSubnet}
		for i, facts := range []Facts{free, taken, free} {
			in := Input{Cluster: lab, Facts: facts, Virtual: virtual}
			got, want := p.Plan(in), decide(in, wishesOf(in))
			if there := got.Twins[0].Virtual.Addr() == netip.MustParseAddr("246.130.0.0"); !got.Equal(want) || there != (kept || i != 1) {
				t.Errorf("step %d: %v, want %v", i, got.Twins, want.Twins)
			}
			if warned := strings.Contains(strings.Join(got.Warnings, "\n"), "246.130.9.0/24 blackhole"); warned != (kept && i == 1) {
				t.Errorf("step %d: warnings %q", i, got.Warnings)
			}
			if kept {
				virtual = virtual.Keep(got.Undivided)
			}
		}
	}
}

func TestKeep(t *testing.T) {
	v := Virtual{Assigned: twinsOf("10.132.1.0/24 246.9.1.0/24\n10.132.8.0/24 246.1.1.0/24")}
	kept := v.Keep(twinsOf("10.132.0.0/16 246.9.0.0/16\n10.130.0.0/16 246.130.0.0/16\n10.132.8.0/24 246.2.2.0/24"))
	kept = kept.Keep([]Twin{{Real: netip.MustParsePrefix("10.9.0.0/16"), Reason: "no room"}})
	same(t, "kept", twinTexts(kept.Assigned), "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.9.0.0/16 10.132.8.0/24 246.2.2.0/24")
	same(t, "before", twinTexts(v.Assigned), "10.132.1.0/24 246.9.1.0/24 10.132.8.0/24 246.1.1.0/24")
}

// TestTwinThatIsReal: a cluster comes to have the addresses that stand for others. They go on standing
// for those, and have others that stand for them.
func TestTwinThatIsReal(t *testing.T) {
	in := Input{
		Cluster: cluster("10.130.0.0/16", "246.130.0.0/16"), Facts: host(t, office),
		Virtual: Virtual{V4: DefaultVirtualSubnet, Assigned: twinsOf("10.130.0.0/16 246.130.0.0/16")},
	}
	p := NewPlan(in)
	same(t, "twins", twinTexts(p.Twins), "10.130.0.0/16 246.130.0.0/16 246.130.0.0/16 246.131.0.0/16")
	same(t, "AllowedIPs", prefixTexts(p.AllowedIPs), "10.130.0.0/16 246.130.0.0/15")
	e := Explain(in, netip.MustParseAddr("246.130.4.7"))
	if e.Real != netip.MustParseAddr("10.130.4.7") || e.Twin.IsValid() || e.Subnet != netip.MustParsePrefix("10.130.0.0/16") || e.Outcome != OutcomeTunnel {
		t.Errorf("%+v", e)
	}
	if e := Explain(in, netip.MustParseAddr("246.131.4.7")); e.Real != netip.MustParseAddr("246.130.4.7") {
		t.Errorf("%+v", e)
	}
}

// TestManyTwins: a cluster whose nodes come and go in any order, each with pods of its own, has at most as
// many twins as a Peer has room for, and none of them ever moves.
func TestManyTwins(t *testing.T) {
	seed := testSeed(t)
	r := rand.New(rand.NewPCG(seed, 0))
	nodes := r.Perm(600)
	in := Input{Facts: host(t, office), Virtual: Virtual{V4: DefaultVirtualSubnet, V6: netip.MustParsePrefix("fd99::/48")}}
	in.Cluster = cluster("10.130.0.0/16", "fd12::/64")
	most := 0
	var before []Twin
	for i, n := range nodes {
		pods := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(140 + n/120), byte(2 * (n % 120)), 0}), 24)
		in.Cluster.Pods = append(slices.Clone(in.Cluster.Pods), Subnet{Prefix: pods})
		if i%5 == 4 {
			in.Cluster.Pods = slices.Delete(in.Cluster.Pods, 1, 2) // a node that leaves
		}
		p := NewPlan(in)
		apart(t, in, p)
		unmoved(t, before, p.Twins)
		in.Virtual, before = in.Virtual.Keep(p.Undivided), p.Twins
		most = max(most, len(p.Twins))
		for _, x := range p.Twins {
			if x.Pooled || !x.Virtual.IsValid() {
				t.Errorf("%d nodes: %+v", i+1, x)
			}
		}
		if t.Failed() {
			t.Fatalf("after %d nodes: %s", i+1, twinTexts(p.Twins))
		}
	}
	if most > maxTwins || len(before) < 5 {
		t.Errorf("%d twins at most, %d in the end", most, len(before))
	}
	e := Explain(in, netip.MustParseAddr("246.141.1.9")) // between two nodes
	if e.Reason != "stands for 10.141.1.9, which is no address of the cluster" || e.Outcome != OutcomeTunnel {
		t.Errorf("%+v", e)
	}
	if e := Explain(in, e.Real); e.Outcome != OutcomeOutside || e.Twin.IsValid() {
		t.Errorf("%+v", e)
	}
}

// TestNoRoomForTwins: what earlier plans have split leaves no room in a Peer.
func TestNoRoomForTwins(t *testing.T) {
	in := Input{Facts: host(t, office), Cluster: cluster("10.0.0.0/16", "10.132.0.0/16"), Virtual: Virtual{V4: DefaultVirtualSubnet}}
	for i := range 40 {
		in.Virtual.Assigned = append(in.Virtual.Assigned, Twin{
			Real:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 132, byte(2 * i), 0}), 24),
			Virtual: netip.PrefixFrom(netip.AddrFrom4([4]byte{246, byte(i), 7, 0}), 24),
		})
	}
	p := NewPlan(in)
	valid := 0
	for _, x := range p.Twins {
		if x.Virtual.IsValid() {
			valid++
		}
	}
	last := p.Twins[len(p.Twins)-1]
	if valid != maxTwins || last.Reason != "64 other prefixes have some, and a Peer has no room for more" {
		t.Errorf("%d twins: %s", valid, twinTexts(p.Twins))
	}
	apart(t, in, p)
}
