package policy

import (
	"reflect"
	"slices"
)

// A Planner makes plans for one connection, one after the other, and remembers what the last one
// followed from: with 100,000 routes, nearly all of which bear on no plan, a changed route costs what
// it takes to find it. It gives what [NewPlan] gives.
//
// The zero value is ready. A Planner has one owner and no goroutine. It keeps the input's lists and
// hands a plan's out again, so neither may be changed afterwards.
type Planner struct {
	planned bool
	in      Input
	plan    Plan
	wishes  wishes
	// sizes are those of the exits, as parts of the whole space; see wholeSpace.
	sizes map[exit]float64
	// material are the positions of those routes that a plan can depend on, ascending.
	material []int32
}

// Plan decides. It never fails: what cannot be had is left out, and a conflict or a warning says so.
func (p *Planner) Plan(in Input) Plan {
	same := p.planned && p.sameButRoutes(in)
	last := p.in
	p.in = in
	if !p.planned || !p.sameWishes(last) {
		p.selectAll()
		same = false
	} else if p.selectChanged(last.Facts.Routes) {
		same = false
	}
	if !same {
		in.Facts.Routes = p.materialRoutes()
		p.plan, p.planned = decide(in, p.wishes), true
	}
	return p.plan
}

// materialRoutes returns those routes that a plan can depend on, and others where copying is dearer
// than looking at them.
func (p *Planner) materialRoutes() []Route {
	all := p.in.Facts.Routes
	if len(p.material) > len(all)/2 {
		return all
	}
	out := make([]Route, len(p.material))
	for i, n := range p.material {
		out[i] = all[n]
	}
	return out
}

// sameButRoutes reports whether in says the same as the last input, routes aside.
func (p *Planner) sameButRoutes(in Input) bool {
	last := p.in
	if !slices.Equal(last.Cluster.Services, in.Cluster.Services) || !slices.Equal(last.Cluster.Pods, in.Cluster.Pods) {
		return false
	}
	for _, x := range []*Input{&last, &in} {
		x.Facts.Routes, x.Cluster.Services, x.Cluster.Pods = nil, nil, nil
	}
	return reflect.DeepEqual(last, in)
}

// sameWishes reports whether the present input is about the same addresses as the last, so that the
// same routes bear on it.
func (p *Planner) sameWishes(last Input) bool {
	in := &p.in
	return slices.Equal(last.Cluster.Services, in.Cluster.Services) && slices.Equal(last.Cluster.Pods, in.Cluster.Pods) &&
		slices.Equal(last.Settings.rules(ResolveAlso), in.Settings.rules(ResolveAlso)) &&
		slices.Equal(last.Settings.rules(ResolveVia), in.Settings.rules(ResolveVia)) && slices.Equal(last.Overlay, in.Overlay) &&
		last.Virtual.V4 == in.Virtual.V4 && last.Virtual.V6 == in.Virtual.V6
}

// selectAll finds the material routes anew.
func (p *Planner) selectAll() {
	p.wishes = wishesOf(p.in)
	p.sizes = exitSizes(p.in.Facts.Routes)
	p.material = p.material[:0]
	p.selectFrom(0, len(p.in.Facts.Routes))
}

// selectFrom appends the material ones of the routes from lo to hi.
func (p *Planner) selectFrom(lo, hi int) {
	for i := lo; i < hi; i++ {
		if p.isMaterial(&p.in.Facts.Routes[i]) {
			p.material = append(p.material, int32(i))
		}
	}
}

// isMaterial reports whether a plan can depend on a route: default routes and what an interface might
// cover the whole space with, throw routes, which change the shape of others, and all that overlaps
// what we want or what virtual addresses are taken from.
func (p *Planner) isMaterial(r *Route) bool {
	switch {
	case !r.Prefix.IsValid():
		return false
	case r.Prefix.Bits() == 0 || r.Type == Throw || p.wishes.interest.overlaps(r.Prefix) || p.wishes.virtual.overlaps(r.Prefix):
		return true
	}
	e, ok := exitOf(r)
	return ok && nearlyCovers(e, p.sizes[e])
}

// nearlyCovers reports whether an exit's routes are large enough to be looked at together. The bound
// is lower than couldCover's, so that it does not matter in which order the sizes were added up.
func nearlyCovers(e exit, size float64) bool { return couldCover(e.family, 2*size) }

// selectChanged brings the selection up to date with the present input and reports whether that
// makes a difference. Routes are listed in the same order each time, so that changes lie between a
// beginning and an end that both listings share.
func (p *Planner) selectChanged(last []Route) bool {
	now := p.in.Facts.Routes
	lo, tail := commonEnds(last, now)
	oldEnd, newEnd := len(last)-tail, len(now)-tail
	if lo == oldEnd && lo == newEnd {
		return false
	}
	if !p.resize(last[lo:oldEnd], now[lo:newEnd]) {
		p.selectAll()
		return true
	}
	from, _ := slices.BinarySearch(p.material, int32(lo))
	to, _ := slices.BinarySearch(p.material, int32(oldEnd))
	rest := slices.Clone(p.material[to:])
	p.material = p.material[:from]
	p.selectFrom(lo, newEnd)
	changed := to > from || len(p.material) > from
	for _, n := range rest {
		p.material = append(p.material, n+int32(newEnd-oldEnd))
	}
	return changed
}

// resize replaces routes in the sizes of their exits. It reports whether every exit is on the side of
// nearlyCovers that it was on.
func (p *Planner) resize(old, now []Route) bool {
	before := map[exit]float64{}
	add := func(routes []Route, sign float64) {
		for i := range routes {
			if e, ok := exitOf(&routes[i]); ok {
				if _, seen := before[e]; !seen {
					before[e] = p.sizes[e]
				}
				p.sizes[e] += sign * spaceOf(routes[i].Prefix)
			}
		}
	}
	add(old, -1)
	add(now, 1)
	for e, size := range before {
		if nearlyCovers(e, size) != nearlyCovers(e, p.sizes[e]) {
			return false
		}
	}
	return true
}

// commonEnds returns how many routes two lists share at their beginnings, and behind those at their
// ends.
func commonEnds(a, b []Route) (head, tail int) {
	shorter := min(len(a), len(b))
	if shorter > 0 && len(a) == len(b) && &a[0] == &b[0] {
		return shorter, 0
	}
	for head < shorter && a[head].equal(&b[head]) {
		head++
	}
	for tail < shorter-head && a[len(a)-1-tail].equal(&b[len(b)-1-tail]) {
		tail++
	}
	return head, tail
}

// equal reports whether two routes say the same.
func (r *Route) equal(q *Route) bool {
	return r.Prefix == q.Prefix && r.Table == q.Table && r.Metric == q.Metric && r.Protocol == q.Protocol && r.Scope == q.Scope &&
		r.TOS == q.TOS && r.Type == q.Type && r.Source == q.Source && r.PreferredSource == q.PreferredSource && slices.Equal(r.NextHops, q.NextHops)
}
