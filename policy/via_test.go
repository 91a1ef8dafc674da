package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// viaTextsOf shows who is sent what: "gateway 10.130.0.0/16 echo 246.132.0.0/16".
func viaTextsOf(p Plan) string {
	out := []string{"gateway", prefixTexts(p.AllowedIPs)}
	for _, v := range p.Vias {
		out = append(out, v.Workload, prefixTexts(v.AllowedIPs))
	}
	return strings.Join(out, " ")
}

func TestVias(t *testing.T) {
	for name, tc := range map[string]struct {
		cluster Cluster
		rules   []RoutingRule
		want    string // see viaTextsOf
		peer    string // what the Peer is told
	}{
		"none": {cluster: lab, want: "gateway 10.130.0.0/16 10.132.0.0/16 246.130.0.0/16 246.132.0.0/16",
			peer: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16"},
		"all": {cluster: lab, rules: []RoutingRule{viaWorkload("all", "echo")}, want: "gateway  echo 246.130.0.0/16 246.132.0.0/16"},
		"two, the gateway and native ones": {cluster: cluster("10.130.0.0/16", "10.132.0.0/16", "10.134.0.0/16"),
			rules: []RoutingRule{viaWorkload("10.134.0.0/16", "shop/web"), viaWorkload("10.132.64.0/18", "echo"), via("10.132.128.0/17")},
			want:  "gateway 10.130.0.0/16 10.132.0.0/18 246.130.0.0/16 246.132.0.0/18 246.132.128.0/17 echo 246.132.64.0/18 shop/web 246.134.0.0/16",
			peer:  "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16"},
		"one address of many": {cluster: cluster("", "fd00:aa:0:1::/64"), rules: []RoutingRule{viaWorkload("fd00:aa:0:1::7/128", "echo")},
			want: "gateway " + allButSeven("fd00:aa:0:1::/64", "fd12:3456:789a:1::/64") + " echo fd12:3456:789a:1::7/128",
			peer: "fd00:aa:0:1::/64 fd12:3456:789a:1::/64"},
		"loopback": {rules: []RoutingRule{viaWorkload("127.0.0.0/8", "echo"), via("::1/128")}, want: "gateway  echo 240.0.0.0/8"},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{Cluster: tc.cluster, Facts: host(t, office), Settings: withRules(Settings{}, tc.rules...),
				Virtual: Virtual{V4: DefaultVirtualSubnet, V6: netip.MustParsePrefix("fd12:3456:789a::/48")}}
			p := NewPlan(in)
			same(t, "peers", viaTextsOf(p), tc.want)
			same(t, "of the Peer", twinTexts(p.PeerTwins), tc.peer)
			apart(t, in, p)
			in.Virtual = in.Virtual.Keep(p.Undivided)
			in.Settings = Settings{}
			unmoved(t, p.Twins, NewPlan(in).Twins)
		})
	}
}

// allButSeven returns what is left of prefixes without their addresses that end in 7.
func allButSeven(prefixes ...string) string {
	var out []netip.Prefix
	for _, s := range prefixes {
		p := netip.MustParsePrefix(s)
		a := p.Addr().As16()
		a[15] = 7
		out = append(out, lostAmong([]netip.Prefix{p}, []netip.Prefix{hostPrefix(netip.AddrFrom16(a))}).prefixes()...)
	}
	return prefixTexts(out)
}

// TestViaOfManyPods: pods of many nodes, whose twins are gathered, stay one workload's, and the gateway keeps
// those that it has between them.
func TestViaOfManyPods(t *testing.T) {
	in := Input{Facts: host(t, office), Virtual: Virtual{V4: DefaultVirtualSubnet}, Settings: withRules(Settings{}, viaWorkload("pods", "echo"))}
	for i := range 250 {
		in.Cluster.Pods = append(in.Cluster.Pods, Subnet{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 140, byte(i), byte(i * 37 % 4 * 64)}), 27)})
	}
	p := NewPlan(in)
	apart(t, in, p)
	if len(p.Vias) != 1 || len(p.Vias[0].Twins) > maxTwins || len(p.PeerTwins) > 0 {
		t.Errorf("vias %v, of the Peer %v", p.Vias, p.PeerTwins)
	}
	in.Cluster.Services = []Subnet{{Prefix: netip.MustParsePrefix("10.140.100.200/29")}}
	p = NewPlan(in)
	apart(t, in, p)
	for _, n := range in.Cluster.Pods {
		if a := n.Prefix.Addr(); Explain(in, a).Via != "echo" {
			t.Errorf("%s is reached by %q", a, Explain(in, a).Via)
		}
	}
	if e := Explain(in, netip.MustParseAddr("10.140.100.201")); e.Via != "" || e.Outcome != OutcomeTunnel {
		t.Errorf("between: %+v", e)
	}
}

// TestViaOfManyParts: a workload that has more parts than an agent has room for is told of what they are
// parts of, and sent no more than what it has.
func TestViaOfManyParts(t *testing.T) {
	in := Input{Facts: host(t, office), Virtual: Virtual{V4: DefaultVirtualSubnet}, Cluster: cluster("", "10.140.0.0/16", "10.150.0.0/16")}
	for i := range maxTwins + 1 {
		in.Settings.Routing = append(in.Settings.Routing, viaWorkload(fmt.Sprintf("10.140.%d.0/24", 2*i), "echo"))
		p := NewPlan(in)
		apart(t, in, p)
		told := twinTexts(p.Vias[0].Twins)
		if len(p.Vias[0].AllowedIPs) != i+1 || (told == "10.140.0.0/16 246.140.0.0/16") != (i+1 > maxTwins) {
			t.Errorf("%d parts: the agent is told of %s and sent %v", i+1, told, p.Vias[0].AllowedIPs)
		}
		same(t, "of the Peer", twinTexts(p.PeerTwins), "10.140.0.0/16 246.140.0.0/16 10.150.0.0/16 246.150.0.0/16")
	}
}

func TestViaTrace(t *testing.T) {
	p := NewPlan(Input{Cluster: lab, Facts: host(t, office), Virtual: Virtual{V4: DefaultVirtualSubnet}, Settings: withRules(Settings{}, viaWorkload("all", "echo"))})
	if got := fmt.Sprint(p.Trace); !strings.Contains(got, "virtualized=2 agentTwins=2") {
		t.Errorf("trace %s", got)
	}
}
