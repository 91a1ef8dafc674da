package subnets

import "net/netip"

// The finest and the coarsest prefixes of a cover, in bits. A finer one would change with every pod;
// a coarser one would take addresses that have nothing to do with the cluster.
const (
	finest4, coarsest4 = 24, 16
	finest6, coarsest6 = 64, 48
)

// coverSize is how many prefixes of a family a cover has at most, where coarsening can reach it.
const coverSize = 32

// Cover returns prefixes that contain all of addrs: as fine as keeps them few, and every prefix of
// before still within them.
func Cover(before []netip.Prefix, addrs []netip.Addr) []netip.Prefix {
	return append(
		coverFamily(before, addrs, true, finest4, coarsest4),
		coverFamily(before, addrs, false, finest6, coarsest6)...)
}

func coverFamily(before []netip.Prefix, addrs []netip.Addr, is4 bool, finest, coarsest int) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range before {
		if p.Addr().Is4() == is4 {
			list = append(list, p)
		}
	}
	for _, a := range addrs {
		if a = a.Unmap().WithZone(""); a.IsValid() && a.Is4() == is4 {
			list = append(list, netip.PrefixFrom(a, finest).Masked())
		}
	}
	list = union(list)
	for bits := finest - 1; bits >= coarsest && len(list) > coverSize; bits-- {
		list = union(coarser(list, bits))
	}
	return list
}

// coarser returns list with every prefix at most bits long.
func coarser(list []netip.Prefix, bits int) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, p := range list {
		out[i] = netip.PrefixFrom(p.Addr(), min(p.Bits(), bits)).Masked()
	}
	return out
}
