// Package topology is the lab's network: which hosts there are, how they are
// joined, and what each routes. Plan is pure; Build puts a plan into the
// kernel. Nothing of it ever touches the machine's own network namespace: both
// ends of every veth are born inside hosts.
//
//	  ws  192.168.77.10                 the workstation
//	   │  192.168.77.0/24   2001:db8:77::/64
//	router ── 203.0.113.0/24 ── public  203.0.113.10   www.public.example
//	   │      2001:db8:203::/64                        (the internet)
//	   │  198.51.100.0/24   2001:db8:51::/64
//	  vpn  198.51.100.10                VPN server and edge of the company, 10.0.0.0/8
//	   ├── 10.20.0.0/24  fd20::/64 ── corp   .80 web server intranet.corp.example
//	   │                                     .53 resolver
//	   └── 10.50.0.0/24  fd50::/64 ── node1 .11, node2 .12, ...  (API server on node1:6443)
//
// With the VPN off, the router carries ws to 10.0.0.0/8 as in the office; with
// it on, the router drops what the VPN is to carry (see SetOffice), so that a
// VPN route that stops really cuts. Service and pod prefixes are routed on nodes
// alone, never by router or vpn.
package topology

import (
	"fmt"
	"net/netip"
	"strconv"
)

// Names of the fixed hosts.
const (
	WS     = "ws"
	Router = "router"
	Public = "public"
	VPN    = "vpn"
	Corp   = "corp"
)

// Node returns the name of the i-th node, from 1.
func Node(i int) string { return "node" + strconv.Itoa(i) }

// Well-known addresses.
var (
	WSAddr       = netip.MustParseAddr("192.168.77.10")
	PublicAddr   = netip.MustParseAddr("203.0.113.10")
	PublicAddr6  = netip.MustParseAddr("2001:db8:203::10")
	VPNAddr      = netip.MustParseAddr("198.51.100.10")
	CorpWeb      = netip.MustParseAddr("10.20.0.80")
	CorpWeb6     = netip.MustParseAddr("fd20::80")
	CorpResolver = netip.MustParseAddr("10.20.0.53")

	// Tunnel is the network between VPN clients (.2) and server (.1).
	Tunnel  = netip.MustParsePrefix("10.99.0.0/24")
	Tunnel6 = netip.MustParsePrefix("fd99::/64")

	corporate  = netip.MustParsePrefix("10.0.0.0/8")
	corporate6 = netip.MustParsePrefix("fd00::/8")
)

// Names the corporate resolver knows.
const (
	CorpName   = "intranet.corp.example"
	PublicName = "www.public.example"
)

// NodeAddr returns the IPv4 address of the i-th node, from 1.
func NodeAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 50, 0, byte(10 + i)}) }

// NodeAddr6 returns the IPv6 address of the i-th node: fd50::11 for the first.
func NodeAddr6(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd50::%d", 10+i)) }

// APIServer is the address clients dial.
func APIServer() netip.AddrPort { return netip.AddrPortFrom(NodeAddr(1), 6443) }

// Plan is the whole network as values.
type Plan struct {
	Hosts []Host
	Links []Link
}

// Host is one host's part of a plan.
type Host struct {
	Name    string
	Forward bool   // routes packets of others
	Bridge  string // a bridge device to make, empty for none
	Addrs   []Addr
	Routes  []Route
}

// Addr is an address on a device of a host.
type Addr struct {
	Dev    string
	Prefix netip.Prefix // address with its prefix length, not masked
}

// Route is a static route of a host; without Via it is an unreachable one.
type Route struct {
	Dst    netip.Prefix
	Via    netip.Addr
	Metric int // 0 for the kernel's default
}

// Link is a veth pair. A bridge, when named, is the device of that side's host
// to enslave the end to.
type Link struct {
	A, B             string // hosts
	ADev, BDev       string
	ABridge, BBridge string
}

// Make plans a lab with so many nodes. unreachable lists the cluster's service
// and pod prefixes, which the company's edge must refuse rather than send back
// to the internet.
func Make(nodes int, unreachable []netip.Prefix) Plan {
	p := Plan{
		Hosts: []Host{workstation(), router(), public(), edge(unreachable), corp()},
		Links: []Link{
			{A: WS, ADev: "eth0", B: Router, BDev: "lan0"},
			{A: Public, ADev: "eth0", B: Router, BDev: "pub0"},
			{A: VPN, ADev: "wan0", B: Router, BDev: "edge0"},
			{A: Corp, ADev: "eth0", B: VPN, BDev: "corp0"},
		},
	}
	for i := 1; i <= nodes; i++ {
		p.Hosts = append(p.Hosts, node(i))
		p.Links = append(p.Links, Link{A: Node(i), ADev: "eth0", B: VPN, BDev: Node(i), BBridge: "nodes"})
	}
	return p
}

func workstation() Host {
	h := Host{
		Name:   WS,
		Addrs:  addrs("eth0", "192.168.77.10/24", "2001:db8:77::10/64"),
		Routes: defaults("192.168.77.1", "2001:db8:77::1"),
	}
	for i := range h.Routes {
		h.Routes[i].Metric = 100 // as NetworkManager gives a wired default route
	}
	return h
}

func router() Host {
	h := Host{Name: Router, Forward: true}
	h.Addrs = append(h.Addrs, addrs("lan0", "192.168.77.1/24", "2001:db8:77::1/64")...)
	h.Addrs = append(h.Addrs, addrs("pub0", "203.0.113.1/24", "2001:db8:203::1/64")...)
	h.Addrs = append(h.Addrs, addrs("edge0", "198.51.100.1/24", "2001:db8:51::1/64")...)
	h.Routes = []Route{
		{Dst: corporate, Via: VPNAddr},
		{Dst: corporate6, Via: netip.MustParseAddr("2001:db8:51::10")},
	}
	return h
}

func public() Host {
	return Host{
		Name:   Public,
		Addrs:  addrs("eth0", "203.0.113.10/24", "2001:db8:203::10/64"),
		Routes: defaults("203.0.113.1", "2001:db8:203::1"),
	}
}

// edge is the vpn host. Its default route leads back to the router, so what the
// company does not have must be unreachable here.
func edge(unreachable []netip.Prefix) Host {
	h := Host{Name: VPN, Forward: true, Bridge: "nodes"}
	h.Addrs = append(h.Addrs, addrs("wan0", "198.51.100.10/24", "2001:db8:51::10/64")...)
	h.Addrs = append(h.Addrs, addrs("corp0", "10.20.0.1/24", "fd20::1/64")...)
	h.Addrs = append(h.Addrs, addrs("nodes", "10.50.0.1/24", "fd50::1/64")...)
	h.Routes = append(defaults("198.51.100.1", "2001:db8:51::1"), Route{Dst: corporate}, Route{Dst: corporate6})
	for _, prefix := range unreachable {
		if prefix != corporate && prefix != corporate6 {
			h.Routes = append(h.Routes, Route{Dst: prefix})
		}
	}
	return h
}

func corp() Host {
	return Host{
		Name:   Corp,
		Addrs:  addrs("eth0", "10.20.0.80/24", "10.20.0.53/24", "fd20::80/64"),
		Routes: defaults("10.20.0.1", "fd20::1"),
	}
}

func node(i int) Host {
	return Host{
		Name:    Node(i),
		Forward: true,
		Addrs:   addrs("eth0", NodeAddr(i).String()+"/24", NodeAddr6(i).String()+"/64"),
		Routes:  defaults("10.50.0.1", "fd50::1"),
	}
}

func addrs(dev string, prefixes ...string) []Addr {
	var list []Addr
	for _, p := range prefixes {
		list = append(list, Addr{Dev: dev, Prefix: netip.MustParsePrefix(p)})
	}
	return list
}

func defaults(via4, via6 string) []Route {
	return []Route{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(via4)},
		{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr(via6)},
	}
}
