package vnat

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"

	"github.com/culvert-dev/culvert/policy"
)

// mapping maps a prefix onto another of the same length and family, 1:1.
type mapping struct {
	from, to netip.Prefix
	around   int // index of the next longer prefix that holds from; -1 for none
}

// index finds the longest prefix around an address:
//
//	10.0.0.0/8 ◄── 10.1.0.0/16 ◄── 10.1.2.0/24      fd00::/8
//
// The prefixes are sorted, those that begin alike by length. Of those that begin at or before the address, the
// last holds it, or one of those around the last does: prefixes lie in each other or apart.
type index []mapping

func newIndex(mappings []mapping) index {
	x := index(mappings)
	for i := range x {
		x[i].from, x[i].to = x[i].from.Masked(), x[i].to.Masked()
	}
	slices.SortStableFunc(x, func(a, b mapping) int {
		return cmp.Or(a.from.Addr().Compare(b.from.Addr()), cmp.Compare(a.from.Bits(), b.from.Bits()))
	})
	for i := range x {
		around := i - 1
		for around >= 0 && !x[around].from.Contains(x[i].from.Addr()) {
			around = x[around].around
		}
		x[i].around = around
	}
	return x
}

// find returns the place of the longest prefix around a, -1 if there is none.
func (x index) find(a netip.Addr) int {
	i := sort.Search(len(x), func(i int) bool { return a.Less(x[i].from.Addr()) }) - 1
	for i >= 0 && !x[i].from.Contains(a) {
		i = x[i].around
	}
	return i
}

// holds reports whether a prefix holds a.
func (x index) holds(a netip.Addr) bool { return x.find(a) >= 0 }

// translate returns what a is mapped to.
func (x index) translate(a netip.Addr) (netip.Addr, bool) {
	i := x.find(a)
	if i < 0 {
		return netip.Addr{}, false
	}
	return policy.Transplant(a, x[i].to), true
}
