package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sysctlDir is where the kernel's network settings are; it shows those of the caller's namespace.
const sysctlDir = "/proc/sys/net"

// linuxHost is the kernel of the network namespace the process is in.
type linuxHost struct {
	nl *netlink.Handle
	// tables lists routes: the kernel filters by table on this socket, which matters on a host with
	// 100,000 routes elsewhere.
	tables *netlink.Handle
}

var _ Host = (*linuxHost)(nil)

// New returns the host's network. The caller closes it with the returned function.
func New() (Host, func(), error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("open netlink: %w", err)
	}
	tables, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		nl.Close()
		return nil, nil, fmt.Errorf("open netlink: %w", err)
	}
	_ = tables.SetStrictCheck(true) // kernels before 4.20 list everything instead
	return &linuxHost{nl: nl, tables: tables}, func() { nl.Close(); tables.Close() }, nil
}

func (h *linuxHost) HasIPv6() bool {
	_, err := os.Stat(filepath.Join(sysctlDir, "ipv6"))
	return err == nil
}

// Do makes one change.
func (h *linuxHost) Do(c Change) error {
	switch c.Kind {
	case AddFilter:
		return addFilter(c.Scope.Interface)
	case DeleteFilter:
		return deleteFilter(c.Scope.Interface)
	case SetSetting:
		// In a container the settings may be read-only; they are then what its creator made them.
		path := filepath.Join(sysctlDir, settingPath(c.Setting, c.Scope.Interface))
		return unlessIs(os.WriteFile(path, []byte(c.Value), 0), unix.EROFS)
	case ReplaceRoute, DeleteRoute:
		return h.doRoute(c)
	case AddRule:
		return unlessIs(h.nl.RuleAdd(rule(c)), unix.EEXIST)
	case DeleteRule:
		// Of two at one priority the kernel may delete the other; see besideRule.
		return unlessIs(h.nl.RuleDel(rule(c)), unix.ENOENT)
	}
	return h.doLink(c)
}

// doLink makes a change to the interface itself.
func (h *linuxHost) doLink(c Change) error {
	link, err := h.link(c.Scope)
	if err != nil {
		return err
	}
	if link == nil {
		if c.Kind == DeleteLink || c.Kind == DeleteAddress {
			return nil
		}
		return ErrGone
	}
	switch c.Kind {
	case SetMTU:
		return h.nl.LinkSetMTU(link, c.MTU)
	case SetUp:
		return h.nl.LinkSetUp(link)
	case AddAddress:
		return h.nl.AddrReplace(link, address(c.Address))
	case DeleteAddress:
		return unlessIs(h.nl.AddrDel(link, address(c.Address)), unix.EADDRNOTAVAIL)
	case DeleteLink:
		return unlessIs(h.nl.LinkDel(link), unix.ENODEV)
	}
	return fmt.Errorf("unknown change %d", c.Kind)
}

// doRoute sets or deletes one route.
func (h *linuxHost) doRoute(c Change) error {
	r := &netlink.Route{
		Dst:      ipNet(c.Route.Prefix),
		Table:    c.Scope.Table(),
		Protocol: Protocol,
		Family:   family(c.Route.Prefix.Addr()),
	}
	if c.Route.Throw {
		r.Type = unix.RTN_THROW
	}
	if c.Kind == DeleteRoute {
		r.Scope = netlink.SCOPE_NOWHERE // any; zero would be looked for
		return unlessIs(h.nl.RouteDel(r), unix.ESRCH)
	}
	if !c.Route.Throw {
		link, err := h.link(c.Scope)
		if err != nil {
			return err
		}
		if link == nil {
			return ErrGone
		}
		r.LinkIndex, r.Scope = link.Attrs().Index, netlink.SCOPE_LINK
		r.Src = c.Source.AsSlice()
	}
	return h.nl.RouteReplace(r)
}

// link returns the scope's interface if it is there and ours, else nil.
func (h *linuxHost) link(scope Scope) (netlink.Link, error) {
	link, err := h.nl.LinkByName(scope.Interface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", scope.Interface, err)
	}
	_, isTUN := link.(*netlink.Tuntap)
	ours := link.Attrs().Alias == alias(scope.Name) || scope.Index != 0 && link.Attrs().Index == scope.Index
	if !isTUN || !ours {
		return nil, nil
	}
	return link, nil
}

// address returns an interface address for which the kernel adds no route of its own to main, and
// which needs no duplicate address detection: nobody else is on the link.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NOPREFIXROUTE}
	if p.Addr().Is6() {
		a.Flags |= unix.IFA_F_NODAD
	}
	return a
}

// rule returns the policy rule of a change.
func rule(c Change) *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Protocol = c.Rule.Priority, c.Scope.Table(), Protocol
	if m := c.Rule.Mark; !m.IsZero() {
		r.Mark, r.Mask, r.Invert = m.Value, &m.Mask, c.Rule.Not
	}
	r.Family = unix.AF_INET
	if c.Rule.IPv6 {
		r.Family = unix.AF_INET6
	}
	return r
}

// unlessIs drops err if it matches target.
func unlessIs(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

// ipNet converts at the edge.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefix converts at the edge; ok is false for nil.
func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

// family returns the address family of a.
func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
