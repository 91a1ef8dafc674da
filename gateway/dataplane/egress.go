package dataplane

import (
	"log/slog"
	"net"
	"net/netip"
)

// route is where a flow goes.
type route uint8

const (
	refused   route = iota // denied: RST or ICMP "administratively prohibited"
	nowhere                // denied, and a twin that does not exist: ICMP "host unreachable"
	toNetwork              // dialled with a socket of the pod
	toGateway              // the gateway's own overlay address: echo and the local service
)

// decide is the one place where a flow is let through and where twins are translated: from pr's node address
// src to dst (port 0 for echo), which stands for to. What to is decides; dst says only whether the gateway
// itself is meant, which no twin stands for. What is refused here is refused whatever [Config].Permit says,
// except that [AllowReserved] opens loopback, link-local and the gateway's own addresses.
func (p *Plane) decide(pr *peer, proto Proto, src netip.Addr, dst netip.AddrPort) (to netip.AddrPort, r route) {
	if dst.Addr() == pr.gateway(src) {
		return dst, toGateway
	}
	to = pr.real(dst)
	if !neverUnicast(dst.Addr()) && p.passes(src, proto, to) {
		return to, toNetwork
	}
	if to == dst && twinSpace(dst.Addr()) {
		return to, nowhere
	}
	return to, refused
}

// passes reports whether a flow from the node address src may go to the real address to.
func (p *Plane) passes(src netip.Addr, proto Proto, to netip.AddrPort) bool {
	a := to.Addr()
	if neverUnicast(a) || p.peers.Load().overlay[a] != nil {
		return false
	}
	switch p.cfg.Permit(src, proto, to) {
	case AllowReserved:
		return true
	case Allow:
		return !p.reserved(a)
	}
	return false
}

// twinSpace reports whether a is where the twins of Peers are. Clusters too may use these ranges; an address
// there that is no twin and is not permitted as itself is taken for a twin that has gone.
func twinSpace(a netip.Addr) bool {
	return classE.Contains(a) && a != broadcast || uniqueLocal.Contains(a)
}

// Ranges that netip has no predicate for.
var (
	thisNetwork  = netip.MustParsePrefix("0.0.0.0/8")     // RFC 791: this host on this network
	classE       = netip.MustParsePrefix("240.0.0.0/4")   // RFC 1112: reserved, nowhere routed
	broadcast    = netip.MustParseAddr("255.255.255.255") // RFC 919
	uniqueLocal  = netip.MustParsePrefix("fc00::/7")      // RFC 4193
	v4Compatible = netip.MustParsePrefix("::/96")         // RFC 4291: deprecated; holds :: and ::1
	siteLocal    = netip.MustParsePrefix("fec0::/10")     // RFC 3879: deprecated
)

// neverUnicast reports whether no flow can go to a: it names no single host, or hides an IPv4 address
// in a form that would slip past rules written for IPv4.
func neverUnicast(a netip.Addr) bool {
	switch {
	case !a.IsValid(), a.Zone() != "", a.IsUnspecified(), a.IsMulticast(), a == broadcast:
		return true
	case a.Is4():
		return thisNetwork.Contains(a)
	}
	return a.Is4In6() || v4Compatible.Contains(a) && !a.IsLoopback() || siteLocal.Contains(a)
}

// reserved reports whether a flow to a needs [AllowReserved]. Which further addresses give away
// credentials (metadata services outside link-local space) is for Permit to know.
func (p *Plane) reserved(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || p.own[a]
}

// ownAddresses returns the addresses of the process's interfaces: its health port listens there.
func ownAddresses(log *slog.Logger) map[netip.Addr]bool {
	own := make(map[netip.Addr]bool)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		log.Warn("data plane: own addresses unknown, only Permit guards them", "err", err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own[prefix.Addr().Unmap().WithZone("")] = true
		}
	}
	return own
}
