package policy

import (
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// nested is something that holds for all addresses of a prefix, but for those in the smaller prefixes of
// others of its kind. Lists of them are sorted, one to a prefix.
type nested interface{ around() netip.Prefix }

func compareAround[T nested](x T, p netip.Prefix) int { return comparePrefix(x.around(), p) }

// smallestAround returns the place in list of the smallest prefix around p, p itself included; -1 if there
// is none.
func smallestAround[T nested](list []T, p netip.Prefix) int {
	for bits := p.Bits(); bits >= 0; bits-- {
		if i, ok := slices.BinarySearchFunc(list, netip.PrefixFrom(p.Addr(), bits).Masked(), compareAround); ok {
			return i
		}
	}
	return -1
}

// strictlyInside returns those of list whose prefixes lie in p, p itself left out.
func strictlyInside[T nested](list []T, p netip.Prefix) []T {
	lo, itself := slices.BinarySearchFunc(list, p, compareAround)
	if itself {
		lo++
	}
	hi := lo
	for hi < len(list) && covers(p, list[hi].around()) {
		hi++
	}
	return list[lo:hi]
}

// inParts calls part for those of inside, which lie in p, that lie in no other of them, in order, and returns
// what they leave of p as the fewest prefixes.
func inParts[T nested](p netip.Prefix, inside []T, part func(T)) []netip.Prefix {
	var rest netipx.IPSetBuilder
	rest.AddPrefix(p)
	for len(inside) > 0 {
		outer := inside[0]
		rest.RemovePrefix(outer.around())
		part(outer)
		for len(inside) > 0 && covers(outer.around(), inside[0].around()) {
			inside = inside[1:]
		}
	}
	return rangesFrom(&rest).prefixes()
}
