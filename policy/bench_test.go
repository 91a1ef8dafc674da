package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// manyRoutes is a host with n different routes of a VPN in 10.0.0.0/8, like one that imports its
// company's whole table, and the usual rest.
func manyRoutes(b *testing.B, n int) Facts {
	f := host(b, office+"link tun0 tun p2p")
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[netip.Prefix]bool{}
	for len(seen) < n {
		v := r.Uint32()
		a := netip.AddrFrom4([4]byte{10, byte(v >> 16), byte(v >> 8), byte(v)})
		p, err := a.Prefix(16 + r.IntN(17))
		if err != nil {
			b.Fatal(err)
		}
		if seen[p] {
			continue // a kernel holds a route once
		}
		seen[p] = true
		f.Routes = append(f.Routes, Route{Prefix: p, Table: TableMain, Type: Unicast, Protocol: 3, NextHops: []NextHop{{Link: 3}}})
	}
	return f
}

// manyPrefixes is a cluster with n prefixes of /24 that do not touch, so that none can be joined.
func manyPrefixes(first byte, n int) Cluster {
	var c Cluster
	for i := range n {
		a := netip.AddrFrom4([4]byte{first, byte(i >> 7), byte(i<<1) & 0xfe, 0})
		c.Pods = append(c.Pods, Subnet{Prefix: netip.PrefixFrom(a, 24)})
	}
	return c
}

func BenchmarkPlan(b *testing.B) {
	facts := manyRoutes(b, 100_000)
	allow := settings(b, "--allow-conflicting-subnets=10.0.0.0/8")
	virtualize := settings(b, "--on-conflict=virtualize")
	fresh := Virtual{V4: DefaultVirtualSubnet}
	kept := fresh.Keep(NewPlan(Input{Cluster: manyPrefixes(10, 1000), Virtual: fresh}).Twins)
	for _, bench := range []struct {
		name string
		in   Input
	}{
		{"elsewhere", Input{Facts: facts, Cluster: manyPrefixes(172, 1000)}},
		{"open", Input{Facts: facts, Cluster: manyPrefixes(10, 1000)}},
		{"allowed", Input{Facts: facts, Cluster: manyPrefixes(10, 1000), Settings: allow}},
		{"virtualized", Input{Facts: facts, Cluster: manyPrefixes(10, 1000), Settings: virtualize, Virtual: fresh}},
		{"virtualized-again", Input{Facts: facts, Cluster: manyPrefixes(10, 1000), Settings: virtualize, Virtual: kept}},
		{"all-inside", Input{Facts: facts, Cluster: cluster("10.0.0.0/8"), Settings: allow}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NewPlan(bench.in)
			}
		})
	}
}

// BenchmarkReplan is what one route added or removed among 100,000 costs, in listings that share no
// memory with those before. Inside is a route within the cluster's prefixes, outside one beside them.
func BenchmarkReplan(b *testing.B) {
	without := manyRoutes(b, 100_000)
	for _, bench := range []struct {
		name, route string
		cluster     Cluster
	}{
		{"elsewhere/outside", "10.200.1.0/24", manyPrefixes(172, 1000)},
		{"elsewhere/inside", "172.3.2.0/24", manyPrefixes(172, 1000)},
		{"open/outside", "10.200.1.0/24", manyPrefixes(10, 1000)},
		{"open/inside", "10.3.2.0/24", manyPrefixes(10, 1000)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			route := Route{Prefix: netip.MustParsePrefix(bench.route), Table: TableMain, Type: Unicast, NextHops: []NextHop{{Link: 3}}}
			var inputs [4]Input
			for i := range inputs {
				inputs[i] = Input{Cluster: bench.cluster, Facts: without}
				routes := slices.Clone(without.Routes)
				if i%2 == 1 {
					routes = slices.Insert(routes, len(routes)/2, route)
				}
				hops := make([]NextHop, 0, len(routes)) // in one piece, as routefacts reads them
				for j, r := range routes {
					hops = append(hops, r.NextHops...)
					routes[j].NextHops = slices.Clip(hops[len(hops)-len(r.NextHops):])
				}
				inputs[i].Facts.Routes = routes
			}
			var p Planner
			p.Plan(inputs[3])
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				p.Plan(inputs[n%len(inputs)])
				n++
			}
		})
	}
}
