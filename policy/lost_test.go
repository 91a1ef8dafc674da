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
		virtual = virtual.Keep(p.Twins)
		return p
	}
	native, hidden := hide(""), hide("link tun0 tun p2p\n10.132.64.0/18 dev tun0\n246.132.64.0/18 dev tun0")
	same(t, "VPN comes, virtual addresses take over", prefixTexts(Lost(native, hidden)), "10.132.64.0/18")
	same(t, "VPN goes, virtual addresses stay", prefixTexts(Lost(hidden, native)), "")
	same(t, "VPN goes", prefixTexts(Lost(vpn, free)), "")
	same(t, "nothing happens", prefixTexts(Lost(vpn, vpn)), "")
	same(t, "all goes", prefixTexts(Lost(free, Plan{})), "10.130.0.0/16 10.132.0.0/16")
}
