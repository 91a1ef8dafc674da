package policy

import (
	"net/netip"
)

// office is a laptop on a LAN, the most ordinary host there is.
const office = `
link lo - lo 127.0.0.1/8
link eth0 - 192.168.7.2/24
default via 192.168.7.1 dev eth0
192.168.7.0/24 dev eth0 proto kernel scope link
local 127.0.0.0/8 dev lo proto kernel
local 192.168.7.2 dev eth0 proto kernel
broadcast 192.168.7.255 dev eth0 proto kernel
`

// situation is one host, cluster and choice of the user, and what must come of it. Lists are joined
// by blanks.
type situation struct {
	name      string
	host      string
	cluster   Cluster
	flags     []string
	protected []Protected
	own       Own
	overlay   []netip.Prefix
	oneTable  bool          // no policy routing
	rules     []RoutingRule // beside those of the flags
	virtual   string        // the virtual subnet; "" means that there are no twins

	allowed   string // AllowedIPs
	routes    string // of our table, "throw PREFIX" for carve-outs
	conflicts string // one a line: "SUBNET RELATION PREFIX INTERFACE RESOLUTION [open PREFIX...]"
	hidden    string // Virtualized
	twins     string // "REAL VIRTUAL [pooled]" or "REAL REASON"
	v4, v6    int    // priorities
	warning   string // part of a warning; "" means there is none
}

var lab = cluster("10.130.0.0/16", "10.132.0.0/16")

var situations = []situation{{
	name: "a laptop at home, nothing in the way", host: office, cluster: lab,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "no default route, an island", host: "link eth0 - 192.168.7.2/24", cluster: lab,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "OpenVPN pushes 10.0.0.0/8", cluster: lab,
	host: office + `
		link tun0 tun p2p 10.8.0.2/24
		10.0.0.0/8 via 10.8.0.1 dev tun0
		10.8.0.0/24 dev tun0 proto kernel scope link`,
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 unresolved open 10.130.0.0/16
		10.132.0.0/16 inside 10.0.0.0/8 tun0 unresolved open 10.132.0.0/16`,
}, {
	name: "the same, allowed in a wider prefix", cluster: lab, flags: []string{"--allow-conflicting-subnets=10.128.0.0/9"},
	host:    office + "link tun0 tun p2p 10.8.0.2/24\n10.0.0.0/8 via 10.8.0.1 dev tun0",
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 allowed
		10.132.0.0/16 inside 10.0.0.0/8 tun0 allowed`,
}, {
	name: "the same, one subnet taken, the other left", cluster: lab,
	flags:   []string{"--allow-conflicting-subnets=10.130.0.0/16", "--never-proxy=10.132.0.0/16"},
	host:    office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	allowed: "10.130.0.0/16", routes: "10.130.0.0/16", v4: 32765,
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 allowed
		10.132.0.0/16 inside 10.0.0.0/8 tun0 kept`,
}, {
	name: "the same, all left to the VPN", cluster: lab, flags: []string{"--on-conflict=yield"},
	host: office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 yielded
		10.132.0.0/16 inside 10.0.0.0/8 tun0 yielded`,
}, {
	name: "services taken by their symbol, the rest left", cluster: lab, flags: []string{"--on-conflict=yield", "--allow-conflicting-subnets=service"},
	host:    office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	allowed: "10.130.0.0/16", routes: "10.130.0.0/16", v4: 32765,
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 allowed
		10.132.0.0/16 inside 10.0.0.0/8 tun0 yielded`,
}, {
	name: "all taken, one slice of the pods left", cluster: lab, flags: []string{"--conflict=all=allow,10.132.64.0/18=yield"},
	host:    office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	allowed: "10.130.0.0/16 10.132.0.0/18 10.132.128.0/17", routes: "10.130.0.0/16 10.132.0.0/16 throw 10.132.64.0/18", v4: 32765,
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 allowed
		10.132.0.0/16 inside 10.0.0.0/8 tun0 allowed`,
}, {
	name: "a yield where nobody else routes leaves nothing", cluster: lab, flags: []string{"--conflict=10.132.0.0/16=yield"}, host: office,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "of an allow and a yield the more specific counts", cluster: cluster("", "10.132.0.0/16"),
	flags:   []string{"--allow-conflicting-subnets=10.132.64.0/24", "--conflict=10.132.64.0/18=yield,10.128.0.0/9=allow"},
	host:    office + "link tun0 tun p2p\n10.132.64.0/18 dev tun0",
	allowed: "10.132.0.0/18 10.132.64.0/24 10.132.128.0/17", routes: "10.132.0.0/16 throw 10.132.64.0/18 10.132.64.0/24", v4: 32765,
	conflicts: "10.132.0.0/16 covers 10.132.64.0/18 tun0 allowed",
}, {
	name: "half of a subnet allowed", cluster: cluster("10.130.0.0/16"), flags: []string{"--allow-conflicting-subnets=10.130.0.0/17"},
	host:    office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	allowed: "10.130.0.0/17", routes: "10.130.0.0/17", v4: 32765,
	conflicts: "10.130.0.0/16 inside 10.0.0.0/8 tun0 unresolved open 10.130.128.0/17",
}, {
	name: "a VPN route exactly equal to a cluster subnet", cluster: lab,
	host:    office + "link tun0 tun p2p\n10.130.0.0/16 dev tun0",
	allowed: "10.132.0.0/16", routes: "10.132.0.0/16", v4: 32765,
	conflicts: "10.130.0.0/16 equal 10.130.0.0/16 tun0 unresolved open 10.130.0.0/16",
}, {
	name: "a VPN route more specific than a cluster subnet", cluster: lab,
	host:    office + "link tun0 tun p2p\n10.132.0.64/26 dev tun0",
	allowed: "10.130.0.0/16 10.132.0.0/26 10.132.0.128/25 10.132.1.0/24 10.132.2.0/23 10.132.4.0/22 10.132.8.0/21 10.132.16.0/20 10.132.32.0/19 10.132.64.0/18 10.132.128.0/17",
	routes:  "10.130.0.0/16 10.132.0.0/16 throw 10.132.0.64/26", v4: 32765,
	conflicts: "10.132.0.0/16 covers 10.132.0.64/26 tun0 unresolved open 10.132.0.64/26",
}, {
	name: "equal and more specific VPN routes, allowed", cluster: lab, flags: []string{"--allow-conflicting-subnets=10.132.0.0/16"},
	host:    office + "link tun0 tun p2p\n10.132.0.0/16 dev tun0\n10.132.0.64/26 dev tun0",
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
	conflicts: `10.132.0.0/16 equal 10.132.0.0/16 tun0 allowed
		10.132.0.0/16 covers 10.132.0.64/26 tun0 allowed`,
}, {
	name: "OpenVPN redirect-gateway def1: two halves and the server's address", cluster: lab,
	host: office + `
		link tun0 tun p2p 10.8.0.2/24
		0.0.0.0/1 via 10.8.0.1 dev tun0
		128.0.0.0/1 via 10.8.0.1 dev tun0
		203.0.113.9 via 192.168.7.1 dev eth0
		10.8.0.0/24 dev tun0 proto kernel`,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "halves and a route of their own from the same VPN", cluster: lab,
	host: office + `
		link tun0 tun p2p
		0.0.0.0/1 dev tun0
		128.0.0.0/1 dev tun0
		10.132.0.0/16 dev tun0`,
	allowed: "10.130.0.0/16", routes: "10.130.0.0/16", v4: 32765,
	conflicts: "10.132.0.0/16 equal 10.132.0.0/16 tun0 unresolved open 10.132.0.0/16",
}, {
	name: "only the lower half is a route like any other", cluster: lab,
	host: office + "link tun0 tun p2p\n0.0.0.0/1 dev tun0",
	conflicts: `10.130.0.0/16 inside 0.0.0.0/1 tun0 unresolved open 10.130.0.0/16
		10.132.0.0/16 inside 0.0.0.0/1 tun0 unresolved open 10.132.0.0/16`,
}, {
	name: "two interfaces with one half each do not make a default route", cluster: cluster("10.130.0.0/16"),
	host:      office + "link tun0 tun p2p\nlink tun1 tun p2p\n0.0.0.0/1 dev tun0\n128.0.0.0/1 dev tun1",
	conflicts: "10.130.0.0/16 inside 0.0.0.0/1 tun0 unresolved open 10.130.0.0/16",
}, {
	// GKE's default service range is public space.
	name: "WireGuard that leaves the private networks out, services in public space", cluster: cluster("34.118.224.0/20", "10.132.0.0/16"),
	host:    office + "link wg0 wireguard p2p\n" + publicOnly("dev wg0"),
	allowed: "10.132.0.0/16 34.118.224.0/20", routes: "10.132.0.0/16 34.118.224.0/20", v4: 32765,
}, {
	name: "the same with class E, on the way to its end, and pods there", cluster: cluster("34.118.224.0/20", "240.10.0.0/16"), flags: []string{"--on-conflict=virtualize"},
	host: office + "link wg0 wireguard p2p\n224.0.0.0/3 dev wg0\n" + publicOnly("dev wg0"), virtual: "246.0.0.0/8",
	allowed: "34.118.224.0/20 240.10.0.0/16 246.10.0.0/16 246.118.224.0/20", routes: "34.118.224.0/20 240.10.0.0/16 246.10.0.0/16 246.118.224.0/20", v4: 32765,
	twins: "34.118.224.0/20 246.118.224.0/20 240.10.0.0/16 246.10.0.0/16",
}, {
	name: "a VPN that routes everything but its own server, piece by piece", cluster: lab,
	host:    office + "link wg0 wireguard p2p\n" + allBut("9.9.9.9", "dev wg0"),
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "all but the private networks, and 10.0.0.0/8 on purpose", cluster: cluster("", "10.132.0.0/16"),
	host:      office + "link wg0 wireguard p2p\n" + publicOnly("dev wg0") + "10.0.0.0/8 dev wg0",
	conflicts: "10.132.0.0/16 inside 10.0.0.0/8 wg0 unresolved open 10.132.0.0/16",
}, {
	name: "OpenVPN redirect-gateway ipv6", cluster: cluster("fd12:1::/108", "fd12:2::/64"),
	host: office + `
		link tun0 tun p2p
		::/3 dev tun0
		2000::/4 dev tun0
		3000::/4 dev tun0
		fc00::/7 dev tun0`,
	allowed: "fd12:1::/108 fd12:2::/64", routes: "fd12:1::/108 fd12:2::/64", v6: 32765,
}, {
	name: "IPv6 halves, dual stack", cluster: cluster("10.130.0.0/16", "fd12:2::/64"),
	host: office + `
		link tun0 tun p2p
		0.0.0.0/1 dev tun0
		128.0.0.0/1 dev tun0
		::/1 dev tun0
		8000::/1 dev tun0
		fd12:2:0:0:8000::/65 dev tun0`,
	allowed: "10.130.0.0/16 fd12:2::/65", routes: "10.130.0.0/16 fd12:2::/64 throw fd12:2:0:0:8000::/65", v4: 32765, v6: 32765,
	conflicts: "fd12:2::/64 covers fd12:2:0:0:8000::/65 tun0 unresolved open fd12:2:0:0:8000::/65",
}, {
	name: "wg-quick with a table, a mark and suppress_prefixlength", cluster: lab,
	host: office + `
		link wg0 wireguard p2p
		default dev wg0 table 51820
		rule 32764: lookup main suppress_prefixlength 0
		rule 32765: not fwmark 0xca6c lookup 51820`,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32763,
}, {
	name: "wg-quick started after us, in front of our old place", cluster: lab,
	host: office + `
		link wg0 wireguard p2p
		default dev wg0 table 51820
		rule 4998: lookup main suppress_prefixlength 0
		rule 4999: not fwmark 0xca6c lookup 51820`,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 4997,
}, {
	name: "Tailscale without an exit node", cluster: lab,
	host:    office + tailscale + "100.64.0.9 dev tailscale0 table 52",
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "Tailscale with an exit node: behind its bypass rules, before its table", cluster: lab,
	host:    office + tailscale + "default dev tailscale0 table 52\nthrow 192.168.7.0/24 table 52",
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 5269,
}, {
	name: "a Tailscale subnet route inside the pods", cluster: lab,
	host:    office + tailscale + "10.132.64.0/18 dev tailscale0 table 52",
	allowed: "10.130.0.0/16 10.132.0.0/18 10.132.128.0/17", routes: "10.130.0.0/16 10.132.0.0/16 throw 10.132.64.0/18", v4: 32765,
	conflicts: "10.132.0.0/16 covers 10.132.64.0/18 tailscale0 unresolved open 10.132.64.0/18",
}, {
	name: "the same, allowed: now our rule must come first", cluster: lab, flags: []string{"--allow-conflicting-subnets=10.132.0.0/16"},
	host:    office + tailscale + "10.132.64.0/18 dev tailscale0 table 52",
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 5269,
	conflicts: "10.132.0.0/16 covers 10.132.64.0/18 tailscale0 allowed",
}, {
	name: "NetBird's rules at 105 and 110", cluster: lab, flags: []string{"--allow-conflicting-subnets=10.130.0.0/16"},
	host: office + `
		link wt0 wireguard 100.92.0.2/16
		10.130.0.0/16 dev wt0 table 7120
		rule 105: lookup main suppress_prefixlength 0
		rule 110: not fwmark 0x1bd00 lookup 7120`,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 109,
	conflicts: "10.130.0.0/16 equal 10.130.0.0/16 wt0 allowed",
}, {
	name: "strongSwan's table 220 takes all", cluster: lab,
	host:    office + "default via 192.168.7.1 dev eth0 table 220\nrule 220: lookup 220",
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 219,
}, {
	name: "a rule that sends one destination to a table with a default route", cluster: lab,
	host: office + "link tun0 tun p2p\ndefault dev tun0 table 51\nrule 5000: to 10.130.0.0/16 lookup 51",
	// The default route is one, but the rule makes it a route for 10.130.0.0/16.
	allowed: "10.132.0.0/16", routes: "10.132.0.0/16", v4: 32765,
	conflicts: "10.130.0.0/16 equal 10.130.0.0/16 tun0 unresolved open 10.130.0.0/16",
}, {
	name: "a rule that prohibits a prefix", cluster: cluster("10.130.0.0/16"),
	host:      office + "rule 5000: to 10.0.0.0/8 prohibit",
	conflicts: "10.130.0.0/16 inside 10.0.0.0/8 - unresolved open 10.130.0.0/16",
}, {
	name: "a table nobody consults, and rules for others' packets only", cluster: lab,
	host: office + `
		link tun0 tun p2p
		10.0.0.0/8 dev tun0 table 77
		10.0.0.0/8 dev tun0 table 78
		rule 5000: fwmark 0x1 lookup 78
		rule 5001: from 10.8.0.2 lookup 78
		rule 5002: iif eth0 lookup 78
		rule 5003: oif tun0 lookup 78`,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "a VPN for the programs of some users counts", cluster: cluster("10.130.0.0/16"),
	host:      office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0 table 77\nrule 5000: uidrange 1000-1000 lookup 77",
	conflicts: "10.130.0.0/16 inside 10.0.0.0/8 tun0 unresolved open 10.130.0.0/16",
}, {
	name: "a goto leaps over a rule", cluster: cluster("10.130.0.0/16"),
	host:    office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0 table 77\nrule 4000: goto 32766\nrule 5000: lookup 77",
	allowed: "10.130.0.0/16", routes: "10.130.0.0/16", v4: 3999,
}, {
	name: "a throw route gives the pods back", cluster: lab,
	host:    office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0 table 52\nthrow 10.132.0.0/16 table 52\nrule 5270: lookup 52",
	allowed: "10.132.0.0/16", routes: "10.132.0.0/16", v4: 32765,
	conflicts: "10.130.0.0/16 inside 10.0.0.0/8 tun0 unresolved open 10.130.0.0/16",
}, {
	name: "a route twice, cut to pieces by a throw route", cluster: cluster("10.130.0.0/16"),
	host:    office + "link tun0 tun p2p\n10.130.0.0/17 dev tun0 table 52\n10.130.0.0/17 dev tun0 table 52\nthrow 10.130.64.0/24 table 52\nrule 5270: lookup 52",
	allowed: "10.130.64.0/24 10.130.128.0/17",
	routes:  "10.130.0.0/16 throw 10.130.0.0/18 throw 10.130.65.0/24 throw 10.130.66.0/23 throw 10.130.68.0/22 throw 10.130.72.0/21 throw 10.130.80.0/20 throw 10.130.96.0/19", v4: 32765,
	conflicts: "10.130.0.0/16 covers 10.130.0.0/17 tun0 unresolved open 10.130.0.0/18 10.130.65.0/24 10.130.66.0/23 10.130.68.0/22 10.130.72.0/21 10.130.80.0/20 10.130.96.0/19",
}, {
	name: "a docker bridge inside the pod range", cluster: cluster("", "172.16.0.0/12"),
	host: office + `
		link docker0 bridge 172.17.0.1/16
		172.17.0.0/16 dev docker0 proto kernel scope link
		local 172.17.0.1 dev docker0 proto kernel`,
	allowed:   "172.16.0.0/16 172.18.0.0/15 172.20.0.0/14 172.24.0.0/13",
	routes:    "172.16.0.0/12 throw 172.17.0.0/16",
	conflicts: "172.16.0.0/12 covers 172.17.0.0/16 docker0 unresolved open 172.17.0.0/16", v4: 32765, warning: "address of this workstation",
}, {
	name: "a LAN inside a wider allowed prefix stays", cluster: cluster("", "192.168.0.0/16"), flags: []string{"--allow-conflicting-subnets=192.168.0.0/16"},
	host:    "link eth0 - 192.168.7.2/24\ndefault via 192.168.7.1 dev eth0\n192.168.7.0/24 dev eth0 proto kernel scope link",
	allowed: "192.168.0.0/22 192.168.4.0/23 192.168.6.0/24 192.168.8.0/21 192.168.16.0/20 192.168.32.0/19 192.168.64.0/18 192.168.128.0/17",
	routes:  "192.168.0.0/16 throw 192.168.7.0/24", v4: 32765,
	conflicts: "192.168.0.0/16 covers 192.168.7.0/24 eth0 protected", warning: "192.168.7.0/24 on eth0 (connected network, table main) is a connected network and stays",
}, {
	name: "a LAN named exactly is taken, but for the router and ourselves", cluster: cluster("", "192.168.7.0/24"), flags: []string{"--allow-conflicting-subnets=192.168.7.0/24"},
	host:    "link eth0 - 192.168.7.2/24\ndefault via 192.168.7.1 dev eth0\n192.168.7.0/24 dev eth0 proto kernel scope link",
	allowed: "192.168.7.0/32 192.168.7.3/32 192.168.7.4/30 192.168.7.8/29 192.168.7.16/28 192.168.7.32/27 192.168.7.64/26 192.168.7.128/25",
	routes:  "192.168.7.0/24 throw 192.168.7.1/32 throw 192.168.7.2/32", v4: 32765,
	conflicts: "192.168.7.0/24 equal 192.168.7.0/24 eth0 allowed", warning: "next hop of a default route on eth0",
}, {
	name: "the network that a VPN interface is connected to is the VPN's", cluster: cluster("", "10.8.0.0/16"), flags: []string{"--allow-conflicting-subnets=10.8.0.0/16"},
	host: office + `
		link tun0 tun p2p 10.8.0.2/24
		10.8.0.0/24 dev tun0 proto kernel scope link
		10.8.0.0/16 via 10.8.0.1 dev tun0`,
	allowed: "10.8.0.0/31 10.8.0.3/32 10.8.0.4/30 10.8.0.8/29 10.8.0.16/28 10.8.0.32/27 10.8.0.64/26 10.8.0.128/25 10.8.1.0/24 10.8.2.0/23 10.8.4.0/22 10.8.8.0/21 10.8.16.0/20 10.8.32.0/19 10.8.64.0/18 10.8.128.0/17",
	routes:  "10.8.0.0/16 throw 10.8.0.2/32", v4: 32765,
	conflicts: `10.8.0.0/16 equal 10.8.0.0/16 tun0 allowed
		10.8.0.0/16 covers 10.8.0.0/24 tun0 allowed`, warning: "address of this workstation",
}, {
	name: "API server and resolver inside an allowed prefix", cluster: cluster("10.130.0.0/16"), flags: []string{"--allow-conflicting-subnets=10.0.0.0/8"},
	host:      office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	protected: []Protected{ProtectAddr(netip.MustParseAddr("10.130.0.10"), "API server"), ProtectAddr(netip.MustParseAddr("::ffff:10.130.0.11"), "resolver")},
	allowed:   "10.130.0.0/29 10.130.0.8/31 10.130.0.12/30 10.130.0.16/28 10.130.0.32/27 10.130.0.64/26 10.130.0.128/25 10.130.1.0/24 10.130.2.0/23 10.130.4.0/22 10.130.8.0/21 10.130.16.0/20 10.130.32.0/19 10.130.64.0/18 10.130.128.0/17",
	routes:    "10.130.0.0/16 throw 10.130.0.10/32 throw 10.130.0.11/32", v4: 32765,
	conflicts: "10.130.0.0/16 inside 10.0.0.0/8 tun0 allowed", warning: "10.130.0.10/32 does not go through the tunnel: API server",
}, {
	name: "a VPN server inside an allowed prefix: the VPN lives", cluster: cluster("10.130.0.0/16"), flags: []string{"--allow-conflicting-subnets=10.128.0.0/9"},
	host:    office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0\n10.130.255.255 via 192.168.7.1 dev eth0",
	allowed: "10.130.0.0/17 10.130.128.0/18 10.130.192.0/19 10.130.224.0/20 10.130.240.0/21 10.130.248.0/22 10.130.252.0/23 10.130.254.0/24 10.130.255.0/25 10.130.255.128/26 10.130.255.192/27 10.130.255.224/28 10.130.255.240/29 10.130.255.248/30 10.130.255.252/31 10.130.255.254/32",
	routes:  "10.130.0.0/16 throw 10.130.255.255/32", v4: 32765,
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 allowed
		10.130.0.0/16 covers 10.130.255.255/32 eth0 protected`, warning: "endpoint of another tunnel, routed by eth0",
}, {
	name: "also/24 with never/28 inside", cluster: Cluster{}, flags: []string{"--also-proxy=192.0.2.0/24", "--never-proxy=192.0.2.16/28"},
	host: office, allowed: "192.0.2.0/28 192.0.2.32/27 192.0.2.64/26 192.0.2.128/25", routes: "192.0.2.0/24 throw 192.0.2.16/28", v4: 32765,
}, {
	name: "never/24 with also/28 inside", cluster: Cluster{}, flags: []string{"--never-proxy=192.0.2.0/24", "--also-proxy=192.0.2.16/28"},
	host: office, allowed: "192.0.2.16/28", routes: "192.0.2.16/28", v4: 32765,
}, {
	name: "never and also of one prefix: never wins", cluster: Cluster{}, flags: []string{"--never-proxy=192.0.2.0/24", "--also-proxy=192.0.2.0/24"},
	host: office,
}, {
	name: "never/24 in the services with also/28 inside", cluster: cluster("10.130.0.0/22"),
	flags: []string{"--never-proxy=10.130.1.0/24", "--also-proxy=10.130.1.16/28"},
	host:  office, allowed: "10.130.0.0/24 10.130.1.16/28 10.130.2.0/23", routes: "10.130.0.0/22 throw 10.130.1.0/24 10.130.1.16/28", v4: 32765,
}, {
	name: "never-proxy of one service address", cluster: cluster("10.130.0.0/30"), flags: []string{"--never-proxy=10.130.0.1/32"},
	host: office, allowed: "10.130.0.0/32 10.130.0.2/31", routes: "10.130.0.0/30 throw 10.130.0.1/32", v4: 32765,
}, {
	name: "an also-proxied prefix conflicts like any other", cluster: Cluster{}, flags: []string{"--also-proxy=10.20.0.0/16"},
	host:      office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	conflicts: "10.20.0.0/16 inside 10.0.0.0/8 tun0 unresolved open 10.20.0.0/16",
}, {
	name: "blackhole and unreachable routes", cluster: lab,
	host:    office + "blackhole 10.130.0.0/16\nunreachable 10.132.128.0/17",
	allowed: "10.132.0.0/17", routes: "10.132.0.0/16 throw 10.132.128.0/17", v4: 32765,
	conflicts: `10.130.0.0/16 equal 10.130.0.0/16 - unresolved open 10.130.0.0/16
		10.132.0.0/16 covers 10.132.128.0/17 - unresolved open 10.132.128.0/17`,
}, {
	name: "multipath over two interfaces", cluster: cluster("10.130.0.0/16"),
	host:      office + "link eth1 - 192.168.8.2/24\n10.0.0.0/8 nexthop via 192.168.7.9 dev eth0 nexthop via 192.168.8.9 dev eth1",
	conflicts: "10.130.0.0/16 inside 10.0.0.0/8 eth0,eth1 unresolved open 10.130.0.0/16",
}, {
	name: "device-only default route", cluster: lab,
	host:    "link ppp0 ppp p2p 198.51.100.2/32\ndefault dev ppp0",
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "connected already: our own table, rule and interface are no conflict", cluster: lab, own: Own{Interface: "culvert0", Table: 7830},
	overlay: []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31")},
	host: office + `
		link culvert0 tun p2p 245.1.2.4/31
		245.1.2.4/31 dev culvert0 proto kernel
		local 245.1.2.4 dev culvert0 proto kernel
		10.130.0.0/16 dev culvert0 table 7830 proto 202
		10.132.0.0/16 dev culvert0 table 7830 proto 202
		throw 10.130.0.9 table 7830 proto 202
		rule 32765: lookup 7830`,
	allowed: "10.130.0.0/16 10.132.0.0/16 245.1.2.5/32", routes: "10.130.0.0/16 10.132.0.0/16 245.1.2.5/32", v4: 32765,
}, {
	name: "another Culvert connection to a cluster with the same subnets", cluster: lab, own: Own{Interface: "culvert1", Table: 7831},
	host:    office + "link culvert0 tun p2p 245.1.2.4/31\n10.130.0.0/16 dev culvert0 table 7830 proto 202\nrule 32765: lookup 7830",
	allowed: "10.132.0.0/16", routes: "10.132.0.0/16", v4: 32764,
	conflicts: "10.130.0.0/16 equal 10.130.0.0/16 culvert0 unresolved open 10.130.0.0/16",
}, {
	name: "a rule at priority 1 leaves no room", cluster: cluster("10.130.0.0/16"), flags: []string{"--allow-conflicting-subnets=10.130.0.0/16"},
	host:      office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0 table 77\nrule 1: lookup 77",
	conflicts: "10.130.0.0/16 inside 10.0.0.0/8 tun0 protected", warning: "rule 1 comes before any that could be ours",
}, {
	name: "pod prefixes of many nodes become one", cluster: cluster("", "10.132.0.0/24", "10.132.1.0/24", "10.132.3.0/24", "10.132.2.0/24"),
	host: office, allowed: "10.132.0.0/22", routes: "10.132.0.0/22", v4: 32765,
}, {
	name: "routes that tile a subnet leave nothing of it", cluster: cluster("10.130.0.0/16"),
	host: office + "link tun0 tun p2p\n10.130.0.0/17 dev tun0\n10.130.128.0/17 dev tun0",
	conflicts: `10.130.0.0/16 covers 10.130.0.0/17 tun0 unresolved open 10.130.0.0/17
		10.130.0.0/16 covers 10.130.128.0/17 tun0 unresolved open 10.130.128.0/17`,
}, {
	name: "an IPsec policy takes 10.0.0.0/8, whatever the routes say", cluster: lab,
	host: office + "ipsec protect 10.0.0.0/8 peer 203.0.113.9",
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 - unresolved open 10.130.0.0/16
		10.132.0.0/16 inside 10.0.0.0/8 - unresolved open 10.132.0.0/16`,
}, {
	// culvert0 has disable_xfrm, so that our route is enough, however late.
	name: "the same, one subnet allowed, the other left", cluster: lab, flags: []string{"--conflict=10.130.0.0/16=allow,10.132.0.0/16=yield"},
	host:    office + "ipsec protect 10.0.0.0/8 peer 203.0.113.9",
	allowed: "10.130.0.0/16", routes: "10.130.0.0/16", v4: 32765,
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 - allowed
		10.132.0.0/16 inside 10.0.0.0/8 - yielded`,
}, {
	name: "strongSwan: virtual address as source, table 220, policy inside the pods", cluster: lab,
	host: office + `
		link ipsec0 - 10.9.0.2/32
		10.132.64.0/18 via 192.168.7.1 dev eth0 table 220
		rule 220: lookup 220
		ipsec protect 10.132.64.0/18 from 10.9.0.2 peer 203.0.113.9`,
	allowed: "10.130.0.0/16 10.132.0.0/18 10.132.128.0/17", routes: "10.130.0.0/16 10.132.0.0/16 throw 10.132.64.0/18", v4: 32765,
	conflicts: `10.132.0.0/16 covers 10.132.64.0/18 - unresolved open 10.132.64.0/18
		10.132.0.0/16 covers 10.132.64.0/18 eth0 unresolved open 10.132.64.0/18`,
}, {
	name: "IPsec policies for others' packets, and one that takes everything", cluster: lab,
	host: office + `
		link culvert0 tun p2p 10.9.0.3/32
		ipsec protect 10.0.0.0/8 if_id 42
		ipsec protect 10.0.0.0/8 fwmark 0x1
		ipsec protect 10.0.0.0/8 from 10.9.0.0/24
		ipsec protect 10.0.0.0/8 dev culvert0
		ipsec protect default peer 203.0.113.9`,
	own:     Own{Interface: "culvert0", Table: 7830},
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "an IPsec policy behind an exemption of the services, and one too narrow", cluster: lab,
	host: office + `
		ipsec protect 10.0.0.0/8 priority 9
		ipsec bypass 10.130.0.0/16 priority 8
		ipsec bypass 10.132.0.0/24 priority 8 partial
		ipsec bypass 10.132.1.0/24 priority 8 from 192.168.7.2
		ipsec bypass 10.132.2.0/24 priority 10`,
	allowed: "10.130.0.0/16", routes: "10.130.0.0/16", v4: 32765,
	conflicts: "10.132.0.0/16 inside 10.0.0.0/8 - unresolved open 10.132.0.0/16",
}, {
	name: "the other end of an IPsec tunnel inside an allowed prefix: the VPN lives", cluster: cluster("10.130.0.0/30"), flags: []string{"--allow-conflicting-subnets=10.130.0.0/30"},
	host:    office + "ipsec discard 10.130.0.0/16\nipsec protect 172.20.0.0/16 peer 10.130.0.1",
	allowed: "10.130.0.0/32 10.130.0.2/31", routes: "10.130.0.0/30 throw 10.130.0.1/32", v4: 32765,
	conflicts: "10.130.0.0/30 inside 10.130.0.0/16 - allowed", warning: "other end of an IPsec tunnel",
}, {
	name: "a VRF with the cluster's addresses, which only its own packets see", cluster: lab,
	host: office + `
		link red vrf table 88
		link eth1 - 10.130.0.2/24 master red
		default via 10.130.0.1 dev eth1 table 88
		10.130.0.0/24 dev eth1 table 88 proto kernel
		local 10.130.0.2 dev eth1 table 88 proto kernel
		rule 1000: l3mdev`,
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}, {
	name: "the same with a rule that leads ordinary packets in", cluster: cluster("10.130.0.0/16"),
	host: office + `
		link red vrf table 88
		link eth1 - 10.130.0.2/24 master red
		10.130.0.0/16 via 10.130.0.1 dev eth1 table 88
		local 10.130.0.2 dev eth1 table 88 proto kernel
		rule 1000: l3mdev
		rule 5000: lookup 88`,
	conflicts: "10.130.0.0/16 equal 10.130.0.0/16 eth1 unresolved open 10.130.0.0/16", warning: "10.130.0.2/32 does not go through the tunnel: address of this workstation",
}, {
	name: "one table, nothing in the way", cluster: lab, host: office, oneTable: true, overlay: []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31")},
	allowed: "10.130.0.0/16 10.132.0.0/16 245.1.2.5/32", routes: "10.130.0.0/16 10.132.0.0/16 245.1.2.5/32",
}, {
	name: "one table, a wider VPN route left and one equal taken: its halves", cluster: lab, oneTable: true,
	flags: []string{"--allow-conflicting-subnets=10.130.0.0/16"}, host: office + "link utun4 - p2p\n10.130.0.0/16 dev utun4\n10.132.0.0/15 dev utun4",
	allowed: "10.130.0.0/16", routes: "10.130.0.0/17 10.130.128.0/17",
	conflicts: `10.130.0.0/16 equal 10.130.0.0/16 utun4 allowed
		10.132.0.0/16 inside 10.132.0.0/15 utun4 unresolved open 10.132.0.0/16`,
}, {
	name: "one table, a half that the VPN has too is taken by its own halves", cluster: cluster("10.130.0.0/16"), oneTable: true,
	flags: []string{"--conflict=all=allow,10.130.64.0/24=yield"}, host: office + "link utun4 - p2p\n10.130.128.0/17 dev utun4\n10.130.128.0/18 dev utun4\n10.130.64.0/24 dev utun4",
	allowed: "10.130.0.0/18 10.130.65.0/24 10.130.66.0/23 10.130.68.0/22 10.130.72.0/21 10.130.80.0/20 10.130.96.0/19 10.130.128.0/17",
	routes:  "10.130.0.0/18 10.130.65.0/24 10.130.66.0/23 10.130.68.0/22 10.130.72.0/21 10.130.80.0/20 10.130.96.0/19 10.130.128.0/19 10.130.160.0/19 10.130.192.0/18",
	conflicts: `10.130.0.0/16 covers 10.130.64.0/24 utun4 yielded
		10.130.0.0/16 covers 10.130.128.0/17 utun4 allowed
		10.130.0.0/16 covers 10.130.128.0/18 utun4 allowed`,
}, {
	name: "one table, single addresses cannot be taken", cluster: cluster("10.130.0.0/30"), oneTable: true, overlay: []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31")},
	flags: []string{"--allow-conflicting-subnets=all"}, host: office + "link utun4 - p2p\n10.130.0.1 dev utun4\n245.1.2.5 dev utun4",
	allowed: "10.130.0.0/32 10.130.0.2/31", routes: "10.130.0.0/32 10.130.0.2/31",
	conflicts: "10.130.0.0/30 covers 10.130.0.1/32 utun4 protected", warning: "245.1.2.5/32 does not go through the tunnel: utun4 has a route for this single address",
}, {
	name: "virtual addresses for nobody: nothing is in the way", flags: []string{"--on-conflict=virtualize"}, cluster: lab, virtual: "246.0.0.0/8", host: office,
	allowed: "10.130.0.0/16 10.132.0.0/16 246.130.0.0/16 246.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16 246.130.0.0/16 246.132.0.0/16", v4: 32765,
	twins: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
}, {
	name: "the cluster inside a VPN's 10.0.0.0/8, virtualized", flags: []string{"--on-conflict=virtualize"}, cluster: lab, virtual: "246.0.0.0/8",
	host:    office + "link tun0 tun p2p 10.8.0.2/24\n10.0.0.0/8 via 10.8.0.1 dev tun0",
	allowed: "246.130.0.0/16 246.132.0.0/16", routes: "246.130.0.0/16 246.132.0.0/16", v4: 32765, hidden: "10.130.0.0/16 10.132.0.0/16",
	twins: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 virtualized
		10.132.0.0/16 inside 10.0.0.0/8 tun0 virtualized`,
}, {
	name: "inside a VPN's 10.128.0.0/9", flags: []string{"--on-conflict=virtualize"}, cluster: lab, virtual: "246.0.0.0/8",
	host:    office + "link tun0 tun p2p 10.8.0.2/24\n10.128.0.0/9 via 10.8.0.1 dev tun0",
	allowed: "246.130.0.0/16 246.132.0.0/16", routes: "246.130.0.0/16 246.132.0.0/16", v4: 32765, hidden: "10.130.0.0/16 10.132.0.0/16",
	twins: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
	conflicts: `10.130.0.0/16 inside 10.128.0.0/9 tun0 virtualized
		10.132.0.0/16 inside 10.128.0.0/9 tun0 virtualized`,
}, {
	name: "only the slice of the pods that a VPN routes", flags: []string{"--on-conflict=virtualize"}, cluster: lab, virtual: "246.0.0.0/8",
	host:    office + "link tun0 tun p2p\n10.132.64.0/18 dev tun0",
	allowed: "10.130.0.0/16 10.132.0.0/18 10.132.128.0/17 246.130.0.0/16 246.132.0.0/16",
	routes:  "10.130.0.0/16 10.132.0.0/16 throw 10.132.64.0/18 246.130.0.0/16 246.132.0.0/16", v4: 32765, hidden: "10.132.64.0/18",
	twins:     "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
	conflicts: "10.132.0.0/16 covers 10.132.64.0/18 tun0 virtualized",
}, {
	name: "a VPN route equal to the services", flags: []string{"--on-conflict=virtualize"}, cluster: lab, virtual: "246.0.0.0/8",
	host:    office + "link tun0 tun p2p\n10.130.0.0/16 dev tun0",
	allowed: "10.132.0.0/16 246.130.0.0/16 246.132.0.0/16", routes: "10.132.0.0/16 246.130.0.0/16 246.132.0.0/16", v4: 32765, hidden: "10.130.0.0/16",
	twins:     "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
	conflicts: "10.130.0.0/16 equal 10.130.0.0/16 tun0 virtualized",
}, {
	name: "services taken, pods virtualized but for a part that is left", cluster: lab, virtual: "246.0.0.0/8",
	flags:   []string{"--conflict=10.130.0.0/16=allow,10.132.64.0/24=yield,pods=virtualize"},
	host:    office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	allowed: "10.130.0.0/16 246.130.0.0/16 246.132.0.0/16", routes: "10.130.0.0/16 246.130.0.0/16 246.132.0.0/16", v4: 32765,
	hidden: "10.132.0.0/18 10.132.65.0/24 10.132.66.0/23 10.132.68.0/22 10.132.72.0/21 10.132.80.0/20 10.132.96.0/19 10.132.128.0/17",
	twins:  "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 allowed
		10.132.0.0/16 inside 10.0.0.0/8 tun0 virtualized`,
}, {
	name: "all by way of the gateway, whoever routes it", flags: []string{"--proxy-via=all=gateway"}, cluster: lab, virtual: "246.0.0.0/8", host: office,
	allowed: "246.130.0.0/16 246.132.0.0/16", routes: "246.130.0.0/16 246.132.0.0/16", v4: 32765, hidden: "10.130.0.0/16 10.132.0.0/16",
	twins: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
}, {
	name: "by way of the gateway beats an allow; the rest is native", cluster: lab, virtual: "246.0.0.0/8",
	flags: []string{"--proxy-via=service=gateway", "--allow-conflicting-subnets=all"}, host: office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0",
	allowed: "10.132.0.0/16 246.130.0.0/16 246.132.0.0/16", routes: "10.132.0.0/16 246.130.0.0/16 246.132.0.0/16", v4: 32765, hidden: "10.130.0.0/16",
	twins: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 tun0 virtualized
		10.132.0.0/16 inside 10.0.0.0/8 tun0 allowed`,
}, {
	name: "of also, never and by way of the gateway the most specific", cluster: cluster("10.130.0.0/22"), virtual: "246.0.0.0/8", host: office,
	flags: []string{"--never-proxy=10.130.1.0/24,10.130.2.0/24", "--also-proxy=10.130.0.0/25"}, rules: []RoutingRule{via("10.130.0.0/22"), via("10.130.1.0/25"), via("10.130.2.0/24")},
	allowed: "10.130.0.0/25 246.130.0.0/22", routes: "10.130.0.0/25 246.130.0.0/22", v4: 32765, hidden: "10.130.0.128/25 10.130.1.0/25 10.130.3.0/24",
	twins: "10.130.0.0/22 246.130.0.0/22",
}, {
	name: "by way of the gateway to what is no subnet of the cluster", flags: []string{"--proxy-via=192.168.0.0/16=gateway"}, cluster: cluster("10.130.0.0/16"), virtual: "246.0.0.0/8", host: office,

	allowed: "10.130.0.0/16 246.130.0.0/16 246.168.0.0/16", routes: "10.130.0.0/16 246.130.0.0/16 246.168.0.0/16", v4: 32765, hidden: "192.168.0.0/16",
	twins: "10.130.0.0/16 246.130.0.0/16 192.168.0.0/16 246.168.0.0/16", conflicts: "192.168.0.0/16 covers 192.168.7.0/24 eth0 virtualized",
}, {
	name: "the same, where only a part has a twin", flags: []string{"--proxy-via=64.0.0.0/4=gateway"}, virtual: "246.0.0.0/8 64.0.0.0/5 248.0.0.0/5", host: office, cluster: cluster("10.130.0.0/16"),

	allowed: "10.130.0.0/16 246.130.0.0/16 248.0.0.0/5", routes: "10.130.0.0/16 246.130.0.0/16 246.240.0.0/12", v4: 32765, hidden: "64.0.0.0/5",
	twins:   "10.130.0.0/16 246.130.0.0/16 64.0.0.0/5 248.0.0.0/5 pooled 72.0.0.0/5 no room for it beside the virtual subnet 246.0.0.0/8 in 240.0.0.0/4",
	warning: "72.0.0.0/5 (also) has no virtual addresses",
}, {
	name: "the same without a virtual subnet", flags: []string{"--proxy-via=192.168.0.0/16=gateway"}, cluster: cluster("10.130.0.0/16"), host: office,
	allowed: "10.130.0.0/16", routes: "10.130.0.0/16", v4: 32765, warning: "nothing has virtual addresses: there is no virtual subnet",
}, {
	name: "a LAN inside the pods is left, and its pods are reached all the same", flags: []string{"--on-conflict=virtualize"}, cluster: cluster("", "192.168.0.0/16"), virtual: "246.0.0.0/8",
	host:    "link eth0 - 192.168.7.2/24\ndefault via 192.168.7.1 dev eth0\n192.168.7.0/24 dev eth0 proto kernel scope link",
	allowed: "192.168.0.0/22 192.168.4.0/23 192.168.6.0/24 192.168.8.0/21 192.168.16.0/20 192.168.32.0/19 192.168.64.0/18 192.168.128.0/17 246.168.0.0/16",
	routes:  "192.168.0.0/16 throw 192.168.7.0/24 246.168.0.0/16", v4: 32765, hidden: "192.168.7.0/24", twins: "192.168.0.0/16 246.168.0.0/16",
	conflicts: "192.168.0.0/16 covers 192.168.7.0/24 eth0 virtualized",
}, {
	name: "the same, allowed in a wider prefix", cluster: cluster("", "192.168.0.0/16"), virtual: "246.0.0.0/8",
	flags:   []string{"--on-conflict=virtualize", "--allow-conflicting-subnets=192.168.0.0/16"},
	host:    "link eth0 - 192.168.7.2/24\ndefault via 192.168.7.1 dev eth0\n192.168.7.0/24 dev eth0 proto kernel scope link",
	allowed: "192.168.0.0/22 192.168.4.0/23 192.168.6.0/24 192.168.8.0/21 192.168.16.0/20 192.168.32.0/19 192.168.64.0/18 192.168.128.0/17 246.168.0.0/16",
	routes:  "192.168.0.0/16 throw 192.168.7.0/24 246.168.0.0/16", v4: 32765, hidden: "192.168.7.0/24", twins: "192.168.0.0/16 246.168.0.0/16",
	conflicts: "192.168.0.0/16 covers 192.168.7.0/24 eth0 virtualized",
}, {
	name: "the API server inside the services keeps its way and has a virtual address", flags: []string{"--on-conflict=virtualize"}, cluster: cluster("10.130.0.0/30"), virtual: "246.0.0.0/8", host: office,
	protected: []Protected{ProtectAddr(netip.MustParseAddr("10.130.0.1"), "API server")},
	allowed:   "10.130.0.0/32 10.130.0.2/31 246.130.0.0/30", routes: "10.130.0.0/30 throw 10.130.0.1/32 246.130.0.0/30", v4: 32765, hidden: "10.130.0.1/32",
	twins: "10.130.0.0/30 246.130.0.0/30",
}, {
	name: "a subnet too large for the virtual subnet is pooled", flags: []string{"--on-conflict=virtualize"}, cluster: cluster("10.130.0.0/16", "172.16.0.0/11"), virtual: "246.0.0.0/8",
	host:    office + "link tun0 tun p2p\n172.16.0.0/12 dev tun0",
	allowed: "10.130.0.0/16 172.0.0.0/12 246.130.0.0/16 252.0.0.0/11", routes: "10.130.0.0/16 172.0.0.0/11 throw 172.16.0.0/12 246.130.0.0/16 246.240.0.0/12", v4: 32765,
	hidden: "172.16.0.0/12", twins: "10.130.0.0/16 246.130.0.0/16 172.0.0.0/11 252.0.0.0/11 pooled",
	conflicts: "172.0.0.0/11 covers 172.16.0.0/12 tun0 virtualized",
}, {
	name: "a small virtual subnet is all pool", flags: []string{"--on-conflict=virtualize"}, cluster: lab, virtual: "211.55.48.0/20",
	host:    office + "link tun0 tun p2p\n10.132.0.0/16 dev tun0",
	allowed: "10.130.0.0/16 250.130.0.0/16 250.132.0.0/16", routes: "10.130.0.0/16 211.55.48.0/20", v4: 32765, hidden: "10.132.0.0/16",
	twins: "10.130.0.0/16 250.130.0.0/16 pooled 10.132.0.0/16 250.132.0.0/16 pooled", conflicts: "10.132.0.0/16 equal 10.132.0.0/16 tun0 virtualized",
}, {
	name: "a subnet without room for a twin stays a conflict", flags: []string{"--on-conflict=virtualize"}, cluster: cluster("", "64.0.0.0/4"), virtual: "246.0.0.0/8",
	host:    office + "link tun0 tun p2p\n64.0.0.0/5 dev tun0",
	allowed: "72.0.0.0/5", routes: "64.0.0.0/4 throw 64.0.0.0/5", v4: 32765, twins: "64.0.0.0/4 no room for it beside the virtual subnet 246.0.0.0/8 in 240.0.0.0/4",
	conflicts: "64.0.0.0/4 covers 64.0.0.0/5 tun0 unresolved open 64.0.0.0/5", warning: "64.0.0.0/4 (pods) has no virtual addresses: no room",
}, {
	name: "one prefix virtualized that has no twin", cluster: cluster("", "64.0.0.0/4"), virtual: "246.0.0.0/8",
	flags: []string{"--conflict=64.0.0.0/8=virtualize", "--allow-conflicting-subnets=64.0.0.0/4"}, host: office + "link tun0 tun p2p\n64.0.0.0/7 dev tun0",
	allowed: "65.0.0.0/8 66.0.0.0/7 68.0.0.0/6 72.0.0.0/5", routes: "64.0.0.0/4 throw 64.0.0.0/8", v4: 32765,
	twins:     "64.0.0.0/4 no room for it beside the virtual subnet 246.0.0.0/8 in 240.0.0.0/4",
	conflicts: "64.0.0.0/4 covers 64.0.0.0/7 tun0 unresolved open 64.0.0.0/8", warning: "has no virtual addresses",
}, {
	name: "NetBird takes class E after us: our rule moves before its", cluster: cluster("10.130.0.0/16"), virtual: "246.0.0.0/8 10.130.0.0/16 246.130.0.0/16",
	host: office + `
		link wt0 wireguard 100.92.0.2/16
		240.0.0.0/4 dev wt0 table 7120
		rule 105: lookup main suppress_prefixlength 0
		rule 110: not fwmark 0x1bd00 lookup 7120`,
	allowed: "10.130.0.0/16 246.130.0.0/16", routes: "10.130.0.0/16 246.130.0.0/16", v4: 109, twins: "10.130.0.0/16 246.130.0.0/16",
	warning: "240.0.0.0/4 on wt0 (NetBird, table 7120) overlaps the virtual addresses 246.130.0.0/16 (stands for 10.130.0.0/16 (services))",
}, {
	name: "a resolver among virtual addresses keeps its way", cluster: cluster("10.130.0.0/30"), virtual: "246.0.0.0/8", host: office,
	protected: []Protected{ProtectAddr(netip.MustParseAddr("246.130.0.1"), "resolver")},
	allowed:   "10.130.0.0/30 246.130.0.0/30", routes: "10.130.0.0/30 246.130.0.0/30 throw 246.130.0.1/32", v4: 32765, twins: "10.130.0.0/30 246.130.0.0/30",
	warning: "246.130.0.1/32 does not go through the tunnel: resolver",
}, {
	name: "one table, virtualized", flags: []string{"--on-conflict=virtualize"}, cluster: lab, virtual: "246.0.0.0/8", oneTable: true, host: office + "link utun4 - p2p\n10.0.0.0/8 dev utun4",
	allowed: "246.130.0.0/16 246.132.0.0/16", routes: "246.130.0.0/16 246.132.0.0/16", hidden: "10.130.0.0/16 10.132.0.0/16",
	twins: "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16",
	conflicts: `10.130.0.0/16 inside 10.0.0.0/8 utun4 virtualized
		10.132.0.0/16 inside 10.0.0.0/8 utun4 virtualized`,
}, {
	name: "one table, a twin that the VPN has come to route is taken by its halves", cluster: cluster("10.130.0.0/16"), oneTable: true,
	virtual: "246.0.0.0/8 10.130.0.0/16 246.130.0.0/16", host: office + "link utun4 - p2p\n246.130.0.0/16 dev utun4",
	allowed: "10.130.0.0/16 246.130.0.0/16", routes: "10.130.0.0/16 246.130.0.0/17 246.130.128.0/17", twins: "10.130.0.0/16 246.130.0.0/16",
	warning: "246.130.0.0/16 on utun4",
}, {
	name: "one table, neighbouring twins and a VPN route over both", cluster: cluster("10.130.0.0/16", "10.131.0.0/16"), oneTable: true,
	virtual: "246.0.0.0/8 10.130.0.0/16 246.130.0.0/16 10.131.0.0/16 246.131.0.0/16", host: office + "link utun4 - p2p\n246.130.0.0/15 dev utun4",
	allowed: "10.130.0.0/15 246.130.0.0/15", routes: "10.130.0.0/15 246.130.0.0/16 246.131.0.0/16", twins: "10.130.0.0/16 246.130.0.0/16 10.131.0.0/16 246.131.0.0/16",
	warning: "246.130.0.0/15 on utun4",
}, {
	name: "a route for another type of service", cluster: lab, host: office + "10.0.0.0/8 via 192.168.7.9 dev eth0 tos 0x10",
	allowed: "10.130.0.0/16 10.132.0.0/16", routes: "10.130.0.0/16 10.132.0.0/16", v4: 32765,
}}
