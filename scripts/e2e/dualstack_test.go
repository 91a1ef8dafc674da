//go:build lab

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// dualLab brings up a second, small lab whose cluster has both families, or takes the one that
// CULVERT_E2E_LAB6 names.
func dualLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{Lab: labctl.Lab{Name: os.Getenv("CULVERT_E2E_LAB6"), Bin: shared.Bin}}
	if l.Name == "" {
		l.Name = "e2e-six"
		t.Cleanup(func() { must(t, l.Run(2*time.Minute, "down"), "lab down") })
		must(t, l.Run(10*time.Minute, "up", "--light", "--dual-stack", "--vpn", "openvpn"), "lab up --dual-stack")
	}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	for target, query := range map[*string][]string{
		&l.echoPod6: {"get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[0].status.podIPs[1].ip}"},
		&l.echoIP6:  {"get", "service", "echo", "-o", "jsonpath={.spec.clusterIPs[1]}"},
	} {
		r := l.Kubectl(query...)
		if *target = strings.TrimSpace(r.Out); *target == "" {
			t.Fatalf("kubectl %v: %s", query, r)
		}
	}
	return l
}

// allowFlags6 are allowFlags with the cluster's IPv6 prefixes.
var allowFlags6 = []string{"--allow-conflicting-subnets", "10.128.0.0/9,fd00:10::/32"}

// situations6 are situations of a workstation with both families.
var situations6 = []situation{
	{
		name: "OpenVPN, split tunnel over the private ranges of both families",
		vpn:  "openvpn", routes: "10.0.0.0/8,fd00::/8",
		refused: []string{
			"10.130.0.0/16 services inside 10.0.0.0/8 on tun0 (OpenVPN, table main)",
			"10.132.0.0/16 pods inside 10.0.0.0/8 on tun0 (OpenVPN, table main)",
			"fd00:10:130::/112 services inside fd00::/8 on tun0 (OpenVPN, table main)",
			"fd00:10:132::/56 pods inside fd00::/8 on tun0 (OpenVPN, table main)",
		},
		taken: []string{"fd00:10:132::70"},
	},
	{
		name: "wg-quick, split tunnel of both families",
		vpn:  "wireguard", routes: "10.0.0.0/8,fd00::/8",
		refused: []string{
			"10.130.0.0/16 services inside 10.0.0.0/8 on wg-corp (table 51820)",
			"fd00:10:130::/112 services inside fd00::/8 on wg-corp (table 51820)",
		},
	},
	{
		name: "Tailscale, a subnet router for both families",
		vpn:  "tailscale", routes: "10.0.0.0/8,fd00::/8",
		refused: []string{
			"10.132.0.0/16 pods inside 10.0.0.0/8 on tailscale0 (Tailscale, table 52)",
			"fd00:10:132::/56 pods inside fd00::/8 on tailscale0 (Tailscale, table 52)",
		},
	},
	{
		name: "OpenVPN, of IPv6 only a more specific route inside the pods",
		vpn:  "openvpn", routes: "fd00:10:132::40/122",
		refused:   []string{"fd00:10:132::/56 pods covers fd00:10:132::40/122 on tun0 (OpenVPN, table main)"},
		unclaimed: []string{"10.13", "services"},
		taken:     []string{"fd00:10:132::70"},
	},
	{
		name: "OpenVPN, full tunnel in pieces: def1 and redirect-gateway ipv6",
		vpn:  "openvpn", routes: "0.0.0.0/0,::/0",
	},
	{
		name: "a bare tunnel with the two halves of IPv6",
		vpn:  "route", routes: "10.20.0.0/16,::/1,8000::/1",
	},
	{
		name: "wg-quick, full tunnel of both families",
		vpn:  "wireguard", routes: "0.0.0.0/0,::/0",
	},
	{
		name: "NetBird, an exit node for both families",
		vpn:  "netbird", routes: "0.0.0.0/0,::/0",
	},
}

// TestDualStack has a workstation and a cluster of both families.
func TestDualStack(t *testing.T) {
	l := dualLab(t)
	for _, s := range situations6 {
		t.Run(s.name, func(t *testing.T) {
			s.flags = allowFlags6
			l.arrange(t, s)
			l.check(t, s)
		})
	}
	t.Run("virtual addresses", func(t *testing.T) { l.hidesBoth(t) })
}

// hidesBoth reaches everything by virtual addresses of both families, echo-six by those of IPv6 alone,
// while the VPN routes both.
//
//	name ──► A 246.x.y.z, AAAA fdxx:... ──► culvert0      10.0.0.0/8, fd00::/8 ──► tun0, all the while
func (l *lab) hidesBoth(t *testing.T) {
	t.Helper()
	l.useVPN(t, "openvpn", "10.0.0.0/8,fd00::/8")
	for _, x := range hidings[:2] {
		t.Run(x.name, func(t *testing.T) { l.hides(t, x.flags, "http://"+corpHost+"/", "http://["+corpHost6+"]/") })
	}
}
