//go:build lab

package e2e

import "testing"

// lanDefault is the workstation's default route as the lab makes it.
const lanDefault = "default via 192.168.77.1 metric 100 proto static"

// situations are the ways of steering packets that connections have to live with.
var situations = []situation{
	{
		name: "OpenVPN, split tunnel over all of 10.0.0.0/8",
		refused: []string{
			"10.130.0.0/16 services inside 10.0.0.0/8 on tun0 (OpenVPN, table main)",
			"10.132.0.0/16 pods inside 10.0.0.0/8 on tun0 (OpenVPN, table main)",
		},
		taken: []string{unusedPod},
	},
	{
		name: "OpenVPN, a route exactly equal to the services",
		vpn:  "openvpn", routes: "10.130.0.0/16",
		refused:   []string{"10.130.0.0/16 services equal to 10.130.0.0/16 on tun0 (OpenVPN, table main)"},
		unclaimed: []string{"10.132.0.0/16"},
	},
	{
		name: "OpenVPN, a more specific route inside the pods",
		vpn:  "openvpn", routes: "10.132.0.64/26",
		refused:   []string{"10.132.0.0/16 pods covers 10.132.0.64/26 on tun0 (OpenVPN, table main)"},
		unclaimed: []string{"10.130.0.0/16"},
		taken:     []string{unusedPod},
	},
	{
		name: "OpenVPN, full tunnel as the two halves of def1",
		vpn:  "openvpn", routes: "0.0.0.0/0",
	},
	{
		name: "wg-quick, split tunnel in a table of its own",
		vpn:  "wireguard", routes: "10.0.0.0/8",
		refused: []string{
			"10.130.0.0/16 services inside 10.0.0.0/8 on wg-corp (table 51820)",
			"10.132.0.0/16 pods inside 10.0.0.0/8 on wg-corp (table 51820)",
		},
	},
	{
		name: "wg-quick, full tunnel",
		vpn:  "wireguard", routes: "0.0.0.0/0",
	},
	{
		name: "Tailscale, a subnet router for 10.0.0.0/8",
		vpn:  "tailscale", routes: "10.0.0.0/8",
		refused: []string{
			"10.130.0.0/16 services inside 10.0.0.0/8 on tailscale0 (Tailscale, table 52)",
			"10.132.0.0/16 pods inside 10.0.0.0/8 on tailscale0 (Tailscale, table 52)",
		},
	},
	{
		name: "Tailscale, an exit node",
		vpn:  "tailscale", routes: "0.0.0.0/0",
	},
	{
		name: "NetBird, a network route for 10.0.0.0/8",
		vpn:  "netbird", routes: "10.0.0.0/8",
		refused: []string{
			"10.130.0.0/16 services inside 10.0.0.0/8 on wt0 (NetBird, table 7120)",
			"10.132.0.0/16 pods inside 10.0.0.0/8 on wt0 (NetBird, table 7120)",
		},
	},
	{
		name: "NetBird, an exit node",
		vpn:  "netbird", routes: "0.0.0.0/0",
	},
	{
		name:      "Docker, a bridge inside the pods: a neighbour that a wide prefix does not take",
		vpn:       "none",
		setup:     dockerBridge,
		undo:      []string{"ip link del docker0"},
		refused:   []string{"10.132.0.0/16 pods covers 10.132.200.0/24 on docker0 (Docker, table main)"},
		unclaimed: []string{"10.130.0.0/16"},
		kept:      []string{bridged},
	},
	{
		name:    "Docker, the same bridge named exactly",
		vpn:     "none",
		setup:   dockerBridge,
		undo:    []string{"ip link del docker0"},
		refused: []string{"10.132.0.0/16 pods covers 10.132.200.0/24 on docker0 (Docker, table main)"},
		flags:   []string{"--allow-conflicting-subnets", "10.128.0.0/9,10.132.200.0/24"},
		taken:   []string{bridged},
	},
	{
		name:    "a blackhole, as routing daemons announce a pool of addresses",
		vpn:     "none",
		setup:   []string{"ip route add blackhole 10.132.0.64/26 proto bird"},
		undo:    []string{"ip route del blackhole 10.132.0.64/26 proto bird"},
		refused: []string{"10.132.0.0/16 pods covers 10.132.0.64/26 blackhole (table main)"},
		taken:   []string{unusedPod},
	},
	{
		name: "a guard against leaks: all of 10.0.0.0/8 unreachable but for what the VPN has",
		vpn:  "openvpn", routes: "10.20.0.0/16,10.50.0.0/16",
		setup: []string{"ip route add unreachable 10.0.0.0/8"},
		undo:  []string{"ip route del unreachable 10.0.0.0/8"},
		refused: []string{
			"10.130.0.0/16 services inside 10.0.0.0/8 unreachable (table main)",
			"10.132.0.0/16 pods inside 10.0.0.0/8 unreachable (table main)",
		},
	},
	{
		name: "a modem: the only default route names a device and no next hop",
		vpn:  "route", routes: "0.0.0.0/0",
		setup: []string{"ip route del " + lanDefault},
		undo:  []string{"ip route add " + lanDefault},
	},
	{
		name:  "no default route, behind a VPN",
		setup: []string{"ip route add 198.51.100.0/24 via 192.168.77.1", "ip route del " + lanDefault},
		undo:  []string{"ip route add " + lanDefault, "ip route del 198.51.100.0/24 via 192.168.77.1"},
		refused: []string{
			"10.130.0.0/16 services inside 10.0.0.0/8 on tun0 (OpenVPN, table main)",
			"10.132.0.0/16 pods inside 10.0.0.0/8 on tun0 (OpenVPN, table main)",
		},
	},
	{
		name: "no default route, in the office",
		vpn:  "none",
		setup: []string{
			"ip route add 10.20.0.0/16 via 192.168.77.1", "ip route add 10.50.0.0/16 via 192.168.77.1",
			"ip route del " + lanDefault,
		},
		undo: []string{
			"ip route add " + lanDefault,
			"ip route del 10.20.0.0/16 via 192.168.77.1", "ip route del 10.50.0.0/16 via 192.168.77.1",
		},
	},
}

// dockerBridge makes what dockerd makes of "bip": "10.132.200.1/24".
var dockerBridge = []string{
	"ip link add docker0 type bridge",
	"ip address add 10.132.200.1/24 brd 10.132.200.255 dev docker0",
	"ip link set docker0 up",
}

func TestSituations(t *testing.T) {
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			shared.arrange(t, s)
			shared.check(t, s)
		})
	}
}
