package twins

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/culvert-dev/culvert/gateway/overlay"
	"github.com/culvert-dev/culvert/policy"
)

// Twin says that Virtual stands 1:1 for Real: two masked prefixes of one family and length.
type Twin struct{ Real, Virtual netip.Prefix }

// check returns what is wrong with t by itself.
func (t Twin) check() error {
	for _, p := range []netip.Prefix{t.Real, t.Virtual} {
		if !p.IsValid() || p.Addr().Is4In6() || p != p.Masked() {
			return fmt.Errorf("%s is no plain address prefix without host bits", p)
		}
	}
	if t.Real.Addr().Is4() != t.Virtual.Addr().Is4() || t.Real.Bits() != t.Virtual.Bits() {
		return fmt.Errorf("%s and %s are not of the same family and length", t.Real, t.Virtual)
	}
	return nil
}

// Map translates the addresses of virtual prefixes. It is immutable; the nil Map translates nothing.
type Map []Twin // sorted by Virtual, no two of which overlap

// New returns the Map of list, in any order. It is an error if a twin is not well formed, if two virtual
// prefixes overlap, or if one real prefix has two twins. Real prefixes may lie within each other.
func New(list []Twin) (Map, error) {
	m := slices.Clone(list)
	known := make(map[netip.Prefix]bool, len(m))
	for _, t := range m {
		if err := t.check(); err != nil {
			return nil, err
		}
		if known[t.Real] {
			return nil, fmt.Errorf("%s has two twins", t.Real)
		}
		known[t.Real] = true
	}
	slices.SortFunc(m, func(a, b Twin) int {
		return cmp.Or(a.Virtual.Addr().Compare(b.Virtual.Addr()), cmp.Compare(a.Virtual.Bits(), b.Virtual.Bits()))
	})
	for i := 1; i < len(m); i++ { // of prefixes in this order, one that overlaps any overlaps its neighbour
		if m[i-1].Virtual.Overlaps(m[i].Virtual) {
			return nil, fmt.Errorf("%s and %s, which stand for %s and %s, overlap", m[i-1].Virtual, m[i].Virtual, m[i-1].Real, m[i].Real)
		}
	}
	return m, nil
}

// Real returns the address that a stands for: a itself where it is in no twin. It does not allocate.
func (m Map) Real(a netip.Addr) netip.Addr {
	low, high := 0, len(m) // the first twin that begins behind a
	for low < high {
		if middle := (low + high) / 2; m[middle].Virtual.Addr().Compare(a) <= 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low == 0 || !m[low-1].Virtual.Contains(a) {
		return a
	}
	return policy.Transplant(a, m[low-1].Real)
}

// ForPeer returns the Map of what a Peer asks for. Beside what [New] checks, virtual prefixes must come from
// where overlay addresses do and leave alone links, which are the Peer's own addresses and the gateway's: those
// keep their meaning. What twins may stand for is not looked at but for multicast, which is no destination of a
// flow: egress decides on the real address of each.
func ForPeer(list []Twin, links []netip.Prefix) (Map, error) {
	for _, t := range list {
		if err := overlay.Check(t.Virtual); err != nil {
			return nil, err
		}
		if t.Real.Addr().IsMulticast() {
			return nil, fmt.Errorf("%s is multicast", t.Real)
		}
		if n := slices.IndexFunc(links, t.Virtual.Overlaps); n >= 0 {
			return nil, fmt.Errorf("%s holds this Peer's own addresses %s", t.Virtual, links[n])
		}
	}
	return New(list)
}
