package routefacts

import (
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// decodeLink reads an RTM_NEWLINK message (struct ifinfomsg).
func decodeLink(m []byte) (policy.Link, error) {
	fixed, rest, err := header(m, unix.SizeofIfInfomsg)
	if err != nil {
		return policy.Link{}, err
	}
	flags := native.Uint32(fixed[8:])
	l := policy.Link{
		Index:        int(int32(native.Uint32(fixed[4:]))),
		Up:           flags&unix.IFF_UP != 0,
		Loopback:     flags&unix.IFF_LOOPBACK != 0,
		PointToPoint: flags&unix.IFF_POINTOPOINT != 0,
	}
	err = attributes(rest, func(kind uint16, value []byte) error {
		var n uint32
		var err error
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(value)
		case unix.IFLA_IFALIAS:
			l.Alias = text(value)
		case unix.IFLA_MTU:
			n, err = uint32Of(value)
			l.MTU = int(n)
		case unix.IFLA_MASTER:
			n, err = uint32Of(value)
			l.Master = int(n)
		case unix.IFLA_LINKINFO:
			l.Kind, l.VRFTable, err = linkInfo(value)
		}
		return err
	})
	if err != nil {
		return policy.Link{}, err
	}
	return l, nil
}

// linkInfo reads what a driver says about its interface; vrfTable is 0 unless the kind is "vrf".
func linkInfo(b []byte) (kind string, vrfTable uint32, err error) {
	var data []byte // what it means depends on the kind
	err = attributes(b, func(a uint16, value []byte) error {
		switch a {
		case unix.IFLA_INFO_KIND:
			kind = text(value)
		case unix.IFLA_INFO_DATA:
			data = value
		}
		return nil
	})
	if err != nil || kind != "vrf" {
		return kind, 0, err
	}
	err = attributes(data, func(a uint16, value []byte) (err error) {
		if a == unix.IFLA_VRF_TABLE {
			vrfTable, err = uint32Of(value)
		}
		return err
	})
	return kind, vrfTable, err
}
