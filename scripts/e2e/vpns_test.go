//go:build lab

package e2e

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

// vpnDevices are the VPNs the lab has, with the interface of each on the workstation.
var vpnDevices = map[string]string{"wireguard": "wg-corp", "route": "tun-corp", "openvpn": "tun0"}

// useVPN switches the workstation to another VPN that takes routes, and back to the one that the other
// scenarios expect when the test has ended.
func (l *lab) useVPN(t *testing.T, kind, routes string) {
	t.Helper()
	t.Cleanup(func() {
		must(t, l.Run(2*time.Minute, "vpn", "up", "openvpn", "--routes", "10.0.0.0/8"), "back to OpenVPN")
	})
	if r := l.Run(2*time.Minute, "vpn", "up", kind, "--routes", routes); r.Code != 0 {
		t.Fatalf("lab vpn up %s --routes %s: %s", kind, routes, r)
	}
}

// refusedOver checks that a plain connect reports the conflict with what is on dev, and changes nothing.
func (l *lab) refusedOver(t *testing.T, dev string) {
	t.Helper()
	before := l.snapshot(t)
	r := l.WS(time.Minute, "culvert", "connect")
	if r.Code != 3 {
		t.Fatalf("culvert connect under %s: want exit code 3: %s", dev, r)
	}
	for _, want := range []string{"10.130.0.0/16", "10.132.0.0/16", "inside 10.0.0.0/8 on " + dev} {
		if !strings.Contains(r.Err, want) {
			t.Errorf("the report does not name %q:\n%s", want, r.Err)
		}
	}
	l.unchanged(t, before)
}

func TestEveryKindOfVPN(t *testing.T) {
	for _, kind := range []string{"wireguard", "route", "openvpn"} {
		t.Run(kind, func(t *testing.T) {
			l := shared
			l.useVPN(t, kind, "10.0.0.0/8")
			l.refusedOver(t, vpnDevices[kind])
			l.connect(t, allowFlags...)
			l.reaches(t)
		})
	}
}

// endpointPrefix is a public prefix that a cluster might have, and in it the server of the VPN.
const endpointPrefix = "198.51.100.0/24"

// limitsFile is root's word on what the helper may route.
const limitsFile = "/etc/culvert/limits.yaml"

// TestEndpointOfTheVPNInsideOurs has the tunnel take the prefix that holds the VPN's own server, while
// the path to the API server, and so the tunnel, lies inside that VPN: were the VPN's outer packets to
// enter the tunnel, both would be dead.
func TestEndpointOfTheVPNInsideOurs(t *testing.T) {
	const netbird = "not fwmark 0x1bd00 lookup 7120"
	for _, row := range []struct {
		name, kind, routes string
		rule               string   // of another program, beside the VPN's
		flags              []string // beside those that all have
	}{
		{"wireguard, known by its mark", "wireguard", "10.0.0.0/8", "", nil},
		{"wireguard, one of two that mark", "wireguard", "10.0.0.0/8", netbird, nil},
		{"Tailscale, known by the mark of a rule behind ours", "tailscale", "10.0.0.0/8", "", nil},
		{"NetBird, known by its mark", "netbird", "10.0.0.0/8", "", nil},
		{"a full tunnel, known by its route to the server", "openvpn", "10.0.0.0/8,0.0.0.0/0", "", nil},
		// Such a server shows in no route, rule or socket (OpenVPN's is not connected): it has to be named.
		{"split, named", "openvpn", "10.0.0.0/8", "", []string{"--never-proxy", "198.51.100.10/32"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := shared
			l.useVPN(t, row.kind, row.routes)
			l.widenLimits(t, endpointPrefix)
			if row.rule != "" {
				rule := strings.Fields(row.rule)
				must(t, l.WS(5*time.Second, append([]string{"ip", "rule", "add"}, rule...)...), "add a rule")
				t.Cleanup(func() {
					must(t, l.WS(5*time.Second, append([]string{"ip", "rule", "del"}, rule...)...), "delete the rule")
				})
			}
			l.connect(t, slices.Concat([]string{"--also-proxy", endpointPrefix}, allowFlags, row.flags)...)
			if r := l.WS(5*time.Second, "ip", "route", "get", "198.51.100.20"); !strings.Contains(r.Out, "dev culvert0") {
				t.Fatalf("%s does not go through the tunnel, so nothing is tested: %s", endpointPrefix, r)
			}
			l.vpnLives(t, 5*time.Second)
			l.reaches(t)
		})
	}
}

// widenLimits lets the helper route a public prefix.
func (l *lab) widenLimits(t *testing.T, prefix string) {
	t.Helper()
	write := fmt.Sprintf(`mkdir -p %s; echo "prefixes: [%s]" > %s`, path.Dir(limitsFile), prefix, limitsFile)
	must(t, l.WS(5*time.Second, "sh", "-ec", write), "widen the limits")
	t.Cleanup(func() { must(t, l.WS(5*time.Second, "rm", limitsFile), "remove "+limitsFile) })
}

// vpnLives checks for a while that the company behind the VPN answers each time, over a new connection.
func (l *lab) vpnLives(t *testing.T, limit time.Duration) {
	t.Helper()
	for begin, n := time.Now(), 0; time.Since(begin) < limit; n++ {
		if r := l.WS(5*time.Second, "curl", "-sS", "--fail", "--max-time", "3", "http://10.20.0.80/"); r.Code != 0 {
			t.Fatalf("request %d, %s after connecting: the company does not answer: %s", n, time.Since(begin).Round(time.Millisecond), r)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
