package policy

import "testing"

func TestLost(t *testing.T) {
	plan := func(extra string, flags ...string) Plan {
		return NewPlan(Input{Cluster: lab, Facts: host(t, office+extra), Settings: settings(t, flags...)})
	}
	free, vpn := plan(""), plan("link tun0 tun p2p\n10.132.64.0/18 dev tun0", "--on-conflict=yield")
	same(t, "VPN comes", prefixTexts(Lost(free, vpn)), "10.132.64.0/18")
	virtual := Virtual{V4: DefaultVirtualSubnet}
	hide := func(extra string) Plan {
		p := NewPlan(Input{Cluster: lab, Facts: host(t, office+extra), Settings: settings(t, "--on-conflict=virtualize"), Virtual: virtual})
		virtual = virtual.Keep(p.Undivided)
		return p
	}
	native, hidden := hide(""), hide("link tun0 tun p2p\n10.132.64.0/18 dev tun0\n246.132.64.0/18 dev tun0")
	same(t, "VPN comes, virtual addresses take over", prefixTexts(Lost(native, hidden)), "10.132.64.0/18")
	same(t, "VPN goes, virtual addresses stay", prefixTexts(Lost(hidden, native)), "")
	agent := func(rules ...RoutingRule) Plan {
		return NewPlan(Input{Cluster: lab, Facts: host(t, office), Settings: withRules(Settings{}, rules...), Virtual: virtual})
	}
	same(t, "a workload takes over", prefixTexts(Lost(native, agent(viaWorkload("10.132.64.0/18", "echo")))), "10.132.64.0/18 246.132.64.0/18")
	echo := agent(viaWorkload("pods", "echo"))
	same(t, "the gateway takes over", prefixTexts(Lost(echo, native)), "246.132.0.0/16")
	same(t, "another takes over", prefixTexts(Lost(echo, agent(viaWorkload("pods", "web")))), "246.132.0.0/16")
	same(t, "another takes over a part", prefixTexts(Lost(echo, agent(viaWorkload("10.132.0.0/17", "web"), viaWorkload("10.132.128.0/17", "echo")))), "246.132.0.0/17")
	same(t, "the same workload", prefixTexts(Lost(echo, echo)), "")
	same(t, "VPN goes", prefixTexts(Lost(vpn, free)), "")
	same(t, "nothing happens", prefixTexts(Lost(vpn, vpn)), "")
	same(t, "all goes", prefixTexts(Lost(free, Plan{})), "10.130.0.0/16 10.132.0.0/16")
}
