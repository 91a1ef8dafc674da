package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// twinsOf reads "REAL VIRTUAL" lines.
func twinsOf(text string) []Twin {
	var out []Twin
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 {
			out = append(out, Twin{Real: netip.MustParsePrefix(f[0]), Virtual: netip.MustParsePrefix(f[1])})
		}
	}
	return out
}

func TestTwins(t *testing.T) {
	ula := netip.MustParsePrefix("fd12:3456:789a::/48")
	for name, tc := range map[string]struct {
		cluster  Cluster
		host     string
		flags    []string
		assigned string
		v4       string
		want     string // "REAL VIRTUAL" or "REAL REASON" lines
	}{
		"the same low octets": {cluster: lab, want: `10.130.0.0/16 246.130.0.0/16
			10.132.0.0/16 246.132.0.0/16`},
		"IPv6, in the ULA": {cluster: cluster("fd00:aa:0:1::/112"), want: "fd00:aa:0:1::/112 fd12:3456:789a:1::/112"},
		"two that would have one twin": {cluster: cluster("10.132.0.0/16", "172.132.0.0/16"), want: `10.132.0.0/16 246.132.0.0/16
			172.132.0.0/16 246.133.0.0/16`},
		"at the end of the subnet on with its beginning": {cluster: cluster("10.255.0.0/16", "172.255.0.0/16"), want: `10.255.0.0/16 246.255.0.0/16
			172.255.0.0/16 246.0.0.0/16`},
		"a host route in the way": {cluster: cluster("10.130.0.0/16"), host: "link tun0 tun p2p\n246.130.9.0/24 dev tun0",
			want: "10.130.0.0/16 246.131.0.0/16"},
		"our own route is in nobody's way": {cluster: cluster("10.130.0.0/16"), host: "link culvert0 tun p2p\n246.130.0.0/16 dev culvert0",
			want: "10.130.0.0/16 246.130.0.0/16"},
		"a cluster in class E": {cluster: cluster("246.130.0.0/16"), want: "246.130.0.0/16 246.131.0.0/16"},
		"the host routes all of it": {cluster: cluster("10.130.0.0/16"), host: "blackhole 240.0.0.0/4",
			want: "10.130.0.0/16 no room in the virtual subnet 246.0.0.0/8"},
		"a default route, in halves too, is not in the way": {cluster: cluster("10.130.0.0/16"), host: "link tun0 tun p2p\n0.0.0.0/1 dev tun0\n128.0.0.0/1 dev tun0",
			want: "10.130.0.0/16 246.130.0.0/16"},
		"1/16 of the subnet, and more": {cluster: cluster("10.16.0.0/12", "172.0.0.0/11"), want: `10.16.0.0/12 246.16.0.0/12
			172.0.0.0/11 larger than 1/16 of the virtual subnet 246.0.0.0/8`},
		"a small subnet": {cluster: cluster("10.130.0.0/24", "10.132.0.0/20"), v4: "211.55.48.0/20", want: `10.130.0.0/24 211.55.48.0/24
			10.132.0.0/20 larger than 1/16 of the virtual subnet 211.55.48.0/20`},
		"one twin for what lies in another": {cluster: cluster("10.132.4.0/24", "10.132.0.0/16"), flags: []string{"--also-proxy=10.132.8.0/24"},
			want: "10.132.0.0/16 246.132.0.0/16"},
		"assigned before": {cluster: lab, assigned: "10.130.0.0/16 246.9.0.0/16", want: `10.130.0.0/16 246.9.0.0/16
			10.132.0.0/16 246.132.0.0/16`},
		"what another had is kept for it": {cluster: cluster("10.130.0.0/16"), assigned: "10.77.0.0/16 246.130.0.0/16", want: "10.130.0.0/16 246.131.0.0/16"},
		"assigned before, now the host's": {cluster: cluster("10.130.0.0/16"), assigned: "10.130.0.0/16 246.9.0.0/16", host: "blackhole 246.9.3.0/24",
			want: "10.130.0.0/16 246.130.0.0/16"},
		"grown": {cluster: cluster("", "10.132.0.0/23"), assigned: "10.132.1.0/24 246.9.1.0/24", want: "10.132.0.0/23 246.9.0.0/23"},
		"grown, but the twin lies otherwise in its surroundings": {cluster: cluster("", "10.132.0.0/23"), assigned: "10.132.1.0/24 246.9.4.0/24",
			want: "10.132.0.0/23 246.132.0.0/23"},
		"grown, but the rest of the twin was another's": {cluster: cluster("", "10.132.0.0/23"), want: "10.132.0.0/23 246.132.0.0/23",
			assigned: "10.132.1.0/24 246.9.1.0/24\n10.77.0.0/24 246.9.0.0/24"},
		"shrunk": {cluster: cluster("", "10.132.1.0/24"), assigned: "10.132.0.0/23 246.9.4.0/23", want: "10.132.1.0/24 246.9.5.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			v4 := DefaultVirtualSubnet
			if tc.v4 != "" {
				v4 = netip.MustParsePrefix(tc.v4)
			}
			p := NewPlan(Input{
				Cluster: tc.cluster, Facts: host(t, office+tc.host), Settings: settings(t, tc.flags...), Own: Own{Interface: "culvert0"},
				Virtual: Virtual{V4: v4, V6: ula, Assigned: twinsOf(tc.assigned)},
			})
			var lines []string
			for _, x := range p.Twins {
				text := x.Reason
				if x.Virtual.IsValid() {
					text += x.Virtual.String()
				}
				lines = append(lines, x.Real.String()+" "+text)
			}
			same(t, "twins", strings.Join(lines, " "), strings.Join(strings.Fields(tc.want), " "))
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

// TestTwinsLieApart allocates twins on random hosts in a virtual subnet among everything else, and again
// after a change with what the first plan assigned.
func TestTwinsLieApart(t *testing.T) {
	seed, rounds := testSeed(t), 400
	for round := range rounds {
		h := randomHost{rand.New(rand.NewPCG(seed, uint64(round))), IPv4}
		in := h.input()
		in.Virtual.V4 = netip.MustParsePrefix("10.128.0.0/10")
		before := NewPlan(in)
		apart(t, in, before)
		in.Virtual.Assigned = before.Twins
		if again := NewPlan(in); !slices.Equal(again.Twins, before.Twins) {
			t.Errorf("seed %d round %d: assigned %v, then %v", seed, round, before.Twins, again.Twins)
		}
		in = h.changed(in)
		apart(t, in, NewPlan(in))
		if t.Failed() {
			t.Fatalf("seed %d round %d", seed, round)
		}
	}
}

// apart checks that twins are as long as what they stand for, within the virtual subnet, and overlap
// neither each other nor a route of the host nor a wanted prefix.
func apart(t *testing.T, in Input, p Plan) {
	t.Helper()
	var others []netip.Prefix
	for _, r := range in.Facts.Routes {
		if !isDefault(r) {
			others = append(others, r.Prefix)
		}
	}
	for _, w := range wants(in.Cluster, in.Settings) {
		others = append(others, w.prefix)
	}
	for _, x := range p.Twins {
		if x.Virtual.IsValid() == (x.Reason != "") {
			t.Errorf("%+v has a twin and a reason, or neither", x)
		}
		if !x.Virtual.IsValid() {
			continue
		}
		if x.Virtual != x.Virtual.Masked() || x.Virtual.Bits() != x.Real.Bits() || !covers(in.Virtual.V4, x.Virtual) {
			t.Errorf("%v is no twin of %v in %v", x.Virtual, x.Real, in.Virtual.V4)
		}
		if i := slices.IndexFunc(others, x.Virtual.Overlaps); i >= 0 {
			t.Errorf("the twin %v of %v overlaps %v", x.Virtual, x.Real, others[i])
		}
		others = append(others, x.Virtual)
	}
}

// TestPlannerMovesTwins: a route that only a twin is concerned with comes and goes.
func TestPlannerMovesTwins(t *testing.T) {
	free, taken := host(t, office), host(t, office+"blackhole 246.130.9.0/24")
	var p Planner
	for i, facts := range []Facts{free, taken, free} {
		in := Input{Cluster: lab, Facts: facts, Virtual: Virtual{V4: DefaultVirtualSubnet}}
		got, want := p.Plan(in), decide(in, wishesOf(in))
		if !got.Equal(want) || (got.Twins[0].Virtual.Addr() == netip.MustParseAddr("246.130.0.0")) != (i != 1) {
			t.Errorf("step %d: %v, want %v", i, got.Twins, want.Twins)
		}
	}
}
