package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go4.org/netipx"
)

const tailscale = `
link tailscale0 tun p2p 100.101.1.2/32
rule 5210: fwmark 0x80000/0xff0000 lookup main
rule 5230: fwmark 0x80000/0xff0000 lookup default
rule 5250: fwmark 0x80000/0xff0000 unreachable
rule 5270: lookup 52
`

// publicOnly is the list by which WireGuard users route all but the private networks.
func publicOnly(how string) string {
	var b strings.Builder
	for _, p := range strings.Fields(`0.0.0.0/5 8.0.0.0/7 11.0.0.0/8 12.0.0.0/6 16.0.0.0/4 32.0.0.0/3 64.0.0.0/2 128.0.0.0/3
		160.0.0.0/5 168.0.0.0/6 172.0.0.0/12 172.32.0.0/11 172.64.0.0/10 172.128.0.0/9 173.0.0.0/8 174.0.0.0/7 176.0.0.0/4
		192.0.0.0/9 192.128.0.0/11 192.160.0.0/13 192.169.0.0/16 192.170.0.0/15 192.172.0.0/14 192.176.0.0/12 192.192.0.0/10
		193.0.0.0/8 194.0.0.0/7 196.0.0.0/6 200.0.0.0/5 208.0.0.0/4`) {
		b.WriteString(p + " " + how + "\n")
	}
	return b.String()
}

// allBut is the fewest routes for all addresses but one.
func allBut(addr, how string) string {
	var b netipx.IPSetBuilder
	b.AddPrefix(all4)
	b.Remove(netip.MustParseAddr(addr))
	var text strings.Builder
	for _, p := range rangesFrom(&b).prefixes() {
		text.WriteString(p.String() + " " + how + "\n")
	}
	return text.String()
}

// TestSkipMarks: packets that other tunnels mark as their own are left alone, whichever way their
// rules say so, unless their rules come before ours anyway.
func TestSkipMarks(t *testing.T) {
	for name, tc := range map[string]struct{ host, want string }{
		"nobody marks":                     {office, "[]"},
		"wg-quick, behind us":              {office + "link wg0 wireguard\ndefault dev wg0 table 51820\nrule 32765: not fwmark 0xca6c lookup 51820", "[0xca6c]"},
		"NetBird, not in our way":          {office + "link wt0 wireguard\n100.64.0.0/10 dev wt0 table 7120\nrule 110: not fwmark 0x1bd00 lookup 7120", "[0x1bd00]"},
		"Tailscale's bypass, before us":    {office + tailscale + "default dev tailscale0 table 52", "[]"},
		"Tailscale's bypass, behind us":    {office + tailscale + "default dev tailscale0 table 77\nrule 300: lookup 77", "[0x80000/0xff0000]"},
		"a rule for packets without marks": {office + "rule 32000: fwmark 0/0xff lookup main", "[]"},
		"a value wider than its mask":      {office + "rule 32765: not fwmark 0xca6c/0xff lookup 51820", "[0x6c/0xff]"},
		"two that say the same":            {office + "rule 32765: not fwmark 0xca6c/0xff lookup 51820\nrule 32764: not fwmark 0x6c/0xff lookup 51821", "[0x6c/0xff]"},
		"another Culvert's, of a VPN gone": {office + "rule 32765: not fwmark 0xca6c lookup 7831 proto 202", "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPlan(Input{Cluster: lab, Facts: host(t, tc.host)})
			if got := fmt.Sprint(p.Rules.V4.SkipMarks); got != tc.want {
				t.Errorf("got %s at %d, want %s", got, p.Rules.V4.Priority, tc.want)
			}
		})
	}
}

// TestConnectionsDoNotChaseEachOther: where another Culvert connection has its rule says nothing about ours,
// unless ours is to win from it. Two that each looked for a free priority at the same time would go on for
// ever.
func TestConnectionsDoNotChaseEachOther(t *testing.T) {
	for theirs := 32760; theirs <= 32765; theirs++ {
		beside := host(t, office+fmt.Sprintf("link culvert1 tun p2p\n10.130.0.0/16 dev culvert1 table 7831 proto 202\nrule %d: lookup 7831 proto 202", theirs))
		in := Input{Cluster: cluster("10.140.0.0/16"), Facts: beside, Own: Own{Interface: "culvert2", Table: 7832}}
		if got := NewPlan(in).Rules.V4.Priority; got != 32765 {
			t.Errorf("the other's rule at %d, nothing in common: ours at %d, want 32765", theirs, got)
		}
		in.Facts = host(t, office+fmt.Sprintf("link culvert1 tun p2p\n246.140.0.0/16 dev culvert1 table 7831 proto 202\nrule %d: lookup 7831 proto 202", theirs))
		in.Virtual = Virtual{V4: DefaultVirtualSubnet, Assigned: twinsOf("10.140.0.0/16 246.140.0.0/16")}
		p := NewPlan(in)
		if p.Rules.V4.Priority != 32765 {
			t.Errorf("the other's rule at %d, the same virtual addresses: ours at %d, want 32765", theirs, p.Rules.V4.Priority)
		}
		checkWarning(t, p, "one connection of the two has them")
		in.Facts = beside
		in.Cluster, in.Settings = lab, settings(t, "--allow-conflicting-subnets=10.130.0.0/16")
		if got := NewPlan(in).Rules.V4.Priority; got != theirs-1 {
			t.Errorf("the other's rule at %d is to be overtaken: ours at %d", theirs, got)
		}
	}
}

func TestSituations(t *testing.T) {
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			p := NewPlan(s.input(t))
			same(t, "Virtualized", prefixTexts(p.Virtualized), s.hidden)
			same(t, "twins", twinTexts(p.Twins), s.twins)
			same(t, "AllowedIPs", prefixTexts(p.AllowedIPs), s.allowed)
			same(t, "routes", routeTexts(p.Routes), s.routes)
			same(t, "conflicts", conflictTexts(p.Conflicts), strings.Join(strings.Fields(s.conflicts), " "))
			if p.Rules.V4.Priority != s.v4 || p.Rules.V6.Priority != s.v6 {
				t.Errorf("priorities %d and %d, want %d and %d\n%s\n%s", p.Rules.V4.Priority, p.Rules.V6.Priority, s.v4, s.v6, p.Rules.V4.Reason, p.Rules.V6.Reason)
			}
			checkWarning(t, p, s.warning)
			checkReasons(t, p)
		})
	}
}

func (s situation) input(t *testing.T) Input {
	t.Helper()
	in := Input{
		Settings: withRules(settings(t, s.flags...), s.rules...), Cluster: s.cluster, Facts: host(t, s.host),
		Own: s.own, Overlay: s.overlay, Protected: s.protected, NoPolicyRouting: s.oneTable,
	}
	if subnet, assigned, _ := strings.Cut(s.virtual, " "); subnet != "" {
		in.Virtual.V4 = netip.MustParsePrefix(subnet)
		for f := strings.Fields(assigned); len(f) > 0; f = f[2:] {
			kept := twinsOf(f[0] + " " + f[1])
			kept[0].Pooled = !in.Virtual.V4.Overlaps(kept[0].Virtual)
			in.Virtual.Assigned = append(in.Virtual.Assigned, kept...)
		}
	}
	return in
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s\ngot  %s\nwant %s", what, got, want)
	}
}

func checkWarning(t *testing.T, p Plan, want string) {
	t.Helper()
	switch {
	case want == "" && len(p.Warnings) > 0:
		t.Errorf("warnings %q", p.Warnings)
	case want != "" && !slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.Contains(w, want) }):
		t.Errorf("no warning %q in %q", want, p.Warnings)
	}
}

func checkReasons(t *testing.T, p Plan) {
	t.Helper()
	for _, r := range p.Routes {
		if r.Reason == "" {
			t.Errorf("no reason for %s %s", r.Kind, r.Prefix)
		}
	}
	for _, r := range []PlannedRule{p.Rules.V4, p.Rules.V6} {
		if r.Priority > 0 && r.Reason == "" {
			t.Errorf("no reason for priority %d", r.Priority)
		}
	}
}

func prefixTexts(prefixes []netip.Prefix) string {
	return strings.ReplaceAll(joinPrefixes(prefixes), ",", " ")
}

func routeTexts(routes []PlannedRoute) string {
	var out []string
	for _, r := range routes {
		if r.Kind == RouteThrow {
			out = append(out, "throw")
		}
		out = append(out, r.Prefix.String())
	}
	return strings.Join(out, " ")
}

func conflictTexts(conflicts []Conflict) string {
	var out []string
	for _, c := range conflicts {
		interfaces := strings.Join(c.Claim.Interfaces, ",")
		if interfaces == "" {
			interfaces = "-"
		}
		out = append(out, c.Subnet.String(), string(c.Relation), c.Claim.Prefix.String(), interfaces, string(c.Resolution))
		if len(c.Open) > 0 {
			out = append(out, "open", prefixTexts(c.Open))
		}
	}
	return strings.Join(out, " ")
}
