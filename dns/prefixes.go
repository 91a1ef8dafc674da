package dns

import (
	"cmp"
	"net/netip"
	"slices"
)

// prefixMap finds the value of the most specific prefix an address lies in. The zero value holds none.
//
// Prefixes are nested or disjoint. The last one that begins at or before an address, the longer of equal beginnings
// counting as the later, either contains the address or lies beside it in the narrowest prefix that does.
type prefixMap[V any] struct {
	entries []prefixEntry[V] // by beginning, shorter prefixes first
}

type prefixEntry[V any] struct {
	prefix netip.Prefix
	around int // index of the narrowest entry that contains this one; -1 for none
	value  V
}

// newPrefixMap returns the map of those values whose prefix is valid; of equal prefixes the first counts.
func newPrefixMap[V any](values []V, prefix func(V) netip.Prefix) prefixMap[V] {
	var m prefixMap[V]
	for _, v := range values {
		if p := prefix(v); p.IsValid() && !p.Addr().Is4In6() {
			m.entries = append(m.entries, prefixEntry[V]{prefix: p.Masked(), value: v})
		}
	}
	slices.SortStableFunc(m.entries, func(a, b prefixEntry[V]) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	m.entries = slices.CompactFunc(m.entries, func(a, b prefixEntry[V]) bool { return a.prefix == b.prefix })
	for i := range m.entries {
		m.entries[i].around = m.narrowest(i-1, m.entries[i].prefix.Addr())
	}
	return m
}

// narrowest returns the narrowest prefix with addr among the i-th and those around it, or -1.
func (m *prefixMap[V]) narrowest(i int, addr netip.Addr) int {
	for i >= 0 && !m.entries[i].prefix.Contains(addr) {
		i = m.entries[i].around
	}
	return i
}

// find returns the value of the most specific prefix that holds addr.
func (m *prefixMap[V]) find(addr netip.Addr) (v V, ok bool) {
	after, _ := slices.BinarySearchFunc(m.entries, addr, func(e prefixEntry[V], addr netip.Addr) int {
		if e.prefix.Addr().Compare(addr) <= 0 {
			return -1
		}
		return 1
	})
	i := m.narrowest(after-1, addr)
	if i < 0 {
		return v, false
	}
	return m.entries[i].value, true
}

// contains reports whether addr lies in a prefix of the map.
func (m *prefixMap[V]) contains(addr netip.Addr) bool {
	_, ok := m.find(addr)
	return ok
}

func (m *prefixMap[V]) empty() bool { return len(m.entries) == 0 }
