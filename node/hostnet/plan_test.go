package hostnet

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var scope = Scope{Interface: "culvert3", Name: "lab"}

// prefixes parses a list.
func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// through and thrown build routes.
func through(texts ...string) (out []Route) {
	for _, p := range prefixes(texts...) {
		out = append(out, Route{Prefix: p})
	}
	return out
}

func thrown(texts ...string) (out []Route) {
	for _, p := range prefixes(texts...) {
		out = append(out, Route{Prefix: p, Throw: true})
	}
	return out
}

// goodSettings are all settings as wanted.
func goodSettings() map[string]string { return maps.Clone(settings) }

func TestPlan(t *testing.T) {
	up := func(addrs ...string) *Link {
		return &Link{MTU: 1400, Up: true, Addresses: prefixes(addrs...), Settings: goodSettings()}
	}
	wanted := State{Interface: "culvert3", MTU: 1400, Addresses: prefixes("245.0.0.2/32", "fd00::2/128")}
	routed := wanted
	routed.Routes = slices.Concat(through("10.130.0.0/16", "fd10::/64"), thrown("10.130.0.1/32"))
	routed.Priority = Priority{V4: 5000, V6: 5001}
	marked := routed
	marked.SkipMarks = SkipMarks{V4: []Mark{{0xca6c, ^uint32(0)}}, V6: []Mark{{0x80000, 0xff0000}, {0xca6c, ^uint32(0)}}}

	for name, row := range map[string]struct {
		desired State
		actual  Actual
		want    string
	}{
		"a fresh interface: filter first, up before routes, rules last": {
			desired: routed,
			actual:  Actual{Link: &Link{MTU: 1500, Settings: map[string]string{"ipv4/rp_filter": "0", "ipv6/accept_ra": "0"}}},
			want: `
				nft add table inet culvert_culvert3 (replies only)
				sysctl -w net/ipv4/conf/culvert3/rp_filter=2
				ip link set dev culvert3 mtu 1400
				ip address add 245.0.0.2/32 dev culvert3 noprefixroute
				ip address add fd00::2/128 dev culvert3 noprefixroute
				ip link set dev culvert3 up
				ip route replace 10.130.0.0/16 dev culvert3 table 7833 proto 202
				ip route replace fd10::/64 dev culvert3 table 7833 proto 202
				ip route replace throw 10.130.0.1/32 table 7833 proto 202
				ip rule add priority 5000 from all lookup 7833 proto 202
				ip -6 rule add priority 5001 from all lookup 7833 proto 202`,
		},
		"all as wanted": {
			desired: routed,
			actual: Actual{Link: up("fd00::2/128", "245.0.0.2/32"), Routes: routed.Routes, Filter: FilterVersion, FilterTable: true,
				Rules: []Rule{{Priority: 5000}, {Priority: 5001, IPv6: true}}},
		},
		"a rule moves: the new one before the old one goes": {
			desired: routed,
			actual: Actual{Link: up("fd00::2/128", "245.0.0.2/32"), Routes: routed.Routes, Filter: FilterVersion, FilterTable: true,
				Rules: []Rule{{Priority: 4000}, {Priority: 5001, IPv6: true}}},
			want: `
				ip rule add priority 5000 from all lookup 7833 proto 202
				ip rule del priority 4000 from all lookup 7833 proto 202`,
		},
		"another tunnel marks its packets: the rule that knows comes before the one that does not goes": {
			desired: marked,
			actual: Actual{Link: up("fd00::2/128", "245.0.0.2/32"), Routes: routed.Routes, Filter: FilterVersion, FilterTable: true,
				Rules: []Rule{{Priority: 5000}, {Priority: 5001, IPv6: true}}},
			want: `
				ip rule add priority 5000 not from all fwmark 0xca6c/0xffffffff lookup 7833 proto 202
				ip -6 rule add priority 5001 from all fwmark 0x0/0x88000 lookup 7833 proto 202
				ip rule del priority 5000 from all lookup 7833 proto 202
				ip -6 rule del priority 5001 from all lookup 7833 proto 202`,
		},
		"the marks are gone": {
			desired: routed,
			actual: Actual{Link: up("fd00::2/128", "245.0.0.2/32"), Routes: routed.Routes, Filter: FilterVersion, FilterTable: true,
				Rules: []Rule{{Priority: 5000, Mark: Mark{0xca6c, ^uint32(0)}, Not: true}, {Priority: 5001, IPv6: true}}},
			want: `
				ip rule add priority 5000 from all lookup 7833 proto 202
				ip rule del priority 5000 not from all fwmark 0xca6c/0xffffffff lookup 7833 proto 202`,
		},
		"a route becomes a carve-out and another goes": {
			desired: State{Interface: "culvert3", MTU: 1400, Addresses: wanted.Addresses, Routes: thrown("10.1.0.0/16")},
			actual:  Actual{Link: up("fd00::2/128", "245.0.0.2/32"), Routes: through("10.1.0.0/16", "10.2.0.0/16"), Filter: FilterVersion, FilterTable: true},
			want: `
				ip route replace throw 10.1.0.0/16 table 7833 proto 202
				ip route del 10.2.0.0/16 dev culvert3 table 7833 proto 202`,
		},
		"another program flushed the filter's rules": {
			desired: wanted,
			actual:  Actual{Link: up("fd00::2/128", "245.0.0.2/32"), FilterTable: true},
			want:    `nft add table inet culvert_culvert3 (replies only)`,
		},
		"no IPv6 wanted on a host that switches it off": {
			desired: State{Interface: "culvert3", MTU: 1400, Addresses: prefixes("245.0.0.2/32")},
			actual: Actual{Filter: FilterVersion, FilterTable: true,
				Link: &Link{MTU: 1400, Up: true, Addresses: prefixes("245.0.0.2/32"), Settings: map[string]string{disableIPv6: "1"}}},
		},
		"nothing of ours is wanted: the rule first, the filter last": {
			actual: Actual{Link: up("245.0.0.2/32"), Routes: slices.Concat(through("10.1.0.0/16"), thrown("10.1.0.1/32")),
				Rules: []Rule{{Priority: 5000}}, Filter: FilterVersion, FilterTable: true},
			want: `
				ip rule del priority 5000 from all lookup 7833 proto 202
				ip route del 10.1.0.0/16 dev culvert3 table 7833 proto 202
				ip route del throw 10.1.0.1/32 table 7833 proto 202
				ip link del dev culvert3
				nft delete table inet culvert_culvert3`,
		},
		"nothing of ours is wanted, nothing there": {},
	} {
		t.Run(name, func(t *testing.T) {
			got := lines(Plan(scope, row.desired, row.actual))
			if want := strings.TrimSpace(strings.ReplaceAll(row.want, "\t", "")); got != want {
				t.Errorf("plan\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// lines prints changes one per line.
func lines(changes []Change) string {
	var out []string
	for _, c := range changes {
		out = append(out, c.String())
	}
	return strings.Join(out, "\n")
}

// takes reports whether the kernel tries the table of r for a packet (fib_rule_match of
// net/core/fib_rules.c).
func takes(r Rule, mark uint32) bool { return ((r.Mark.Value^mark)&r.Mark.Mask == 0) != r.Not }

// checkRule checks a rule with packets: it takes those without a mark, and none with a mark of the list.
func checkRule(t *testing.T, r Rule, skip []Mark) {
	t.Helper()
	if !takes(r, 0) {
		t.Fatalf("rule %+v does not take ordinary packets", r)
	}
	for _, m := range skip {
		for _, others := range []uint32{0, ^uint32(0), 0x5a5a5a5a} { // the bits that the mark leaves open
			if packet := m.Value&m.Mask | others&^m.Mask; takes(r, packet) {
				t.Fatalf("rule %+v takes a packet marked %#x, which %s says to leave alone", r, packet, m)
			}
		}
	}
}

func TestRulesLeaveMarkedPacketsAlone(t *testing.T) {
	full := ^uint32(0)
	for name, row := range map[string]struct {
		skip []Mark
		want Rule
		// strangers are marks of others that the rule takes, as it takes packets without one.
		strangers []uint32
	}{
		"no mark":                         {nil, Rule{}, []uint32{1, 0xca6c, full}},
		"one":                             {[]Mark{{0xca6c, full}}, Rule{Mark: Mark{0xca6c, full}, Not: true}, []uint32{1, 0xca6d, full}},
		"one under a mask":                {[]Mark{{0x80000, 0xff0000}}, Rule{Mark: Mark{0x80000, 0xff0000}, Not: true}, []uint32{0x80, 0x90000}},
		"a value wider than its mask":     {[]Mark{{0xca6c, 0xff}}, Rule{Mark: Mark{0x6c, 0xff}, Not: true}, []uint32{0xca00}},
		"two wg-quick in a row, one bit":  {[]Mark{{0xca6c, full}, {0xca6d, full}}, Rule{Mark: Mark{0, 0x8000}}, []uint32{1, 0xff, 0x40000}},
		"wg-quick, Tailscale and NetBird": {[]Mark{{0xca6c, full}, {0x1bd00, full}, {0x80000, 0xff0000}}, Rule{Mark: Mark{0, 0x88000}}, []uint32{1, 0xff, 0x40000}},
		"one that says nothing":           {[]Mark{{0, full}, {0x100, 0xff}}, Rule{}, []uint32{1}},
		"a useful one among such":         {[]Mark{{0, full}, {2, 3}}, Rule{Mark: Mark{2, 3}, Not: true}, []uint32{1, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			got := newRule(false, 0, row.skip)
			if got != row.want {
				t.Errorf("rule %+v, want %+v", got, row.want)
			}
			for _, mark := range row.strangers {
				if !takes(got, mark) {
					t.Errorf("rule %+v does not take a packet that a stranger marked %#x", got, mark)
				}
			}
			checkRule(t, got, slices.DeleteFunc(slices.Clone(row.skip), func(m Mark) bool { return m.Value&m.Mask == 0 }))
		})
	}
}

func FuzzRulesLeaveMarkedPacketsAlone(f *testing.F) {
	f.Add(uint32(0xca6c), ^uint32(0), uint32(0x80000), uint32(0xff0000), uint32(1), uint32(1))
	f.Fuzz(func(t *testing.T, v1, m1, v2, m2, v3, m3 uint32) {
		skip := []Mark{{v1, m1}, {v2, m2}, {v3, m3}}
		for n := range skip {
			some := skip[:n+1]
			checkRule(t, newRule(true, 1, some), slices.DeleteFunc(slices.Clone(some), func(m Mark) bool { return m.Value&m.Mask == 0 }))
		}
	})
}

func TestInterfaceNames(t *testing.T) {
	for name, want := range map[string]int{
		"culvert0": 7830, "culvert7": 7837, "culvert63": 7893,
		"culvert64": 0, "culvert00": 0, "culvert-1": 0, "culvert": 0, "tun0": 0, "culvert0 ": 0, "culvert0/x": 0, "": 0,
	} {
		if got := Table(name); got != want {
			t.Errorf("table of %q is %d, want %d", name, got, want)
		}
		if want != 0 && InterfaceOfTable(want) != name {
			t.Errorf("interface of table %d is %q, want %q", want, InterfaceOfTable(want), name)
		}
	}
	if name := InterfaceOfTable(254); name != "" {
		t.Errorf("main belongs to %q", name)
	}
}
