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
	return fewer(union(list), coverSize, finest, coarsest)
}

// fewer returns list, all of one family, with its prefixes shortened bit by bit from finest to coarsest
// until at most most are left.
func fewer(list []netip.Prefix, most, finest, coarsest int) []netip.Prefix {
	for bits := finest - 1; bits >= coarsest && len(list) > most; bits-- {
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

// nodePrefixes is how many prefixes the nodes' podCIDRs may make of a family: the API has room for
// 1,024 in all, and every one is a route on every workstation.
const nodePrefixes = 256

// nodesOf returns the nodes' podCIDRs of one family, joined, and widened where a cluster of very many
// nodes has left too many holes between them.
func nodesOf(list []netip.Prefix, is4 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range union(list) {
		if p.Addr().Is4() == is4 {
			out = append(out, p)
		}
	}
	if is4 {
		return fewer(out, nodePrefixes, 32, coarsest4)
	}
	return fewer(out, nodePrefixes, 128, coarsest6)
}
