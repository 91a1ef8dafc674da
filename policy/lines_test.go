package policy

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// seen are inputs that between them have something to say in every section.
func seen(t *testing.T) map[string]Input {
	vpn := office + "link tun0 tun p2p 10.8.0.2/24\n10.0.0.0/8 via 10.8.0.1 dev tun0\n"
	taking := Input{
		Cluster: lab, Facts: host(t, vpn), Settings: settings(t, "--conflict=10.130.0.0/16=allow,10.132.0.0/17=allow", "--on-conflict=yield", "--never-proxy=10.130.7.9/32"),
		Overlay:   []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31")},
		Protected: []Protected{ProtectAddr(netip.MustParseAddr("10.130.0.10"), "API server")},
	}
	taking.Facts.Warnings = []string{"1 of the routes of this host could not be read and are left out of the plan: an address of 3 bytes"}
	hidden := Input{
		Cluster: cluster("10.130.0.0/16", "10.132.0.0/16", "172.16.0.0/11", "fd12::/64"), Settings: settings(t, "--on-conflict=virtualize", "--proxy-via=172.16.0.0/16=gateway"),
		Facts:     host(t, office+"link tun0 tun p2p 10.8.0.2/24\n10.132.64.0/18 via 10.8.0.1 dev tun0"),
		Virtual:   Virtual{V4: DefaultVirtualSubnet, V6: netip.MustParsePrefix("fd99::/48")},
		Protected: []Protected{ProtectAddr(netip.MustParseAddr("10.130.0.10"), "API server")},
	}
	agents := hidden
	agents.Settings = withRules(settings(t, "--on-conflict=virtualize"), viaWorkload("10.132.64.0/18", "shop/deployment/echo"), viaWorkload("127.0.0.0/8", "web"), via("::1/128"))
	return map[string]Input{
		"agents":  agents,
		"hidden":  hidden,
		"quiet":   {Cluster: lab, Facts: host(t, office)},
		"refused": {Cluster: lab, Facts: host(t, vpn)},
		"taking":  taking,
		"marked": {Cluster: cluster("10.130.0.0/16", "fd12::/64"), Settings: settings(t, "--allow-conflicting-subnets=10.130.0.0/16"), Facts: host(t, office+`
			link wg0 wireguard p2p
			default dev wg0 table 51820
			10.130.0.0/16 dev wg0 table 51820
			rule 32764: lookup main suppress_prefixlength 0
			rule 32765: not fwmark 0xca6c lookup 51820`)},
		"ipsec":   {Cluster: lab, Facts: host(t, office+"ipsec protect 10.130.0.0/16 from 192.168.7.2 priority 5 peer 203.0.113.9")},
		"nothing": {Cluster: lab, Facts: host(t, office), Settings: settings(t, "--never-proxy=10.128.0.0/9")},
	}
}

func TestPlanText(t *testing.T) {
	for name, in := range seen(t) {
		t.Run(name, func(t *testing.T) { golden(t, "text-"+name, NewPlan(in).Text()) })
	}
}

func TestDiffPlans(t *testing.T) {
	inputs := seen(t)
	for name, row := range map[string]struct{ from, to Plan }{
		"diff-vpn-came":  {NewPlan(inputs["quiet"]), NewPlan(inputs["refused"])},
		"diff-vpn-went":  {NewPlan(inputs["taking"]), NewPlan(inputs["quiet"])},
		"diff-hidden":    {NewPlan(inputs["quiet"]), NewPlan(inputs["hidden"])},
		"diff-agents":    {NewPlan(inputs["hidden"]), NewPlan(inputs["agents"])},
		"diff-connected": {Plan{}, NewPlan(inputs["taking"])},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			for _, c := range DiffPlans(row.from, row.to) {
				b.WriteString(c.String() + "\n")
			}
			golden(t, name, b.String())
		})
	}
}

// TestDiffTurnsOnePlanIntoTheOther: what goes taken from the old plan's lines, and what comes added,
// gives the new plan's, for hosts of any kind.
func TestDiffTurnsOnePlanIntoTheOther(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := randomHost{rand.New(rand.NewPCG(seed, 0)), IPv4}
	for range 200 {
		a, b := NewPlan(h.input()), NewPlan(h.input())
		lines := map[string]bool{}
		for _, l := range a.Lines() {
			lines[string(l.Section)+l.Text] = true
		}
		for _, c := range DiffPlans(a, b) {
			key := string(c.Section) + c.Text
			if (c.Op == "-") != lines[key] {
				t.Fatalf("%s: in the old plan: %v", c, lines[key])
			}
			lines[key] = c.Op == "+"
		}
		want := map[string]bool{}
		for _, l := range b.Lines() {
			want[string(l.Section)+l.Text] = true
		}
		for key, there := range lines {
			if there != want[key] {
				t.Fatalf("%q: after the difference %v, in the new plan %v", key, there, want[key])
			}
			delete(want, key)
		}
		if len(want) > 0 {
			t.Fatalf("not reached: %v", want)
		}
		if same := DiffPlans(a, a); len(same) > 0 {
			t.Fatalf("a plan differs from itself: %v", same)
		}
	}
}

func TestExplanationText(t *testing.T) {
	inputs := seen(t)
	for name, row := range map[string]struct{ input, addr string }{
		"why-tunnel":    {"quiet", "10.132.5.6"},
		"why-taken":     {"taking", "10.130.1.1"},
		"why-yielded":   {"taking", "10.132.200.1"},
		"why-never":     {"taking", "10.130.7.9"},
		"why-protected": {"taking", "10.130.0.10"},
		"why-open":      {"refused", "10.130.1.1"},
		"why-outside":   {"taking", "198.51.100.7"},
		"why-marked":    {"marked", "10.130.0.1"},
		"why-ipsec":     {"ipsec", "10.130.0.1"},
		"why-native":    {"hidden", "10.130.4.7"},
		"why-virtual":   {"hidden", "10.132.64.9"},
		"why-sheltered": {"hidden", "10.130.0.10"},
		"why-via":       {"hidden", "172.16.4.7"},
		"why-twin":      {"hidden", "246.132.64.9"},
		"why-leased":    {"hidden", "246.240.0.9"},
		"why-wire":      {"hidden", "252.16.4.7"},
		"why-twinless":  {"hidden", "246.99.0.1"},
		"why-agent":     {"agents", "10.132.64.9"},
		"why-agents":    {"agents", "246.132.64.9"},
		"why-loopback":  {"agents", "127.0.0.1"},
		"why-ipv6":      {"hidden", "fd12::7"},
		"why-noroute":   {"marked", "2001:db8::1"},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, Explain(inputs[row.input], netip.MustParseAddr(row.addr)).Text())
		})
	}
}
