package vpn

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/pki"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

const openvpnServer = `local %[1]s
port 1194
proto udp
dev tun-srv
dev-type tun
disable-dco
topology subnet
server 10.99.0.0 255.255.255.0
server-ipv6 fd99::/64
ca %[2]s/ca.crt
cert %[2]s/server.crt
key %[2]s/server.key
dh none
keepalive 5 30
verb 3
`

const openvpnClient = `client
remote %[1]s 1194
proto udp
dev tun0
dev-type tun
disable-dco
nobind
connect-retry 1 2
explicit-exit-notify 1
remote-cert-tls server
ca %[2]s/ca.crt
cert %[2]s/client.crt
key %[2]s/client.key
verb 3
`

func startOpenVPN(_ context.Context, l *state.Lab, routes []netip.Prefix) error {
	dir := l.Path("openvpn")
	if err := openvpnPKI(dir); err != nil {
		return err
	}
	server := fmt.Sprintf(openvpnServer, topology.VPNAddr, dir) + pushes(routes)
	configs := []struct{ name, host, file, text string }{
		{serverName, topology.VPN, l.Path("openvpn", "server.conf"), server},
		{clientName, topology.WS, l.Path("openvpn", "client.conf"), fmt.Sprintf(openvpnClient, topology.VPNAddr, dir)},
	}
	for _, c := range configs {
		if err := os.WriteFile(c.file, []byte(c.text), 0o644); err != nil {
			return err
		}
		if _, err := launch.Start(l, launch.Spec{Name: c.name, Host: c.host, Args: []string{"openvpn", "--config", c.file}}); err != nil {
			return err
		}
	}
	return nil
}

// openvpnPKI makes certificates, the first time.
func openvpnPKI(dir string) error {
	if _, err := os.Stat(dir + "/client.key"); err == nil {
		return nil
	}
	ca, err := pki.NewAuthority("lab-vpn")
	if err != nil {
		return err
	}
	if err := ca.Write(dir, "ca"); err != nil {
		return err
	}
	for _, r := range []pki.Request{{Name: "server", Server: true}, {Name: "client"}} {
		pair, err := ca.Issue(r)
		if err != nil {
			return err
		}
		if err := pair.Write(dir, r.Name); err != nil {
			return err
		}
	}
	return nil
}

// pushes are the server's lines that give clients their routes. A full tunnel
// is asked for as companies do, with def1's two halves.
func pushes(routes []netip.Prefix) string {
	var lines strings.Builder
	for _, r := range routes {
		switch {
		case r.Bits() == 0:
		case r.Addr().Is4():
			fmt.Fprintf(&lines, "push \"route %s %s\"\n", r.Addr(), net.IP(net.CIDRMask(r.Bits(), 32)))
		default:
			fmt.Fprintf(&lines, "push \"route-ipv6 %s\"\n", r)
		}
	}
	// One line for both families: a second replaces the first.
	four, six := slices.Contains(routes, everything4), slices.Contains(routes, everything6)
	switch {
	case four && six:
		lines.WriteString("push \"redirect-gateway def1 ipv6\"\n")
	case four:
		lines.WriteString("push \"redirect-gateway def1\"\n")
	case six:
		lines.WriteString("push \"redirect-gateway ipv6 !ipv4\"\n")
	}
	return lines.String()
}

var (
	everything4 = netip.MustParsePrefix("0.0.0.0/0")
	everything6 = netip.MustParsePrefix("::/0")
)

// openvpnRoutes is what a client makes of pushes.
func openvpnRoutes(routes []netip.Prefix) []netip.Prefix {
	var made []netip.Prefix
	for _, r := range routes {
		switch {
		case r == everything4:
			made = append(made, netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1"))
		case r == everything6:
			made = append(made, netip.MustParsePrefix("::/3"), netip.MustParsePrefix("2000::/4"))
		default:
			made = append(made, r)
		}
	}
	return made
}
