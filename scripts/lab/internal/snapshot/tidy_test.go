package snapshot

import (
	"strings"
	"testing"
)

func TestLinesAreTheSameWhateverChangesByItself(t *testing.T) {
	tests := []struct {
		name       string
		tidy       func(string) (string, error)
		one, other string
	}{
		{
			"links renumbered, counted and without carrier", links,
			`[{"ifindex":2,"link_index":9,"ifname":"eth0","flags":["UP","BROADCAST"],"mtu":1500},{"ifindex":1,"ifname":"lo","flags":["UP"]}]`,
			`[{"ifindex":5,"ifname":"lo","flags":["UP"]},{"ifindex":7,"link_index":3,"ifname":"eth0","flags":["NO-CARRIER","BROADCAST","UP"],"mtu":1500,"stats64":{"rx":7}}]`,
		},
		{
			"bridges whose timers run", links,
			`[{"ifname":"docker0","linkinfo":{"info_kind":"bridge","info_data":{"gc_timer":299.9,"hello_timer":0.5,"stp_state":0}}}]`,
			`[{"ifname":"docker0","linkinfo":{"info_kind":"bridge","info_data":{"gc_timer":0.02,"hello_timer":1.9,"stp_state":0}}}]`,
		},
		{
			"addresses ageing", addresses,
			`[{"ifname":"eth0","ifindex":2,"addr_info":[{"local":"10.0.0.2","prefixlen":24,"valid_life_time":100}]}]`,
			`[{"ifname":"eth0","ifindex":3,"addr_info":[{"local":"10.0.0.2","prefixlen":24,"valid_life_time":50}]},{}]`,
		},
		{
			"link-local addresses drawn anew", addresses,
			`[{"ifname":"tun0","addr_info":[{"local":"fe80::5560:a08d:e987:f24c","prefixlen":64,"stable-privacy":true}]}]`,
			`[{"ifname":"tun0","addr_info":[{"local":"fe80::80e6:477a:2658:62e8","prefixlen":64,"stable-privacy":true}]}]`,
		},
		{
			"routes to link-local addresses drawn anew", routes,
			`[{"dst":"fe80::5560:a08d:e987:f24c","dev":"tun0","table":"255"},{"dst":"fe80::/64","dev":"tun0"}]`,
			`[{"dst":"fe80::80e6:477a:2658:62e8","dev":"tun0","table":"255"},{"dst":"fe80::/64","dev":"tun0"}]`,
		},
		{
			"routes in another order, expiring and cached", routes,
			`[{"dst":"fd00::/64","dev":"a","expires":30},{"dst":"default","dev":"b","flags":["linkdown"]}]`,
			`[{"dst":"default","dev":"b","flags":[]},{"dst":"fd00::/64","dev":"a"},{"dst":"fd01::1","dev":"a","cache":["cloned"]}]`,
		},
		{
			"nftables elements timing out", ruleset,
			"table ip t {\n\telements = { 10.0.0.1 timeout 1m expires 10s20ms, 10.0.0.2 expires 3s }\n}\n",
			"table ip t {\n\telements = { 10.0.0.1 timeout 1m expires 59s, 10.0.0.2 expires 1m2s }\n}\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			one, err := tt.tidy(tt.one)
			if err != nil {
				t.Fatal(err)
			}
			other, err := tt.tidy(tt.other)
			if err != nil {
				t.Fatal(err)
			}
			if one != other {
				t.Errorf("differ:\n%s\n%s", one, other)
			}
			if one == "" {
				t.Error("nothing is left to compare")
			}
		})
	}
}

func TestLinesTellDifferencesThatMatter(t *testing.T) {
	tests := []struct {
		name       string
		tidy       func(string) (string, error)
		one, other string
	}{
		{"another table", routes, `[{"dst":"10.0.0.0/8","dev":"a"}]`, `[{"dst":"10.0.0.0/8","dev":"a","table":"100"}]`},
		{"another metric", routes, `[{"dst":"10.0.0.0/8","dev":"a"}]`, `[{"dst":"10.0.0.0/8","dev":"a","metric":5}]`},
		{"a link down", links, `[{"ifname":"a","flags":["UP"]}]`, `[{"ifname":"a","flags":[]}]`},
		{"rules in another order", inOrder, "1: a\n2: b\n", "2: b\n1: a\n"},
		{"another rule in a chain", ruleset, "ip daddr 10.0.0.1 drop\n", "ip daddr 10.0.0.2 drop\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			one, err1 := tt.tidy(tt.one)
			other, err2 := tt.tidy(tt.other)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if one == other {
				t.Errorf("both are %q", one)
			}
		})
	}
}

func TestLinesRefuseNoise(t *testing.T) {
	if _, err := routes("Error: nothing"); err == nil {
		t.Error("text that is no JSON is accepted")
	}
	got, err := routes("")
	if err != nil || strings.TrimSpace(got) != "" {
		t.Errorf("of no output: %q, %v", got, err)
	}
}
