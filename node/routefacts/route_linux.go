package routefacts

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// rtaNexthopID is RTA_NH_ID of linux/rtnetlink.h.
const rtaNexthopID = 30

var routeTypes = [...]policy.RouteType{
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

func routeType(n uint8) policy.RouteType {
	if int(n) < len(routeTypes) && routeTypes[n] != "" {
		return routeTypes[n]
	}
	return policy.RouteType(fmt.Sprintf("type %d", n))
}

// leadsNowhere reports whether a route of type t has no next hop. The kernel reports lo for some.
func leadsNowhere(t policy.RouteType) bool {
	return t == policy.Blackhole || t == policy.Unreachable || t == policy.Prohibit || t == policy.Throw
}

// routeDecoder reads RTM_NEWROUTE messages (struct rtmsg), one after another. A host may have a hundred
// thousand routes, so their next hops are cut from common blocks and nothing is kept per message.
type routeDecoder struct {
	block []policy.NextHop

	// What one message says, besides the route itself.
	dst, src netip.Addr
	hop      policy.NextHop // of a route with one
	dead     bool           // a next hop was left out because it is dead
	first    int            // where the route's next hops begin in block
	// nexthop is the number of the next hop object that the route uses; 0 if none (ip-nexthop(8)).
	nexthop uint32
}

// hopBlock is how many next hops are allocated at once.
const hopBlock = 512

// decode reads a route into r, which must be zero. use is false for entries that steer nothing: cached
// ones, and routes all of whose next hops are dead. Without use r means nothing.
func (d *routeDecoder) decode(m []byte, r *policy.Route) (use bool, err error) {
	fixed, rest, err := header(m, unix.SizeofRtMsg)
	if err != nil {
		return false, err
	}
	flags := native.Uint32(fixed[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return false, nil
	}
	*d = routeDecoder{block: d.block, first: len(d.block)}
	r.Table, r.TOS, r.Protocol, r.Scope, r.Type = uint32(fixed[4]), fixed[3], fixed[5], fixed[6], routeType(fixed[7])
	err = attributes(rest, func(kind uint16, value []byte) error { return d.attribute(r, kind, value) })
	if err == nil {
		err = d.prefixes(r, fixed)
	}
	if err != nil {
		return false, err
	}
	dead := flags&unix.RTNH_F_DEAD != 0
	if d.hop != (policy.NextHop{}) && !dead {
		d.add(d.hop)
	}
	r.NextHops = d.hops()
	if leadsNowhere(r.Type) {
		r.NextHops = nil
		return true, nil
	}
	return len(r.NextHops) > 0 || !dead && !d.dead, nil
}

// prefixes adds the prefixes, whose lengths are in the header.
func (d *routeDecoder) prefixes(r *policy.Route, fixed []byte) (err error) {
	if r.Prefix, err = prefixOf(d.dst, fixed[1], fixed[0]); err == nil && fixed[2] > 0 {
		r.Source, err = prefixOf(d.src, fixed[2], fixed[0])
	}
	return err
}

func (d *routeDecoder) attribute(r *policy.Route, kind uint16, value []byte) (err error) {
	switch kind {
	case unix.RTA_DST:
		d.dst, err = addrOf(value)
	case unix.RTA_SRC:
		d.src, err = addrOf(value)
	case unix.RTA_PREFSRC:
		r.PreferredSource, err = addrOf(value)
	case unix.RTA_TABLE:
		r.Table, err = uint32Of(value)
	case unix.RTA_PRIORITY:
		r.Metric, err = uint32Of(value)
	case unix.RTA_MULTIPATH:
		err = d.multipath(value)
	case rtaNexthopID:
		d.nexthop, err = uint32Of(value)
	default:
		err = hopAttribute(&d.hop, kind, value)
	}
	return err
}

// add appends a next hop to those of the route at hand.
func (d *routeDecoder) add(h policy.NextHop) {
	if len(d.block) == cap(d.block) {
		begun := d.block[d.first:]
		d.block = append(make([]policy.NextHop, 0, hopBlock+2*len(begun)), begun...)
		d.first = 0
	}
	d.block = append(d.block, h)
}

// hops returns the next hops of the route at hand; to append to them does not touch the block.
func (d *routeDecoder) hops() []policy.NextHop {
	if d.first == len(d.block) {
		return nil
	}
	return d.block[d.first:len(d.block):len(d.block)]
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
			d.add(h)
		}
		b = b[min(len(b), align(size)):]
	}
	return nil
}
