package reach

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linuxNetwork is the network namespace of the process.
type linuxNetwork struct {
	nl    *netlink.Handle
	uid   uint32
	names map[int]string // of interfaces, by number
}

var _ network = (*linuxNetwork)(nil)

// openNetwork returns the host's network.
func openNetwork() (network, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &linuxNetwork{nl: nl, uid: uint32(os.Getuid()), names: map[int]string{}}, nil
}

func (n *linuxNetwork) close() { n.nl.Close() }

// route asks as `ip route get A uid UID` does.
func (n *linuxNetwork) route(a netip.Addr) (Route, error) {
	routes, err := n.nl.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{UID: &n.uid})
	if refusal := refusalOf(err); refusal != "" {
		return Route{Refusal: refusal}, nil
	}
	if err == nil && len(routes) == 0 {
		err = errors.New("no answer")
	}
	if err != nil {
		return Route{}, fmt.Errorf("ask the kernel for the route to %s: %w", a, err)
	}
	r := Route{Table: routes[0].Table, Local: routes[0].Type == unix.RTN_LOCAL}
	if hop, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		r.NextHop = hop.Unmap()
	}
	r.Interface, err = n.name(routes[0].LinkIndex)
	return r, err
}

// refusalOf reads the errors by which the kernel answers for routes that lead nowhere (fib_props in
// net/ipv4/fib_semantics.c, ip6_rt_type_to_error in net/ipv6/route.c); "" for others.
func refusalOf(err error) string {
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		return "no route"
	case errors.Is(err, unix.EHOSTUNREACH):
		return "an unreachable route"
	case errors.Is(err, unix.EACCES):
		return "a prohibiting route"
	case errors.Is(err, unix.EINVAL):
		return "a blackhole route"
	}
	return ""
}

// name returns the name of an interface.
func (n *linuxNetwork) name(index int) (string, error) {
	if name, ok := n.names[index]; ok {
		return name, nil
	}
	link, err := n.nl.LinkByIndex(index)
	if err != nil {
		return "", fmt.Errorf("look up interface %d: %w", index, err)
	}
	n.names[index] = link.Attrs().Name
	return n.names[index], nil
}
