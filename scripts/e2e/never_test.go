//go:build lab

package e2e

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNeverProxyKeepsTheWay leaves one service address out while the VPN comes, goes and is another: it
// has the interface and next hop that it would have without us.
func TestNeverProxyKeepsTheWay(t *testing.T) {
	l := shared
	never := "10.130.200.7"
	before := l.waysOf(t, never)
	l.useVPN(t, "openvpn", vpnDefault) // and back to it in the end
	l.connect(t, append([]string{"--never-proxy", never + "/32"}, allowFlags...)...)
	if diff := differ(before, l.waysOf(t, never), []string{never}); diff != "" {
		t.Errorf("connected:\n%s", diff)
	}
	for _, step := range []struct {
		name string
		vpn  []string // what is switched
		want string
	}{
		{"without VPN", []string{"down"}, "via 192.168.77.1 dev eth0"},
		{"the VPN again", []string{"up", "openvpn", "--routes", "10.0.0.0/8"}, "via 10.99.0.1 dev tun0"},
		{"with more specific routes", []string{"up", "openvpn", "--routes", "10.20.0.0/16,10.50.0.0/16,10.130.200.0/24"}, "via 10.99.0.1 dev tun0"},
		{"without a route for it", []string{"up", "openvpn", "--routes", "10.20.0.0/16,10.50.0.0/16"}, "via 192.168.77.1 dev eth0"},
		{"WireGuard with a table of its own", []string{"up", "wireguard", "--routes", "10.0.0.0/8"}, "dev wg-corp"},
		{"rules like Tailscale's", []string{"up", "tailscale", "--routes", "10.0.0.0/8"}, "dev tailscale0"},
		{"rules like NetBird's", []string{"up", "netbird", "--routes", "10.0.0.0/8"}, "dev wt0"},
		{"the first VPN again", []string{"up", "openvpn", "--routes", "10.0.0.0/8"}, "via 10.99.0.1 dev tun0"},
	} {
		must(t, l.Run(time.Minute, append([]string{"vpn"}, step.vpn...)...), step.name)
		eventually(t, 3*time.Second, step.name, func() error {
			now := l.waysOf(t, never, l.EchoIP)
			if !strings.HasPrefix(now[never], step.want+" ") {
				return errors.New(never + ": want " + step.want + ", have " + now[never])
			}
			if !through(now[l.EchoIP]) {
				return errors.New("the services have left the tunnel: " + now[l.EchoIP])
			}
			return nil
		})
	}
	eventually(t, 10*time.Second, "a service answers", func() error { return l.curl("http://echo.default/").OK() })
}

// TestTheMoreSpecificOfAlsoAndNeverWins nests prefixes that are to be proxied and not to be, either way
// round, inside and outside the cluster's subnets.
func TestTheMoreSpecificOfAlsoAndNeverWins(t *testing.T) {
	for _, row := range []struct {
		name         string
		flags        []string
		tunnel, kept []string
	}{
		{
			"also/24 with never/28 inside",
			[]string{"--also-proxy", "10.140.7.0/24", "--never-proxy", "10.140.7.16/28"},
			[]string{"10.140.7.0", "10.140.7.15", "10.140.7.32", "10.140.7.255"},
			[]string{"10.140.7.16", "10.140.7.31", "10.140.6.255", "10.140.8.0"},
		},
		{
			"never/24 with also/28 inside",
			[]string{"--never-proxy", "10.140.7.0/24", "--also-proxy", "10.140.7.16/28"},
			[]string{"10.140.7.16", "10.140.7.31"},
			[]string{"10.140.7.0", "10.140.7.15", "10.140.7.32", "10.140.7.255"},
		},
		{
			"never/24 of the services with also/28 inside",
			[]string{"--never-proxy", "10.130.7.0/24", "--also-proxy", "10.130.7.16/28"},
			[]string{"10.130.7.16", "10.130.7.31", "10.130.6.255", "10.130.8.0"},
			[]string{"10.130.7.0", "10.130.7.15", "10.130.7.32", "10.130.7.255"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := situation{taken: row.tunnel, kept: row.kept}
			before := shared.look(t, s)
			shared.connect(t, slices.Concat(row.flags, allowFlags)...)
			shared.holds(t, s, before)
		})
	}
}
