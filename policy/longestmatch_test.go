package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// oneTable leaves of a random input what a host without policy routing can have.
func oneTable(in Input) Input {
	in.NoPolicyRouting = true
	in.Facts.Rules = DefaultRules()
	in.Facts.Routes = slices.DeleteFunc(in.Facts.Routes, func(r Route) bool { return r.Type == Throw || r.TOS != 0 })
	for i := range in.Facts.Routes {
		in.Facts.Routes[i].Table = TableMain
	}
	in.Facts.Links = slices.DeleteFunc(in.Facts.Links, func(l Link) bool { return l.Index > 3 }) // no VRF
	return in
}

// TestLongestMatch plans for random hosts without policy routing. Of the host's routes and ours the
// longest prefix wins, and only if it is strictly longer is it ours.
func TestLongestMatch(t *testing.T) {
	seed, rounds := testSeed(t), 600
	if testing.Short() {
		rounds = 100
	}
	for round := range rounds {
		h := randomHost{rand.New(rand.NewPCG(seed, uint64(round))), IPv4}
		if round%3 == 0 {
			h.family = IPv6
		}
		in := oneTable(h.input())
		plan := NewPlan(in)
		c := checker{t: t, in: in, plan: plan, twin: twin{in, newKernel(in.Facts), plan}, place: fmt.Sprintf("seed %d round %d", seed, round)}
		c.longestMatch()
		if t.Failed() {
			c.print()
			return
		}
	}
}

func (c checker) longestMatch() {
	var host, ours []netip.Prefix
	for _, r := range c.in.Facts.Routes {
		host = append(host, r.Prefix)
	}
	for _, r := range c.plan.Routes {
		if r.Kind != RouteTunnel || r.Reason == "" || slices.Contains(host, r.Prefix) || slices.Contains(ours, r.Prefix) {
			c.t.Errorf("%s: route %+v is no tunnel route, has no reason, or is there twice", c.place, r)
		}
		ours = append(ours, r.Prefix)
	}
	for i, a := range samples(c.in, c.plan) {
		theirs := longest(host, a)
		fate := c.twin.fate(a)
		native := fate == fateTunnel && theirs < a.BitLen()
		want := native || fate == fateVIP && theirs < a.BitLen()
		if got := longest(ours, a) > theirs; got != want {
			c.t.Errorf("%s: %v goes through the tunnel is %v, want %v", c.place, a, got, want)
		}
		c.peers(a, native)
		if e := Explain(c.in, a); i%8 == 0 && (e.Outcome == OutcomeTunnel) != want {
			c.t.Errorf("%s: %v is explained as %s (%s), want tunnel %v", c.place, a, e.Outcome, e.Reason, want)
		}
	}
	if c.plan.Rules.V4.Priority != 0 || c.plan.Rules.V6.Priority != 0 {
		c.t.Errorf("%s: rules %+v", c.place, c.plan.Rules)
	}
	in := c.in
	in.Facts = carried(in.Facts, c.plan, in.Own)
	if p := NewPlan(in); !p.Equal(c.plan) {
		c.t.Errorf("%s: carried out, the plan becomes another\n%s", c.place, difference(c.plan, p))
	}
}

// carried returns the facts of a host with one table on which a plan has been carried out.
func carried(f Facts, p Plan, own Own) Facts {
	index := 1000
	f.Links = append(slices.Clone(f.Links), Link{Index: index, Name: own.Interface, PointToPoint: true})
	f.Routes = slices.Clone(f.Routes)
	for _, r := range p.Routes {
		f.Routes = append(f.Routes, Route{Prefix: r.Prefix, Table: TableMain, Type: Unicast, NextHops: []NextHop{{Link: index}}})
	}
	return f
}
