package policy

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: -update writes it anew\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// besideConnection is a host with another connection to a cluster with the same subnets.
func besideConnection(t *testing.T, name string) Facts {
	facts := host(t, office+`
		link culvert1 tun p2p
		10.130.0.0/16 dev culvert1 table 7831 proto 202
		10.132.0.0/16 dev culvert1 table 7831 proto 202
		rule 32765: lookup 7831 proto 202`)
	for i := range facts.Links {
		if facts.Links[i].Name == "culvert1" {
			facts.Links[i].Alias = ConnectionAlias + name
		}
	}
	return facts
}

func TestConflictReport(t *testing.T) {
	virtual := Virtual{V4: DefaultVirtualSubnet, V6: netip.MustParsePrefix("fd99::/48")}
	for name, in := range map[string]Input{
		"report-openvpn":    {Cluster: lab, Virtual: virtual, Facts: host(t, office+"link tun0 tun p2p\n10.0.0.0/8 via 10.8.0.1 dev tun0")},
		"report-connection": {Cluster: lab, Virtual: virtual, Own: Own{Interface: "culvert2", Table: 7832}, Facts: besideConnection(t, "staging")},
		"report-notwin": {
			Cluster: cluster("10.130.0.0/16", "64.0.0.0/4"), Virtual: virtual, Settings: settings(t, "--on-conflict=virtualize"),
			Facts: host(t, office+"link tun0 tun p2p\n10.0.0.0/8 via 10.8.0.1 dev tun0\n64.0.0.0/5 dev tun0"),
		},
		"report-notwin-rule": {
			Cluster: cluster("10.130.0.0/16"), Virtual: Virtual{V6: virtual.V6}, Settings: settings(t, "--conflict=service=virtualize"),
			Facts: host(t, office+"link tun0 tun p2p\n10.0.0.0/8 via 10.8.0.1 dev tun0"),
		},
		"report-mixed": {
			Virtual:  virtual,
			Cluster:  cluster("10.130.0.0/16", "10.132.0.0/16", "fd12::/64"),
			Settings: settings(t, "--also-proxy=172.18.0.0/16"),
			Facts: host(t, office+`
				link wg0 wireguard p2p
				link docker0 bridge 172.17.0.1/16
				link eth1 - 10.130.7.2/24
				10.130.0.0/16 dev wg0 table 51820
				10.130.7.0/24 dev eth1 proto kernel
				10.132.0.64/26 via 192.168.7.254 dev eth0
				blackhole 10.132.128.0/17
				172.16.0.0/12 nexthop via 192.168.7.3 dev eth0 nexthop dev docker0
				fd00::/8 dev wg0
				rule 5000: lookup 51820`),
		},
		"report-ipsec": {
			Cluster: lab,
			Facts:   host(t, office+"ipsec protect 10.130.0.0/16 peer 203.0.113.9\nipsec discard 10.132.64.0/18"),
		},
		"report-one": {Cluster: cluster("10.130.0.0/16"), Facts: host(t, office+"link docker0 bridge 10.130.0.1/24\n10.130.0.0/24 dev docker0 proto kernel")},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, NewPlan(in).ConflictReport()) })
	}
}

func TestConflictReportIsShort(t *testing.T) {
	var routes strings.Builder
	routes.WriteString(office + "link tun0 tun p2p\n")
	for i := range 200 {
		routes.WriteString(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 130, byte(i), 0}), 24).String() + " dev tun0\n")
	}
	report := NewPlan(Input{Cluster: lab, Facts: host(t, routes.String())}).ConflictReport()
	if n := strings.Count(report, "\n"); n != reportLines+8 || !strings.Contains(report, "and 150 more overlaps") {
		t.Errorf("%d lines:\n%s", n, report)
	}
}

func TestNoConflictNoReport(t *testing.T) {
	if got := NewPlan(Input{Cluster: lab, Facts: host(t, office)}).ConflictReport(); got != "" {
		t.Errorf("got %q", got)
	}
}

// TestPlanJSON shows a whole plan: what status and other programs get to see.
func TestPlanJSON(t *testing.T) {
	facts := host(t, office+`
		link wg0 wireguard p2p
		default dev wg0 table 51820
		10.132.64.0/18 dev wg0 table 51820
		10.130.0.0/16 dev wg0 table 51820
		rule 32764: lookup main suppress_prefixlength 0
		rule 32765: not fwmark 0xca6c lookup 51820`)
	facts.Warnings = []string{"1 of the routes of this host could not be read and are left out of the plan: an address of 3 bytes"}
	p := NewPlan(Input{
		Cluster: cluster("10.130.0.0/16", "10.132.0.0/16", "fd12::/64"), Facts: facts,
		Settings:  settings(t, "--allow-conflicting-subnets=10.130.0.0/16", "--never-proxy=10.130.0.1/32"),
		Overlay:   []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31")},
		Protected: []Protected{ProtectAddr(netip.MustParseAddr("10.130.0.10"), "API server")},
	})
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "plan", string(text)+"\n")
}
