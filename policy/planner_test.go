package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// changed returns an input that differs from in in one small thing, with new lists where they differ.
func (h randomHost) changed(in Input) Input {
	f := &in.Facts
	f.Routes = slices.Clone(f.Routes)
	at := h.r.IntN(len(f.Routes) + 1)
	switch h.r.IntN(16) {
	case 0, 1, 2, 3:
		f.Routes = slices.Insert(f.Routes, at, h.route())
	case 4, 5, 6, 7:
		if at < len(f.Routes) {
			f.Routes = slices.Delete(f.Routes, at, at+1)
		}
	case 8, 9:
		if at < len(f.Routes) {
			f.Routes[at] = h.route()
		}
	case 10:
		f.Routes = append(f.Routes, h.defaults()...)
	case 11:
		shuffle(h.r, f.Routes)
	case 12:
		f.Rules = append(slices.Clone(f.Rules), h.rule())
	case 13:
		f.IPsec = append(slices.Clone(f.IPsec), h.ipsec())
	default:
		h.changeWishes(&in)
	}
	return in
}

// changeWishes changes what is not the host's.
func (h randomHost) changeWishes(in *Input) {
	switch h.r.IntN(10) {
	case 9:
		in.Settings.Routing = slices.Clone(in.Settings.Routing)
		for i := range in.Settings.Routing {
			if r := &in.Settings.Routing[i]; r.Resolve == ResolveVia {
				r.Via = h.via().Via
			}
		}
	case 6:
		in.Settings.OnConflict = ResolveVirtualize
	case 7:
		in.Settings.Routing = append(slices.Clone(in.Settings.Routing), h.via())
	case 8:
		in.Settings.Routing = append(slices.Clone(in.Settings.Routing), RoutingRule{Prefix: h.prefix(), Resolve: ResolveVirtualize})
	case 0:
		in.Cluster.Pods = append(slices.Clone(in.Cluster.Pods), Subnet{Prefix: h.prefix()})
	case 1:
		in.Settings.Routing = append(slices.Clone(in.Settings.Routing), RoutingRule{Prefix: h.prefix(), Resolve: ResolveAlso})
	case 2:
		in.Settings.Routing = append(slices.Clone(in.Settings.Routing), RoutingRule{Prefix: h.prefix(), Resolve: ResolveAllow})
	case 3:
		in.Settings.OnConflict = ResolveYield
	case 4:
		in.Protected = append(slices.Clone(in.Protected), ProtectAddr(h.addr(), "resolver"))
	case 5:
		in.Facts.Links = slices.Clone(in.Facts.Links)
		in.Facts.Links[h.r.IntN(3)].Addresses = []netip.Prefix{netip.PrefixFrom(h.addr(), 24)}
	}
}

// TestPlannerWalks changes random hosts bit by bit. A planner that has seen all of it must say what one
// says that looks at every route of the host as it is.
func TestPlannerWalks(t *testing.T) {
	seed, walks := testSeed(t), 60
	if testing.Short() {
		walks = 15
	}
	for walk := range walks {
		h := randomHost{rand.New(rand.NewPCG(seed, uint64(walk))), IPv4}
		if walk%3 == 0 {
			h.family = IPv6
		}
		var p Planner
		in := h.input()
		in.NoPolicyRouting = walk%4 == 0
		for step := range 40 {
			want := decide(in, wishesOf(in))
			for range 2 { // the second time nothing has changed
				if got := p.Plan(in); !got.Equal(want) {
					t.Fatalf("%s\n%s", fmt.Sprintf("seed %d walk %d step %d", seed, walk, step), difference(want, got))
				}
			}
			in = h.changed(in)
		}
	}
}

// TestPlannerLeavesWholeSpace: routes that no prefix of the cluster meets matter all the same where
// they complete what an interface covers, or stop doing so.
func TestPlannerLeavesWholeSpace(t *testing.T) {
	lower := host(t, office+"link tun0 tun p2p\n0.0.0.0/1 dev tun0")
	both := lower
	both.Routes = append(slices.Clone(lower.Routes), host(t, "link a -\nlink b -\nlink tun0 tun p2p\n128.0.0.0/1 dev tun0").Routes...)
	var p Planner
	for i, facts := range []Facts{lower, both, lower, both} {
		in := Input{Cluster: lab, Facts: facts}
		if got, want := p.Plan(in), decide(in, wishesOf(in)); !got.Equal(want) || (len(got.AllowedIPs) > 0) != (i%2 == 1) {
			t.Errorf("step %d: AllowedIPs %v\n%s", i, got.AllowedIPs, difference(want, got))
		}
	}
}
