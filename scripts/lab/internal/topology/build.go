package topology

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
)

// Build puts the plan into the kernel. holder gives the process that holds each
// host's namespaces.
func (p Plan) Build(holder map[string]int) error {
	for _, h := range p.Hosts {
		if err := host.Do(holder[h.Name], host.Net, h.prepare); err != nil {
			return fmt.Errorf("prepare %s: %w", h.Name, err)
		}
	}
	for _, l := range p.Links {
		if err := l.build(holder); err != nil {
			return fmt.Errorf("join %s and %s: %w", l.A, l.B, err)
		}
	}
	for _, h := range p.Hosts {
		if err := host.Do(holder[h.Name], host.Net, h.configure); err != nil {
			return fmt.Errorf("configure %s: %w", h.Name, err)
		}
	}
	return nil
}

// prepare sets what devices inherit when they appear, and makes the bridge.
func (h Host) prepare() error {
	sysctls := map[string]string{
		"ipv4/ping_group_range":        "0 2147483647", // as systemd sets it: ping without privilege
		"ipv6/conf/default/accept_dad": "0",            // IPv6 addresses usable at once
		"ipv6/conf/all/accept_dad":     "0",
		"ipv6/conf/default/accept_ra":  "0",
		"ipv6/conf/all/accept_ra":      "0",
	}
	if h.Forward {
		sysctls["ipv4/ip_forward"] = "1"
		sysctls["ipv6/conf/all/forwarding"] = "1"
	}
	for key, value := range sysctls {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", key, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if h.Bridge == "" {
		return nil
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = h.Bridge
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s: %w", h.Bridge, err)
	}
	return netlink.LinkSetUp(bridge)
}

// build makes the pair with one end in each host from the start: A's side runs
// the request, the peer is born in B.
func (l Link) build(holder map[string]int) error {
	peer, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", holder[l.B]))
	if err != nil {
		return err
	}
	defer peer.Close()
	err = host.Do(holder[l.A], host.Net, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: l.BDev, PeerNamespace: netlink.NsFd(peer.Fd())}
		veth.Name = l.ADev
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		return raise(l.ADev, l.ABridge)
	})
	if err != nil {
		return err
	}
	return host.Do(holder[l.B], host.Net, func() error { return raise(l.BDev, l.BBridge) })
}

func raise(dev, bridge string) error {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	if bridge != "" {
		master, err := netlink.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("find %s: %w", bridge, err)
		}
		if err := netlink.LinkSetMaster(link, master); err != nil {
			return fmt.Errorf("add %s to %s: %w", dev, bridge, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// configure adds addresses and routes, in that order: next hops must be on
// link.
func (h Host) configure() error {
	for _, a := range h.Addrs {
		link, err := netlink.LinkByName(a.Dev)
		if err != nil {
			return fmt.Errorf("find %s: %w", a.Dev, err)
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: HostNet(a.Prefix), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("add %s to %s: %w", a.Prefix, a.Dev, err)
		}
	}
	for _, r := range h.Routes {
		if err := AddRoute(r); err != nil {
			return err
		}
	}
	return nil
}

// AddRoute adds or replaces a static route in the calling thread's network
// namespace.
func AddRoute(r Route) error {
	route := &netlink.Route{Dst: HostNet(r.Dst), Protocol: unix.RTPROT_STATIC, Priority: r.Metric}
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
	} else {
		route.Type = unix.RTN_UNREACHABLE
	}
	if r.Dst.Addr().Is6() {
		route.Family = nl.FAMILY_V6
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("add route %s via %s: %w", r.Dst, r.Via, err)
	}
	return nil
}

// HostNet converts to the netlink library's type, keeping host bits.
func HostNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// OfficeRules renders the router's filter. Prefixes in cut are no longer carried
// from the workstation's network into the company; with none all is.
func OfficeRules(cut []netip.Prefix) string {
	var rules strings.Builder
	rules.WriteString("table inet office\ndelete table inet office\n")
	if len(cut) == 0 {
		return rules.String()
	}
	rules.WriteString("table inet office {\n  chain forward {\n    type filter hook forward priority 0; policy accept;\n")
	for _, p := range cut {
		family := "ip"
		if p.Addr().Is6() {
			family = "ip6"
		}
		fmt.Fprintf(&rules, "    iifname \"lan0\" oifname \"edge0\" %s daddr %s drop\n", family, p)
	}
	rules.WriteString("  }\n}\n")
	return rules.String()
}

// Cut returns what the router drops while a VPN carries routes: the parts of
// the company's network they cover. The VPN server's own public address stays
// reachable whatever the routes.
func Cut(routes []netip.Prefix) []netip.Prefix {
	var cut []netip.Prefix
	for _, r := range routes {
		for _, own := range []netip.Prefix{corporate, corporate6} {
			switch {
			case !own.Overlaps(r):
			case own.Bits() > r.Bits():
				cut = append(cut, own)
			default:
				cut = append(cut, r)
			}
		}
	}
	return cut
}
