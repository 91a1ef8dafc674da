package policy

import (
	"cmp"
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

// samples are the addresses at which anything could change: the ends of all prefixes, and their
// neighbours.
func samples(in Input, plan Plan) []netip.Addr {
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
	for _, t := range plan.Twins {
		prefixes = append(prefixes, t.Real)
		if t.Virtual.IsValid() {
			prefixes = append(prefixes, t.Virtual)
		}
	}
	prefixes = append(prefixes, plan.Pools...)
	for _, p := range in.Facts.IPsec {
		prefixes = append(prefixes, p.Dst)
		if p.Peer.IsValid() {
			prefixes = append(prefixes, hostPrefix(p.Peer))
		}
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

// testSeed returns the seed of a random test, and logs it. CULVERT_TEST_SEED, a number, repeats a run.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("CULVERT_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d", seed)
	return seed
}

// TestPlanProperties compares plans with the twin and with the kernel's own rules, on random hosts.
func TestPlanProperties(t *testing.T) {
	seed, rounds := testSeed(t), 1000
	if testing.Short() {
		rounds = 200
	}
	for round := range rounds {
		h := randomHost{rand.New(rand.NewPCG(seed, uint64(round))), IPv4}
		if round%3 == 0 {
			h.family = IPv6
		}
		in := h.input()
		plan := NewPlan(in)
		c := checker{t: t, in: in, plan: plan, twin: twin{in, newKernel(in.Facts), plan}, place: fmt.Sprintf("seed %d round %d", seed, round)}
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
	for _, p := range c.in.Facts.IPsec {
		c.t.Logf("policy %+v", p)
	}
	for _, l := range c.in.Facts.Links {
		c.t.Logf("link %+v", l)
	}
	c.t.Logf("services %v pods %v rules %v on conflict %s protected %v virtual %v", c.in.Cluster.Services, c.in.Cluster.Pods, c.in.Settings.Routing, c.in.Settings.OnConflict, c.in.Protected, c.in.Virtual)
	c.t.Logf("plan %+v", c.plan)
}

// addresses checks every interesting address: who has it by the twin, by AllowedIPs, by the routes,
// and by a kernel that has carried the plan out.
func (c checker) addresses() {
	open, left := c.openSet(), rangesOf(c.plan.Yielded...)
	hidden := rangesOf(c.plan.Virtualized...)
	after := newKernel(applied(c.in.Facts, c.plan, c.in.Own))
	for i, a := range samples(c.in, c.plan) {
		if c.t.Failed() {
			return // one address is enough to understand
		}
		host := hostPrefix(a)
		fate := c.twin.fate(a)
		c.peers(a, fate == fateTunnel)
		want := fate == fateTunnel || fate == fateVIP
		if got := c.routed(a); got != want {
			c.t.Errorf("%s: %v routed into the tunnel is %v, the twin says %v", c.place, a, got, fate)
		}
		if i%8 == 0 { // an explanation costs a plan
			c.explained(a, fate)
		}
		if fate == fateOpen && !open.overlaps(host) {
			c.t.Errorf("%s: no conflict reports %v", c.place, a)
		}
		if open.overlaps(host) && fate != fateOpen && !c.twin.protected(a) {
			c.t.Errorf("%s: %v is reported as open but is settled: %v", c.place, a, fate)
		}
		if got := left.overlaps(host); got != (fate == fateOpen || fate == fateYielded || fate == fateLAN) {
			c.t.Errorf("%s: %v is left to others is %v, the twin says %v", c.place, a, got, fate)
		}
		if got := hidden.overlaps(host); got != (fate == fateVirtual) {
			c.t.Errorf("%s: %v is virtualized is %v, the twin says %v", c.place, a, got, fate)
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

// peers checks whose AllowedIPs have an address: no more than one's, and of a twin the one's that is to reach
// what it stands for. native says that the address is reached by its own.
func (c checker) peers(a netip.Addr, native bool) {
	workload, wire := c.twin.wireOf(a)
	if got, want := longest(c.plan.AllowedIPs, a) >= 0, workload == "" && (wire || native); got != want {
		c.t.Errorf("%s: %v in the gateway's AllowedIPs is %v, by its own address %v", c.place, a, got, native)
	}
	found := false
	for _, v := range c.plan.Vias {
		got := longest(v.AllowedIPs, a) >= 0
		if found = found || got; got != (v.Workload == workload) || v.Workload == "" {
			c.t.Errorf("%s: %v in AllowedIPs of %q is %v, the twin says %q", c.place, a, v.Workload, got, workload)
		}
	}
	if workload != "" && !found {
		c.t.Errorf("%s: %v is in no AllowedIPs, the twin says %q", c.place, a, workload)
	}
}

// explained checks the explanation of one address: the twin's outcome, one reason, what stands for what,
// and the route that a kernel follows without us.
func (c checker) explained(a netip.Addr, want fate) {
	e := Explain(c.in, a)
	outcomes := map[fate]Outcome{
		fateTunnel: OutcomeTunnel, fateVIP: OutcomeTunnel, fateVirtual: OutcomeVirtual, fateOpen: OutcomeOpen,
		fateYielded: OutcomeYielded, fateLAN: OutcomeLAN, fateProtected: OutcomeProtected,
	}
	if outcome, ok := outcomes[want]; ok && e.Outcome != outcome || !ok && e.Outcome != OutcomeOutside && e.Outcome != OutcomeNever && e.Outcome != OutcomeProtected {
		c.t.Errorf("%s: %v is explained as %s (%s); the twin says %v", c.place, a, e.Outcome, e.Reason, want)
	}
	if e.Reason == "" {
		c.t.Errorf("%s: no reason for %v, which is %s", c.place, a, e.Outcome)
	}
	if tunnelled := want == fateTunnel || want == fateVIP; tunnelled != (e.Route.Kind == RouteTunnel) {
		c.t.Errorf("%s: %v is explained by route %+v, tunnelled %v", c.place, a, e.Route, tunnelled)
	}
	if e.Twin.IsValid() {
		if back := Explain(c.in, e.Twin); back.Real != a || back.Pooled != e.Pooled {
			c.t.Errorf("%s: the twin %v of %v stands for %v", c.place, e.Twin, a, back.Real)
		}
	}
	if of := cmp.Or(e.Real, a); (e.Twin.IsValid() || e.Real.IsValid()) && e.Via != c.twin.workload(of) {
		c.t.Errorf("%s: %v is reached by %q, the twin says %q", c.place, a, e.Via, c.twin.workload(of))
	}
	if e.Twin.IsValid() && e.Real.IsValid() {
		c.t.Errorf("%s: %v has a twin and is one: %+v", c.place, a, e)
	}
	if want == fateVirtual && !e.Twin.IsValid() || c.twin.onWire(a) != e.Real.IsValid() {
		c.t.Errorf("%s: %v, which is %v, has the twin %v and stands for %v", c.place, a, want, e.Twin, e.Real)
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
	report := c.plan.ConflictReport()
	yield, allow, virtualize := c.in, c.in, c.in
	yield.Settings.OnConflict, virtualize.Settings.OnConflict = ResolveYield, ResolveVirtualize
	allow.Settings.Routing = slices.Clone(c.in.Settings.Routing)
	for _, p := range toTake(c.plan.Unsettled()) {
		allow.Settings.Routing = append(allow.Settings.Routing, RoutingRule{Prefix: p, Resolve: ResolveAllow, Origin: Origin{Source: SourceFlag}})
	}
	inputs := map[string]Input{"--on-conflict yield": yield, "--allow-conflicting": allow, "--on-conflict virtualize": virtualize}
	if report != "" && !strings.Contains(report, "--on-conflict yield") {
		c.t.Errorf("%s: no way out in\n%s", c.place, report)
	}
	for name, in := range inputs {
		if left := NewPlan(in).Unsettled(); len(left) > 0 && strings.Contains(report, name) {
			c.t.Errorf("%s: after the hint %s there is still %+v", c.place, name, left)
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
	for _, a := range samples(c.in, c.plan) {
		for _, p := range ordinaryPackets(a) {
			if c.routed(a) && k.lookup(p).Table != c.in.Own.Table {
				return
			}
		}
	}
	c.t.Errorf("%s: priority %d would do, not only %d (%s)", c.place, later, rule.Priority, rule.Reason)
}
