package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go4.org/netipx"
)

// twin decides one address the slow and obvious way, straight from design and manual pages.
type twin struct {
	in Input
	k  kernel
}

// longest returns the length of the longest of prefixes around a; -1 if there is none.
func longest(prefixes []netip.Prefix, a netip.Addr) int {
	bits := -1
	for _, p := range prefixes {
		if p.Contains(a) {
			bits = max(bits, p.Bits())
		}
	}
	return bits
}

func (w twin) tunnelled(a netip.Addr) bool {
	for _, p := range w.in.Overlay {
		if a == p.Addr().Next() {
			return true
		}
	}
	s := w.in.Settings
	also, never, allow := longest(s.rules(ResolveAlso), a), longest(s.rules(ResolveNever), a), longest(s.rules(ResolveAllow), a)
	wanted := also >= 0 || longest(w.in.Cluster.prefixes(), a) >= 0
	claimed, lan := w.claimed(a)
	switch {
	case !wanted, w.protected(a), never >= 0 && never >= also:
		return false
	case claimed && allow < 0:
		return false
	}
	return lan <= allow
}

// open reports whether a is wanted and nothing settles who gets it.
func (w twin) open(a netip.Addr) bool {
	s := w.in.Settings
	also, never := longest(s.rules(ResolveAlso), a), longest(s.rules(ResolveNever), a)
	wanted := also >= 0 || longest(w.in.Cluster.prefixes(), a) >= 0
	claimed, _ := w.claimed(a)
	return wanted && !w.protected(a) && (never < 0 || never < also) && claimed && longest(s.rules(ResolveAllow), a) < 0
}

// claimed reports whether some table that an ordinary packet to a may consult has a route for it, and
// the length of the longest that is a LAN's; -1 if there is none.
func (w twin) claimed(a netip.Addr) (claimed bool, lan int) {
	lan = -1
	for _, p := range ordinaryPackets(a) {
		w.k.visit(p, func(rule Rule) bool {
			if rule.Action != "" && rule.Action != ActionLookup {
				claimed = claimed || rule.Dst.IsValid() && !rule.Invert
				return false
			}
			for _, r := range w.k.routes {
				if r.Table != rule.Table || !r.Prefix.Contains(a) || r.Prefix.Bits() < rule.MinPrefixLen || w.harmless(r, rule) || w.thrown(r, a) {
					continue
				}
				claimed = true
				if r.Protocol == ProtocolKernel && w.link(r).Kind == "" && !r.NextHops[0].Addr.IsValid() {
					lan = max(lan, r.Prefix.Bits())
				}
			}
			return false
		})
	}
	return claimed, lan
}

func (w twin) link(r Route) Link {
	for _, l := range w.in.Facts.Links {
		if len(r.NextHops) > 0 && l.Index == r.NextHops[0].Link {
			return l
		}
	}
	return Link{Kind: "none"}
}

// harmless are the routes that are no conflict: throw, those of this host itself, and default routes,
// which the test hosts have as one or as two halves, unless a rule narrows them down.
func (w twin) harmless(r Route, rule Rule) bool {
	if r.Type == Throw || r.Type == Local {
		return true
	}
	if rule.Dst.IsValid() && !rule.Invert && rule.Dst.Bits() > r.Prefix.Bits() {
		return false
	}
	return isDefault(r)
}

func isDefault(r Route) bool { return r.Prefix.Bits() <= 1 }

func (w twin) thrown(r Route, a netip.Addr) bool {
	for _, t := range w.k.routes {
		if t.Type == Throw && t.Table == r.Table && t.Prefix.Contains(a) && t.Prefix.Bits() > r.Prefix.Bits() {
			return true
		}
	}
	return false
}

func (w twin) protected(a netip.Addr) bool {
	for _, p := range w.in.Protected {
		if p.Prefix.Contains(a) {
			return true
		}
	}
	for _, l := range w.in.Facts.Links {
		for _, p := range l.Addresses {
			if p.Addr() == a {
				return true
			}
		}
	}
	for _, r := range w.in.Facts.Routes {
		for _, h := range r.NextHops {
			if isDefault(r) && h.Addr == a {
				return true
			}
		}
		endpoint := r.Prefix.IsSingleIP() && r.Prefix.Addr() == a && r.Type == Unicast && len(r.NextHops) > 0 && r.NextHops[0].Addr.IsValid() && w.link(r).Kind == ""
		if endpoint {
			return true
		}
	}
	return false
}

// randomHost makes inputs in a small part of the address space, so that everything meets everything.
type randomHost struct {
	r      *rand.Rand
	family Family
}

func (h randomHost) chance(oneIn int) bool { return h.r.IntN(oneIn) == 0 }

// prefix returns one of few prefixes of 10.128.0.0/9 or fd00::/16: lengths and bits are chosen so that
// nesting, equality and neighbourhood are all likely.
func (h randomHost) prefix() netip.Prefix {
	if h.family == IPv4 {
		lengths := []int{9, 12, 14, 16, 16, 17, 24, 26, 31, 32}
		a := netip.AddrFrom4([4]byte{10, byte(128 + 2*h.r.IntN(3)), byte(64 * h.r.IntN(4)), byte(h.r.IntN(4))})
		p, _ := a.Prefix(lengths[h.r.IntN(len(lengths))])
		return p
	}
	lengths := []int{16, 32, 48, 64, 112, 127, 128}
	var b [16]byte
	b[0], b[1], b[3], b[5], b[15] = 0xfd, 0x10, byte(h.r.IntN(2)), byte(h.r.IntN(2)), byte(h.r.IntN(4))
	p, _ := netip.AddrFrom16(b).Prefix(lengths[h.r.IntN(len(lengths))])
	return p
}

func (h randomHost) addr() netip.Addr { return h.prefix().Addr() }

func (h randomHost) prefixes(most int) []netip.Prefix {
	var out []netip.Prefix
	for range h.r.IntN(most + 1) {
		out = append(out, h.prefix())
	}
	return out
}

var randomTables = []uint32{TableMain, TableMain, 51, 52, 77}

func (h randomHost) route() Route {
	r := Route{Prefix: h.prefix(), Table: randomTables[h.r.IntN(len(randomTables))], Type: Unicast, Protocol: 3, Metric: uint32(h.r.IntN(3))}
	r.NextHops = []NextHop{{Link: 1 + h.r.IntN(3)}}
	switch h.r.IntN(12) {
	case 0:
		r.Type, r.NextHops = Blackhole, nil
	case 1, 2:
		r.Type, r.NextHops = Throw, nil
	case 3:
		r.Protocol = ProtocolKernel
	case 4:
		r.NextHops[0].Addr = h.addr()
	}
	return r
}

func (h randomHost) defaults() []Route {
	all := all4
	halves := []string{"0.0.0.0/1", "128.0.0.0/1"}
	if h.family == IPv6 {
		all, halves = all6, []string{"::/1", "8000::/1"}
	}
	hop := NextHop{Addr: h.addr(), Link: 1 + h.r.IntN(3)}
	table := randomTables[h.r.IntN(len(randomTables))]
	out := []Route{{Prefix: all, Table: table, Type: Unicast, NextHops: []NextHop{hop}}}
	if h.chance(2) {
		return out
	}
	for _, p := range halves {
		out = append(out, Route{Prefix: netip.MustParsePrefix(p), Table: table, Type: Unicast, NextHops: []NextHop{hop}})
	}
	return out
}

func (h randomHost) rule() Rule {
	r := Rule{Family: h.family, Priority: uint32(2 + h.r.IntN(40)), Table: randomTables[h.r.IntN(len(randomTables))]}
	if h.chance(2) {
		r.Priority = uint32(32740 + h.r.IntN(26))
	}
	if h.chance(5) {
		r.Mark = Mark{0xca6c, ^uint32(0)}
		r.Invert = h.chance(2)
	}
	if h.chance(4) {
		r.Dst = h.prefix()
	}
	if h.chance(6) {
		r.UIDs = &UIDRange{1000, 1000}
	}
	if h.chance(6) {
		r.MinPrefixLen = 1 + h.r.IntN(20)
	}
	switch h.r.IntN(16) {
	case 0:
		r.IIF = "lo"
	case 1:
		r.OIF = "eth0"
	case 2:
		r.Src = h.prefix()
	case 3:
		r.Partial = true
	case 4:
		r = Rule{Family: h.family, Priority: r.Priority, Action: ActionGoto, Goto: r.Priority + 1 + uint32(h.r.IntN(20))}
	case 5:
		r = Rule{Family: h.family, Priority: r.Priority, Action: ActionProhibit, Dst: h.prefix()}
	}
	return r
}

func (h randomHost) facts() Facts {
	f := Facts{Rules: DefaultRules(), Links: []Link{
		{Index: 1, Name: "eth0"},
		{Index: 2, Name: "tun0", Kind: "tun", PointToPoint: true},
		{Index: 3, Name: "wg0", Kind: "wireguard"},
	}}
	for i := range f.Links {
		if h.chance(3) {
			f.Links[i].Addresses = []netip.Prefix{netip.PrefixFrom(h.addr(), 24)}
		}
	}
	for range h.r.IntN(12) {
		f.Routes = append(f.Routes, h.route())
	}
	if !h.chance(4) {
		f.Routes = append(f.Routes, h.defaults()...)
	}
	for range h.r.IntN(5) {
		f.Rules = append(f.Rules, h.rule())
	}
	return f
}

func (h randomHost) input() Input {
	in := Input{Facts: h.facts(), Own: Own{Interface: "culvert0", Table: 7830}}
	for _, p := range h.prefixes(2) {
		in.Cluster.Services = append(in.Cluster.Services, Subnet{Prefix: p})
	}
	for _, p := range h.prefixes(3) {
		in.Cluster.Pods = append(in.Cluster.Pods, Subnet{Prefix: p})
	}
	for resolve, most := range map[Resolve]int{ResolveAllow: 3, ResolveAlso: 2, ResolveNever: 2} {
		for _, p := range h.prefixes(most) {
			in.Settings.Routing = append(in.Settings.Routing, RoutingRule{p, resolve, Origin{SourceFlag, Position{Name: "--" + string(resolve)}}})
		}
	}
	for range h.r.IntN(3) {
		in.Protected = append(in.Protected, ProtectAddr(h.addr(), "API server"))
	}
	if h.chance(2) {
		in.Overlay = []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31")}
	}
	return in
}

// samples are the addresses at which anything could change: the ends of all prefixes, and their
// neighbours.
func samples(in Input) []netip.Addr {
	prefixes := slices.Concat(in.Cluster.prefixes(), in.Overlay)
	for _, r := range in.Settings.Routing {
		prefixes = append(prefixes, r.Prefix)
	}
	for _, r := range in.Facts.Routes {
		prefixes = append(prefixes, r.Prefix)
		for _, h := range r.NextHops {
			if h.Addr.IsValid() {
				prefixes = append(prefixes, hostPrefix(h.Addr))
			}
		}
	}
	for _, r := range in.Facts.Rules {
		if r.Dst.IsValid() {
			prefixes = append(prefixes, r.Dst)
		}
	}
	for _, l := range in.Facts.Links {
		for _, p := range l.Addresses {
			prefixes = append(prefixes, hostPrefix(p.Addr()))
		}
	}
	for _, p := range in.Protected {
		prefixes = append(prefixes, p.Prefix)
	}
	seen := map[netip.Addr]bool{}
	var out []netip.Addr
	for _, p := range prefixes {
		last := netipx.PrefixLastIP(p)
		for _, a := range []netip.Addr{p.Addr().Prev(), p.Addr(), p.Addr().Next(), last.Prev(), last, last.Next()} {
			if a.IsValid() && !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	return out
}

// TestPlanProperties compares plans with the twin and with the kernel's own rules, on random hosts.
//
// CULVERT_TEST_SEED, a number, repeats a run.
func TestPlanProperties(t *testing.T) {
	seed, rounds := rand.Uint64(), 1000
	if text := os.Getenv("CULVERT_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if testing.Short() {
		rounds = 200
	}
	t.Logf("seed %d", seed)
	for round := range rounds {
		h := randomHost{rand.New(rand.NewPCG(seed, uint64(round))), IPv4}
		if round%3 == 0 {
			h.family = IPv6
		}
		in := h.input()
		c := checker{t: t, in: in, plan: NewPlan(in), twin: twin{in, newKernel(in.Facts)}, place: fmt.Sprintf("seed %d round %d", seed, round)}
		c.addresses()
		c.repeatable(h)
		c.hints()
		c.late(h.family)
		if t.Failed() {
			c.print()
			return
		}
	}
}

type checker struct {
	t     *testing.T
	in    Input
	plan  Plan
	twin  twin
	place string
}

func (c checker) print() {
	c.t.Logf("%s", c.place)
	for _, r := range c.in.Facts.Rules {
		c.t.Logf("rule %+v", r)
	}
	for _, r := range c.in.Facts.Routes {
		c.t.Logf("route %+v", r)
	}
	for _, l := range c.in.Facts.Links {
		c.t.Logf("link %+v", l)
	}
	c.t.Logf("services %v pods %v rules %v protected %v", c.in.Cluster.Services, c.in.Cluster.Pods, c.in.Settings.Routing, c.in.Protected)
	c.t.Logf("plan %+v", c.plan)
}

// addresses checks every interesting address: who has it by the twin, by AllowedIPs, by the routes,
// and by a kernel that has carried the plan out.
func (c checker) addresses() {
	allowed, open := rangesOf(c.plan.AllowedIPs...), c.openSet()
	after := newKernel(applied(c.in.Facts, c.plan, c.in.Own))
	for _, a := range samples(c.in) {
		if c.t.Failed() {
			return // one address is enough to understand
		}
		host := hostPrefix(a)
		want := c.twin.tunnelled(a)
		if got := allowed.overlaps(host); got != want {
			c.t.Errorf("%s: %v in AllowedIPs is %v, the twin says %v", c.place, a, got, want)
		}
		if got := c.routed(a); got != want {
			c.t.Errorf("%s: %v routed into the tunnel is %v, the twin says %v", c.place, a, got, want)
		}
		if c.twin.open(a) && !open.overlaps(host) {
			c.t.Errorf("%s: no conflict reports %v", c.place, a)
		}
		if open.overlaps(host) && !c.twin.open(a) && !c.twin.protected(a) {
			c.t.Errorf("%s: %v is reported as open but is settled", c.place, a)
		}
		for _, p := range ordinaryPackets(a) {
			before, now := c.twin.k.lookup(p), after.lookup(p)
			if into := now.Table == c.in.Own.Table; into != want {
				c.t.Errorf("%s: the kernel sends %+v by %+v, want tunnel %v", c.place, p, now, want)
			} else if !want && fmt.Sprint(before) != fmt.Sprint(now) {
				c.t.Errorf("%s: %+v goes by %+v, before by %+v", c.place, p, now, before)
			}
		}
	}
}

// routed looks a up in the planned routes.
func (c checker) routed(a netip.Addr) bool {
	bits, kind := -1, RouteThrow
	for _, r := range c.plan.Routes {
		if r.Prefix.Contains(a) && r.Prefix.Bits() > bits {
			bits, kind = r.Prefix.Bits(), r.Kind
		}
	}
	return kind == RouteTunnel
}

func (c checker) openSet() rangeSet {
	var all []netip.Prefix
	for _, x := range c.plan.Conflicts {
		all = append(all, x.Open...)
	}
	return rangesOf(all...)
}

// repeatable checks that order does not matter and that a plan carried out gives the same plan.
func (c checker) repeatable(h randomHost) {
	in := c.in
	in.Facts.Routes, in.Facts.Rules, in.Facts.Links = slices.Clone(in.Facts.Routes), slices.Clone(in.Facts.Rules), slices.Clone(in.Facts.Links)
	in.Settings.Routing, in.Protected = slices.Clone(in.Settings.Routing), slices.Clone(in.Protected)
	in.Cluster.Pods = slices.Clone(in.Cluster.Pods)
	shuffle(h.r, in.Facts.Routes)
	shuffle(h.r, in.Facts.Links)
	shuffle(h.r, in.Settings.Routing)
	shuffle(h.r, in.Protected)
	shuffle(h.r, in.Cluster.Pods)
	if p := NewPlan(in); !p.Equal(c.plan) {
		c.t.Errorf("%s: the plan depends on the order of its input\n%s", c.place, difference(c.plan, p))
	}
	in = c.in
	in.Facts = applied(in.Facts, c.plan, in.Own)
	if p := NewPlan(in); !p.Equal(c.plan) {
		c.t.Errorf("%s: carried out, the plan becomes another\n%s", c.place, difference(c.plan, p))
	}
}

// difference shows the lines in which two plans differ.
func difference(a, b Plan) string {
	var lines [2][]string
	for i, p := range []Plan{a, b} {
		text, err := json.MarshalIndent(p, "", " ")
		if err != nil {
			return err.Error()
		}
		lines[i] = strings.Split(string(text), "\n")
	}
	var out []string
	for i := range min(len(lines[0]), len(lines[1])) {
		if lines[0][i] != lines[1][i] {
			out = append(out, "- "+lines[0][i], "+ "+lines[1][i])
		}
	}
	return strings.Join(out, "\n")
}

func shuffle[T any](r *rand.Rand, list []T) {
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// hints checks that what the report proposes settles everything.
func (c checker) hints() {
	open := c.plan.Unsettled()
	for resolve, prefixes := range map[Resolve][]netip.Prefix{ResolveAllow: toTake(open), ResolveNever: toLeave(open)} {
		in := c.in
		in.Settings.Routing = slices.Clone(in.Settings.Routing)
		for _, p := range prefixes {
			in.Settings.Routing = append(in.Settings.Routing, RoutingRule{p, resolve, Origin{Source: SourceFlag}})
		}
		if left := NewPlan(in).Unsettled(); len(left) > 0 {
			c.t.Errorf("%s: after %s of %v there is still %+v", c.place, resolve, prefixes, left)
		}
	}
}

// late checks that our rule is not earlier than it has to be: at the next later free priority, an
// address of ours would go astray. Throw routes and gotos are left out, where being early is the
// cheap way to be right.
func (c checker) late(f Family) {
	rule := c.plan.Rules.V4
	if f == IPv6 {
		rule = c.plan.Rules.V6
	}
	cautious := func(r Rule) bool { return r.Action == ActionGoto }
	thrown := func(r Route) bool { return r.Type == Throw }
	if rule.Priority == 0 || slices.ContainsFunc(c.in.Facts.Rules, cautious) || slices.ContainsFunc(c.in.Facts.Routes, thrown) {
		return
	}
	later := uint32(rule.Priority) + 1
	for slices.ContainsFunc(c.in.Facts.Rules, func(r Rule) bool { return r.Family == f && r.Priority == later }) {
		later++
	}
	wholeMain := func(r Rule) bool { // catches every ordinary packet; the test hosts invert marks only
		always := r.Invert || r.Mark.Mask == 0 && r.OIF == "" && !r.Src.IsValid() && !r.Dst.IsValid() && r.UIDs == nil && !r.Partial
		return r.Family == f && r.Table == TableMain && r.MinPrefixLen == 0 && always
	}
	if main := slices.IndexFunc(c.twin.k.rules, wholeMain); later > c.twin.k.rules[main].Priority {
		return
	}
	plan := c.plan
	plan.Rules.V4.Priority, plan.Rules.V6.Priority = int(later), int(later)
	k := newKernel(applied(c.in.Facts, plan, c.in.Own))
	for _, a := range samples(c.in) {
		for _, p := range ordinaryPackets(a) {
			if c.routed(a) && k.lookup(p).Table != c.in.Own.Table {
				return
			}
		}
	}
	c.t.Errorf("%s: priority %d would do, not only %d (%s)", c.place, later, rule.Priority, rule.Reason)
}
