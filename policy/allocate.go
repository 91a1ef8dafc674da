package policy

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// maxTwins is how many a Peer has room for (deploy/crds). fewTwins is how many prefixes of one family get
// twins of their own: two families of them leave some for parts that earlier plans have split.
const (
	maxTwins = 64
	fewTwins = 24
)

// twins returns twins for all that is wanted, sorted, none of whose prefixes lies in another: one for
// every wanted prefix, or for several and what lies between where there are many; or several for one,
// where earlier plans have given parts of it twins that do not fit together. Their virtual prefixes lie
// apart, from each other and from the cluster's own subnets. New ones that programs use themselves keep
// away from every route of the host; those that were there before stay, whatever the host does: a
// virtual address that was handed out works until the end.
func (v *view) twins(in Input, wants []want) []Twin {
	if !in.Virtual.V4.IsValid() && !in.Virtual.V6.IsValid() {
		return nil
	}
	a := v.newAllocator(in, wants)
	var out []Twin
	for _, w := range slices.Concat(gathered(outermostWants(wants, IPv4)), gathered(outermostWants(wants, IPv6))) {
		var around *Twin
		if i := smallestAround(a.old, w.prefix); i >= 0 {
			around = &a.old[i]
		}
		for _, t := range a.divide(w.prefix, around) {
			t.Kind, t.Reason = w.kind, ""
			out = append(out, t)
		}
	}
	a.assignAll(out)
	return out
}

// outermostWants returns the wants of a family that lie in no other, sorted.
func outermostWants(wants []want, f Family) []want {
	var out []want
	for _, w := range wants { // sorted, what lies in another behind it
		if n := len(out); familyOf(w.prefix.Addr()) == f && (n == 0 || !covers(out[n-1].prefix, w.prefix)) {
			out = append(out, w)
		}
	}
	return out
}

// gathered returns prefixes around wants, which are sorted and lie apart: those of the wants if they are
// few, else with those together that are neighbours on the finest scale on which few are left.
func gathered(wants []want) []want {
	if len(wants) <= fewTwins {
		return wants
	}
	out := wants
	for bits := wants[0].prefix.Addr().BitLen() - 1; bits > 0 && len(out) > fewTwins; bits-- {
		out = nil
		for i, j := 0, 0; i < len(wants); i = j {
			near := netip.PrefixFrom(wants[i].prefix.Addr(), bits)
			for j = i + 1; j < len(wants) && wants[i].prefix.Bits() > bits && near.Contains(wants[j].prefix.Addr()); j++ {
			}
			out = append(out, want{prefix: common(wants[i].prefix, wants[j-1].prefix), kind: wants[i].kind})
		}
	}
	return out
}

// common returns the smallest prefix around two of one family.
func common(a, b netip.Prefix) netip.Prefix {
	for bits := min(a.Bits(), b.Bits()); ; bits-- {
		if p := netip.PrefixFrom(a.Addr(), bits).Masked(); p.Contains(b.Addr()) {
			return p
		}
	}
}

// assignAll assigns what twins do not have yet, as far as a Peer has room for them. Those that earlier plans
// had come first; a Peer with too many would be refused as a whole.
func (a *allocator) assignAll(twins []Twin) {
	order := make([]*Twin, len(twins))
	for i := range twins {
		order[i] = &twins[i]
	}
	slices.SortStableFunc(order, func(x, y *Twin) int {
		return cmp.Or(first(a.had(*x), a.had(*y)), first(x.Virtual.IsValid(), y.Virtual.IsValid()))
	})
	room := maxTwins
	for _, t := range order {
		switch {
		case room <= 0:
			t.Virtual, t.Pooled = netip.Prefix{}, false
			t.Reason = fmt.Sprintf("%d other prefixes have some, and a Peer has no room for more", maxTwins)
			continue
		case !t.Virtual.IsValid():
			a.assign(t)
		}
		if t.Virtual.IsValid() {
			room--
		}
	}
}

// had reports whether an earlier plan had this very twin.
func (a *allocator) had(t Twin) bool {
	i, ok := slices.BinarySearchFunc(a.old, t.Real, compareAround)
	return ok && a.old[i].Virtual == t.Virtual
}

// allocator hands out virtual prefixes.
type allocator struct {
	virtual Virtual
	old     []Twin // of earlier plans, sorted; see normalTwins
	// direct and pooled are what new twins of either kind keep away from. Both hold the twins there are.
	direct, pooled rangeSet
}

// newAllocator returns an allocator that knows what there is on the host and in the cluster.
func (v *view) newAllocator(in Input, wants []want) *allocator {
	a := &allocator{virtual: in.Virtual}
	prefixes := []netip.Prefix{endOfClassE}
	for _, w := range wants {
		prefixes = append(prefixes, w.prefix)
	}
	for _, p := range in.Overlay {
		if p.IsValid() {
			prefixes = append(prefixes, p)
		}
	}
	subnets := validPrefixes(in.Virtual.V4, in.Virtual.V6)
	a.direct = joined(rangesOf(append(prefixes, validPrefixes(in.Virtual.pool(IPv4), in.Virtual.pool(IPv6))...)...), v.routedIn(subnets))
	a.pooled = rangesOf(slices.Concat(prefixes, subnets, overlayPools)...)
	a.takeOver(in.Virtual.Assigned)
	return a
}

func validPrefixes(prefixes ...netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(prefixes, func(p netip.Prefix) bool { return !p.IsValid() })
}

// routedIn returns what the host routes of some prefixes, ourselves and what covers everything left out.
func (v *view) routedIn(prefixes []netip.Prefix) rangeSet {
	var b netipx.IPSetBuilder
	for i := range v.routes {
		r := &v.routes[i]
		if r.Prefix.IsValid() && !v.whole[i] && slices.ContainsFunc(prefixes, r.Prefix.Overlaps) && !v.isOwn(r) {
			b.AddPrefix(r.Prefix)
		}
	}
	return rangesFrom(&b)
}

// takeOver takes twins of earlier plans over as far as they make sense in the present subnets.
func (a *allocator) takeOver(assigned []Twin) {
	var virtual rangeSet
	for _, t := range normalTwins(assigned) {
		if a.possible(t) && !virtual.overlaps(t.Virtual) {
			a.old = append(a.old, t)
			virtual = virtual.with(t.Virtual)
		}
	}
	a.direct, a.pooled = joined(a.direct, virtual), joined(a.pooled, virtual)
}

// possible reports whether a twin lies where those of its kind do.
func (a *allocator) possible(t Twin) bool {
	f := familyOf(t.Real.Addr())
	s := a.virtual.subnet(f)
	switch {
	case !s.IsValid():
		return false
	case !t.Pooled:
		return a.fits(t.Real) && covers(s, t.Virtual) && !a.virtual.pool(f).Overlaps(t.Virtual)
	case f == IPv4:
		return covers(classE, t.Virtual) && !s.Overlaps(t.Virtual)
	}
	return covers(uniqueLocal6, t.Virtual) && !s.Overlaps(t.Virtual)
}

// fits reports whether programs could use a twin of a prefix themselves: it is small enough, and no
// loopback, whose twin stands for another host's.
func (a *allocator) fits(real netip.Prefix) bool {
	f := familyOf(real.Addr())
	return a.virtual.direct(f) && real.Bits() >= a.virtual.subnet(f).Bits()+share && !real.Addr().IsLoopback()
}

// divide returns the twins of a prefix and its parts, sorted: for each address that of the smallest old
// prefix around it, where around is the one around all of real, or nil. Those without a virtual prefix
// have yet to be assigned one.
func (a *allocator) divide(real netip.Prefix, around *Twin) []Twin {
	inside := strictlyInside(a.old, real)
	if around == nil && len(inside) > 0 {
		if t, ok := a.grown(real, inside); ok {
			return []Twin{t}
		}
	}
	var out []Twin
	rest := inParts(real, inside, func(part Twin) { out = append(out, a.divide(part.Real, &part)...) })
	for _, p := range rest {
		t := Twin{Real: p}
		if around != nil {
			t.Virtual, t.Pooled = transplant(p, around.Virtual), around.Pooled
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(x, y Twin) int { return comparePrefix(x.Real, y.Real) })
	return out
}

// grown returns a twin of a prefix that has grown over all of its old parts, if they fit into one and the
// rest of it is free.
func (a *allocator) grown(real netip.Prefix, parts []Twin) (Twin, bool) {
	first := parts[0]
	t := Twin{Real: real, Pooled: first.Pooled, Virtual: netip.PrefixFrom(first.Virtual.Addr(), real.Bits()).Masked()}
	if !a.possible(t) {
		return t, false
	}
	var rest netipx.IPSetBuilder
	rest.AddPrefix(real)
	for _, part := range parts {
		if !t.says(part) {
			return t, false
		}
		rest.RemovePrefix(part.Real)
	}
	for _, p := range rangesFrom(&rest).prefixes() {
		if a.taken(t.Pooled).overlaps(transplant(p, t.Virtual)) {
			return t, false
		}
	}
	a.take(t)
	return t, true
}

// taken returns what new twins of a kind keep away from.
func (a *allocator) taken(pooled bool) rangeSet {
	if pooled {
		return a.pooled
	}
	return a.direct
}

func (a *allocator) take(t Twin) {
	for _, set := range []*rangeSet{&a.direct, &a.pooled} {
		switch {
		case set.covers(t.Virtual):
		case set.overlaps(t.Virtual):
			*set = joined(*set, rangesOf(t.Virtual))
		default:
			*set = set.with(t.Virtual)
		}
	}
}

// assign gives t a virtual prefix of its own: one that programs use if it fits and there is room, else
// one for the wire alone.
func (a *allocator) assign(t *Twin) {
	s := a.virtual.subnet(familyOf(t.Real.Addr()))
	if !s.IsValid() {
		t.Reason = fmt.Sprintf("there is no virtual subnet for %s", familyOf(t.Real.Addr()))
		return
	}
	if a.fits(t.Real) && a.place(t, s, s) {
		return
	}
	t.Pooled = true
	space, site := a.wire(t.Real)
	if t.Real.Bits() < space.Bits() || !a.place(t, space, site) {
		t.Pooled = false
		t.Reason = fmt.Sprintf("no room for it beside the virtual subnet %s in %s", s, space)
	}
}

// wire returns the space that holds the wire's prefixes for pooled twins, and where in it to begin: in
// IPv6 at a site of our own, made of the virtual subnet (RFC 4193, section 3.2.2).
func (a *allocator) wire(real netip.Prefix) (space, site netip.Prefix) {
	if real.Addr().Is4() {
		return classE, classE
	}
	sum := sha256.Sum256([]byte("wire " + a.virtual.V6.String()))
	site = siteOf(sum)
	if real.Bits() < site.Bits() {
		site = netip.PrefixFrom(site.Addr(), real.Bits()).Masked()
	}
	return localSites6, site
}

// place gives t the prefix with the same low bits in first or, if that is taken, the next free one of
// space.
func (a *allocator) place(t *Twin, space, first netip.Prefix) bool {
	taken, wish := a.taken(t.Pooled), transplant(t.Real, first)
	p, ok := taken.free(wish, lastAddr(space))
	if !ok {
		p, ok = taken.free(netip.PrefixFrom(space.Addr(), wish.Bits()), wish.Addr())
	}
	if ok {
		t.Virtual = p
		a.take(*t)
	}
	return ok
}

// with returns s with the addresses of p, none of which it has.
func (s rangeSet) with(p netip.Prefix) rangeSet {
	at := len(s) - len(s.from(p.Addr()))
	return slices.Insert(s, at, netipx.RangeOfPrefix(p))
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
