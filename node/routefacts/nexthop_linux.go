package routefacts

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// nexthop is a next hop object (ip-nexthop(8)), which routes may refer to by its number. As a rule the
// kernel writes what it stands for into the route too; not so with the sysctl nexthop_compat_mode at 0,
// as routing daemons recommend it.
type nexthop struct {
	hop       policy.NextHop
	group     []uint32 // the numbers of others, instead of hop
	blackhole bool
	dead      bool
}

// sizeofNexthopGroup is the size of struct nexthop_grp (linux/nexthop.h), which begins with a number.
const sizeofNexthopGroup = 8

// decodeNexthop reads an RTM_NEWNEXTHOP message (struct nhmsg).
func decodeNexthop(m []byte) (id uint32, n nexthop, err error) {
	fixed, rest, err := header(m, unix.SizeofNhmsg)
	if err != nil {
		return 0, nexthop{}, err
	}
	n.dead = native.Uint32(fixed[4:])&unix.RTNH_F_DEAD != 0
	err = attributes(rest, func(kind uint16, value []byte) (err error) {
		switch kind {
		case unix.NHA_ID:
			id, err = uint32Of(value)
		case unix.NHA_GROUP:
			n.group, err = nexthopGroup(value)
		case unix.NHA_BLACKHOLE:
			n.blackhole = true
		case unix.NHA_OIF:
			err = hopAttribute(&n.hop, unix.RTA_OIF, value)
		case unix.NHA_GATEWAY:
			n.hop.Addr, err = addrOf(value)
		}
		return err
	})
	if err == nil && id == 0 {
		err = fmt.Errorf("a next hop without a number")
	}
	if err != nil {
		return 0, nexthop{}, err
	}
	return id, n, nil
}

func nexthopGroup(b []byte) (ids []uint32, err error) {
	if len(b)%sizeofNexthopGroup != 0 {
		return nil, fmt.Errorf("a group of next hops in %d bytes", len(b))
	}
	for member := range slices.Chunk(b, sizeofNexthopGroup) {
		ids = append(ids, native.Uint32(member))
	}
	return ids, nil
}

// nexthops are the next hop objects of a host by their numbers.
type nexthops map[uint32]nexthop

// resolve gives a route the next hops that object id stands for. use is false if all of them are dead;
// known is false if one is missing, which means that they changed while they were read.
func (all nexthops) resolve(r *policy.Route, id uint32) (use, known bool) {
	n, known := all[id]
	members := n.group
	if n.group == nil {
		members = []uint32{id}
	}
	for _, id := range members {
		n, ok := all[id]
		known = known && ok
		switch {
		case n.blackhole:
			r.Type, r.NextHops = policy.Blackhole, nil
			return true, known
		case ok && !n.dead:
			r.NextHops = append(r.NextHops, n.hop)
		}
	}
	return len(r.NextHops) > 0, known
}
