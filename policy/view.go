package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// view is the facts made ready for questions.
type view struct {
	routes []Route // as in the facts
	extra  []Route // one for each rule that decides by itself, and each IPsec policy that takes something
	whole  []bool  // per route of the facts, see wholeSpace
	links  map[int]*knownLink
	own    Own
	ownIdx int               // index of our interface; -1 if there is none
	rules  map[Family][]live // that steer ordinary packets, in order
	all    map[Family][]Rule // not ours, in order
	// throws holds the throw routes of each table, sorted.
	throws map[uint32][]netip.Prefix
	// byTable holds the routes of each table, ours left out.
	byTable map[uint32][]int32
	// vrfOnly are the tables of VRFs that no rule names, so that only packets of a VRF consult them: what
	// is in there, addresses of this host included, is not where ordinary packets find it.
	vrfOnly map[uint32]bool
	// single are the routes for single addresses of a host without policy routing; nil with it.
	single map[netip.Prefix]string
}

func newView(f Facts, own Own) *view {
	v := &view{
		routes: f.Routes, own: own, ownIdx: -1,
		links: make(map[int]*knownLink, len(f.Links)), rules: map[Family][]live{}, all: map[Family][]Rule{},
		throws: map[uint32][]netip.Prefix{}, byTable: map[uint32][]int32{}, vrfOnly: map[uint32]bool{},
	}
	for _, l := range f.Links {
		v.links[l.Index] = &knownLink{l, isTunnel(l), ownerOf(l), []string{l.Name}}
		if l.Name == own.Interface && l.Name != "" {
			v.ownIdx = l.Index
		}
		if l.VRFTable != 0 {
			v.vrfOnly[l.VRFTable] = true
		}
	}
	rules := f.Rules
	if len(rules) == 0 {
		rules = DefaultRules()
	}
	for _, family := range []Family{IPv4, IPv6} {
		for _, r := range rules {
			if r.Family == family && (own.Table == 0 || r.Table != own.Table) {
				v.all[family] = append(v.all[family], r)
			}
			if !r.L3MDev {
				delete(v.vrfOnly, r.Table)
			}
		}
		slices.SortStableFunc(v.all[family], func(a, b Rule) int { return cmp.Compare(a.Priority, b.Priority) })
		v.rules[family] = liveRules(v.all[family])
	}
	v.whole = wholeSpace(f.Routes)
	v.index()
	return v
}

// knownLink is an interface with what thousands of routes over it need to know.
type knownLink struct {
	Link
	tunnel bool
	owner  ownerPattern
	names  []string // its name, to be shared, not changed
}

// link returns an interface by its index, under a name made up if the facts do not have it.
func (v *view) link(index int) *knownLink {
	if l, ok := v.links[index]; ok {
		return l
	}
	name := fmt.Sprintf("interface %d", index)
	return &knownLink{Link: Link{Name: name}, names: []string{name}}
}

// index sorts the routes by table.
func (v *view) index() {
	for i := range v.routes {
		r := &v.routes[i]
		switch {
		case !r.Prefix.IsValid() || v.isOwn(r) || r.TOS != 0: // ordinary packets have no TOS
		case r.Type == Throw:
			v.throws[r.Table] = append(v.throws[r.Table], r.Prefix)
		case r.Type == Broadcast || r.Type == Anycast || r.Type == Multicast:
		default:
			v.byTable[r.Table] = append(v.byTable[r.Table], int32(i))
		}
	}
	for _, t := range v.throws {
		slices.SortFunc(t, comparePrefix)
	}
}

// addExtra makes a route of what is none, and returns what claims call it by.
func (v *view) addExtra(r Route) int32 {
	v.extra = append(v.extra, r)
	return int32(len(v.routes) + len(v.extra) - 1)
}

// route returns the route a claim speaks of.
func (v *view) route(n int32) *Route {
	if int(n) < len(v.routes) {
		return &v.routes[n]
	}
	return &v.extra[int(n)-len(v.routes)]
}

func (v *view) isOwn(r *Route) bool {
	if v.own.Table != 0 && r.Table == v.own.Table {
		return true
	}
	return v.ownIdx >= 0 && len(r.NextHops) == 1 && r.NextHops[0].Link == v.ownIdx
}
