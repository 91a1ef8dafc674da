package routefacts

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

var routeTypes = map[uint8]policy.RouteType{
	unix.RTN_UNICAST:     policy.Unicast,
	unix.RTN_LOCAL:       policy.Local,
	unix.RTN_BROADCAST:   policy.Broadcast,
	unix.RTN_ANYCAST:     policy.Anycast,
	unix.RTN_MULTICAST:   policy.Multicast,
	unix.RTN_BLACKHOLE:   policy.Blackhole,
	unix.RTN_UNREACHABLE: policy.Unreachable,
	unix.RTN_PROHIBIT:    policy.Prohibit,
	unix.RTN_THROW:       policy.Throw,
}

// decodeRoute reads an RTM_NEWROUTE message (struct rtmsg). use is false for entries that steer
// nothing: cached ones, and routes all of whose next hops are dead.
func decodeRoute(m []byte) (r policy.Route, use bool, err error) {
	fixed, rest, err := header(m, unix.SizeofRtMsg)
	if err != nil {
		return policy.Route{}, false, err
	}
	flags := native.Uint32(fixed[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return policy.Route{}, false, nil
	}
	d := routeDecoder{hop: policy.NextHop{}}
	d.route = policy.Route{Table: uint32(fixed[4]), Protocol: fixed[5], Scope: fixed[6], Type: routeType(fixed[7])}
	if err := attributes(rest, d.attribute); err != nil {
		return policy.Route{}, false, err
	}
	if d.route.Prefix, err = prefixOf(d.dst, fixed[1], fixed[0]); err != nil {
		return policy.Route{}, false, err
	}
	if fixed[2] > 0 {
		if d.route.Source, err = prefixOf(d.src, fixed[2], fixed[0]); err != nil {
			return policy.Route{}, false, err
		}
	}
	if d.hop != (policy.NextHop{}) && flags&unix.RTNH_F_DEAD == 0 {
		d.route.NextHops = append(d.route.NextHops, d.hop)
	}
	dead := len(d.route.NextHops) == 0 && (d.dead || flags&unix.RTNH_F_DEAD != 0)
	return d.route, !dead, nil
}

func routeType(n uint8) policy.RouteType {
	if t, ok := routeTypes[n]; ok {
		return t
	}
	return policy.RouteType(fmt.Sprintf("type %d", n))
}

// routeDecoder gathers the attributes of one route.
type routeDecoder struct {
	route    policy.Route
	dst, src netip.Addr
	hop      policy.NextHop // of a route with one
	dead     bool           // a next hop was left out because it is dead
}

func (d *routeDecoder) attribute(kind uint16, value []byte) (err error) {
	switch kind {
	case unix.RTA_DST:
		d.dst, err = addrOf(value)
	case unix.RTA_SRC:
		d.src, err = addrOf(value)
	case unix.RTA_PREFSRC:
		d.route.PreferredSource, err = addrOf(value)
	case unix.RTA_TABLE:
		d.route.Table, err = uint32Of(value)
	case unix.RTA_PRIORITY:
		d.route.Metric, err = uint32Of(value)
	case unix.RTA_MULTIPATH:
		err = d.multipath(value)
	default:
		err = hopAttribute(&d.hop, kind, value)
	}
	return err
}

// hopAttribute reads what belongs to one next hop.
func hopAttribute(h *policy.NextHop, kind uint16, value []byte) (err error) {
	switch kind {
	case unix.RTA_OIF:
		var n uint32
		n, err = uint32Of(value)
		h.Link = int(n)
	case unix.RTA_GATEWAY:
		h.Addr, err = addrOf(value)
	case unix.RTA_VIA: // struct rtvia: the family, then an address of it
		if len(value) < 2 {
			return fmt.Errorf("a next hop of another family in %d bytes", len(value))
		}
		h.Addr, err = addrOf(value[2:])
	}
	return err
}

// multipath reads the next hops of a route with several (struct rtnexthop, attributes behind each).
func (d *routeDecoder) multipath(b []byte) error {
	for len(b) > 0 {
		fixed, _, err := header(b, unix.SizeofRtNexthop)
		if err != nil {
			return err
		}
		size := int(native.Uint16(fixed))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return fmt.Errorf("a next hop of %d bytes where %d are left", size, len(b))
		}
		h := policy.NextHop{Link: int(int32(native.Uint32(fixed[4:])))}
		err = attributes(b[unix.SizeofRtNexthop:size], func(kind uint16, value []byte) error {
			return hopAttribute(&h, kind, value)
		})
		if err != nil {
			return err
		}
		if fixed[2]&unix.RTNH_F_DEAD != 0 {
			d.dead = true
		} else {
			d.route.NextHops = append(d.route.NextHops, h)
		}
		b = b[min(len(b), align(size)):]
	}
	return nil
}
