package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// DefaultVirtualSubnet is where IPv4 twins come from unless settings say otherwise: class E, which no
// LAN and no VPN uses, and not what overlay addresses are taken from.
var DefaultVirtualSubnet = netip.MustParsePrefix("246.0.0.0/8")

// Virtual is what twins are made of.
type Virtual struct {
	// V4 and V6 are the subnets that twins lie in; a family whose subnet is not valid has none.
	V4, V6 netip.Prefix
	// Assigned are the twins of earlier plans for this cluster. They are kept, also for prefixes that
	// have grown or shrunk, as long as nobody else routes them.
	Assigned []Twin
}

// Twin is a prefix under which a cluster subnet can be reached whatever becomes of the subnet's own:
// 1:1, with the same host bits. Nothing translates or routes twins so far; they are in neither
// AllowedIPs nor Routes.
type Twin struct {
	Real netip.Prefix `json:"real"`
	Kind SubnetKind   `json:"kind"`
	// Virtual is as long as Real, in 240.0.0.0/4 or fc00::/7, and what stands on the wire: the gateway
	// translates it to Real and back. It is not valid if there is none, and Reason says why.
	Virtual netip.Prefix `json:"virtual,omitzero"`
	// Pooled says that programs on this host cannot use Virtual itself: addresses leased from one of
	// [Plan.Pools] stand for those of it, one by one.
	Pooled bool   `json:"pooled,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// share is how much of the virtual subnet one twin may take, as a difference in length: 1/16.
const share = 4

// twins returns a twin for every wanted prefix that lies in no other, sorted. They lie apart, from each
// other, from every route of the host and from the cluster's own subnets.
func (v *view) twins(in Input, wants []want) []Twin {
	if !in.Virtual.V4.IsValid() && !in.Virtual.V6.IsValid() {
		return nil
	}
	a := allocator{virtual: in.Virtual, taken: v.routed(wants, in.Overlay), old: map[netip.Prefix]netip.Prefix{}}
	for _, t := range in.Virtual.Assigned {
		if t.Real.Addr().BitLen() == t.Virtual.Addr().BitLen() && t.Real.Bits() == t.Virtual.Bits() && t.Virtual.IsValid() {
			a.old[t.Real.Masked()] = t.Virtual.Masked()
		}
	}
	var out []Twin
	for _, w := range wants { // sorted, what lies in another behind it
		if n := len(out); n == 0 || !covers(out[n-1].Real, w.prefix) {
			out = append(out, Twin{Real: w.prefix, Kind: w.kind})
		}
	}
	for i := range out {
		a.keep(&out[i])
	}
	a.reserve()
	for i := range out {
		if !out[i].Virtual.IsValid() {
			a.assign(&out[i])
		}
	}
	return out
}

// routed returns what twins keep away from, whoever else has a part of it.
func (v *view) routed(wants []want, overlay []netip.Prefix) rangeSet {
	var b netipx.IPSetBuilder
	for i := range v.routes {
		if r := &v.routes[i]; r.Prefix.IsValid() && !v.whole[i] && !v.isOwn(r) {
			b.AddPrefix(r.Prefix)
		}
	}
	for _, w := range wants {
		b.AddPrefix(w.prefix)
	}
	for _, p := range overlay {
		if p.IsValid() {
			b.AddPrefix(p)
		}
	}
	return rangesFrom(&b)
}

// allocator hands out virtual prefixes.
type allocator struct {
	virtual Virtual
	taken   rangeSet
	old     map[netip.Prefix]netip.Prefix // virtual prefixes of earlier plans, by what they stand for
}

// subnet returns the virtual subnet of a prefix's family; not valid if there is none.
func (a *allocator) subnet(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() {
		return a.virtual.V4
	}
	return a.virtual.V6
}

// fits reports whether a prefix is small enough for a twin.
func (a *allocator) fits(real netip.Prefix) bool {
	s := a.subnet(real)
	return s.IsValid() && real.Bits() >= s.Bits()+share
}

// keep gives t the twin that an earlier plan gave to its prefix, to one around it or to a part of it.
func (a *allocator) keep(t *Twin) {
	if !a.fits(t.Real) {
		return
	}
	for bits := t.Real.Bits(); bits > 0; bits-- {
		if old, ok := a.old[netip.PrefixFrom(t.Real.Addr(), bits).Masked()]; ok {
			a.takeFree(t, transplant(t.Real, old))
			return
		}
	}
	var parts []netip.Prefix
	for real := range a.old {
		if covers(t.Real, real) {
			parts = append(parts, real)
		}
	}
	slices.SortFunc(parts, comparePrefix)
	for _, real := range parts {
		p := netip.PrefixFrom(a.old[real].Addr(), t.Real.Bits()).Masked()
		if transplant(real, p) == a.old[real] && !a.reserved(p, t.Real) && a.takeFree(t, p) {
			return
		}
	}
}

// reserved reports whether the earlier twin of a prefix outside real has a part of p.
func (a *allocator) reserved(p, real netip.Prefix) bool {
	for r, old := range a.old {
		if old.Overlaps(p) && !r.Overlaps(real) {
			return true
		}
	}
	return false
}

// reserve keeps the twins of earlier plans for when their prefixes return.
func (a *allocator) reserve() {
	old := make([]netip.Prefix, 0, len(a.old))
	for _, p := range a.old {
		old = append(old, p)
	}
	a.taken = joined(a.taken, rangesOf(old...))
}

// assign gives t the twin with the same low bits or, if that is taken, the next that is free.
func (a *allocator) assign(t *Twin) {
	s := a.subnet(t.Real)
	if !a.fits(t.Real) {
		t.Reason = fmt.Sprintf("larger than 1/%d of the virtual subnet %s", 1<<share, s)
		if !s.IsValid() {
			t.Reason = fmt.Sprintf("there is no virtual subnet for %s", familyOf(t.Real.Addr()))
		}
		return
	}
	first := transplant(t.Real, s)
	p, ok := a.taken.free(first, lastAddr(s))
	if !ok {
		p, ok = a.taken.free(netip.PrefixFrom(s.Addr(), first.Bits()), first.Addr())
	}
	if !ok || !a.takeFree(t, p) {
		t.Reason = fmt.Sprintf("no room in the virtual subnet %s", s)
	}
}

// takeFree gives p to t if it is in the virtual subnet and nobody has a part of it.
func (a *allocator) takeFree(t *Twin, p netip.Prefix) bool {
	if !covers(a.subnet(t.Real), p) || a.taken.overlaps(p) {
		return false
	}
	t.Virtual = p
	at := len(a.taken) - len(a.taken.from(p.Addr()))
	a.taken = slices.Insert(a.taken, at, netipx.RangeOfPrefix(p))
	return true
}

// free returns the first prefix from p on, of its length, that has no address in s and none behind last.
func (s rangeSet) free(p netip.Prefix, last netip.Addr) (netip.Prefix, bool) {
	for p.Addr().IsValid() && lastAddr(p).Compare(last) <= 0 {
		rest := s.from(p.Addr())
		if len(rest) == 0 || rest[0].From().Compare(lastAddr(p)) > 0 {
			return p, true
		}
		around := netip.PrefixFrom(rest[0].To(), p.Bits()).Masked() // where what is taken ends
		p = netip.PrefixFrom(lastAddr(around).Next(), p.Bits())
	}
	return netip.Prefix{}, false
}

// transplant returns p with the leading bits of subnet, which is not longer, in place of its own.
func transplant(p, subnet netip.Prefix) netip.Prefix {
	from, to := p.Addr().AsSlice(), subnet.Addr().AsSlice()
	for bit := subnet.Bits(); bit < p.Bits(); bit++ {
		mask := byte(0x80) >> (bit % 8)
		to[bit/8] = to[bit/8]&^mask | from[bit/8]&mask
	}
	a, _ := netip.AddrFromSlice(to)
	return netip.PrefixFrom(a, p.Bits())
}
