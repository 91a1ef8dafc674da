package policy

import (
	"net/netip"
	"slices"
	"sort"

	"go4.org/netipx"
)

// rangeSet is a set of addresses as sorted ranges that neither touch nor overlap. netipx.IPSet
// holds the same, but answers overlap questions by walking all of it; here they are a binary search.
type rangeSet []netipx.IPRange

// rangesOf makes the set of all addresses of valid prefixes.
func rangesOf(prefixes ...netip.Prefix) rangeSet {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		b.AddPrefix(p)
	}
	return rangesFrom(&b)
}

// rangesFrom finishes a builder that was given valid prefixes and ranges only.
func rangesFrom(b *netipx.IPSetBuilder) rangeSet {
	set, err := b.IPSet()
	if err != nil {
		panic("policy: an invalid prefix got past validation: " + err.Error())
	}
	return set.Ranges()
}

// from returns the ranges that end at a or later.
func (s rangeSet) from(a netip.Addr) rangeSet {
	i := sort.Search(len(s), func(i int) bool { return s[i].To().Compare(a) >= 0 })
	return s[i:]
}

// overlaps reports whether any address of p is in s.
func (s rangeSet) overlaps(p netip.Prefix) bool {
	rest := s.from(p.Addr())
	if len(rest) == 0 {
		return false
	}
	first := rest[0].From()
	// The first range that is not wholly before p either begins in it, or before and reaches into it.
	return first.Compare(p.Addr()) <= 0 || p.Contains(first)
}

// covers reports whether every address of p is in s.
func (s rangeSet) covers(p netip.Prefix) bool {
	rest := s.from(netipx.PrefixLastIP(p))
	return len(rest) > 0 && rest[0].Contains(p.Addr())
}

// within returns the part of s inside p, as the fewest prefixes.
func (s rangeSet) within(p netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	last := netipx.PrefixLastIP(p)
	for _, r := range s.from(p.Addr()) {
		if r.From().Compare(last) > 0 {
			break
		}
		lo, hi := r.From(), r.To()
		if lo.Compare(p.Addr()) < 0 {
			lo = p.Addr()
		}
		if hi.Compare(last) > 0 {
			hi = last
		}
		out = netipx.IPRangeFrom(lo, hi).AppendPrefixes(out)
	}
	return out
}

// joined returns the addresses of both sets.
func joined(a, b rangeSet) rangeSet {
	var builder netipx.IPSetBuilder
	for _, r := range slices.Concat(a, b) {
		builder.AddRange(r)
	}
	return rangesFrom(&builder)
}

// orNone returns s as the fewest prefixes, sorted; nil if there are none.
func (s rangeSet) orNone() []netip.Prefix {
	if len(s) == 0 {
		return nil
	}
	return s.prefixes()
}

// prefixes returns s as the fewest prefixes, sorted.
func (s rangeSet) prefixes() []netip.Prefix {
	out := []netip.Prefix{}
	for _, r := range s {
		out = r.AppendPrefixes(out)
	}
	return out
}
