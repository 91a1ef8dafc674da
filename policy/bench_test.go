package policy

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// manyRoutes is a host with 100,000 routes of a VPN in 10.0.0.0/8, like one that imports its company's
// whole table, and the usual rest.
func manyRoutes(b *testing.B, n int) Facts {
	f := host(b, office+"link tun0 tun p2p")
	r := rand.New(rand.NewPCG(1, 2))
	for range n {
		v := r.Uint32()
		a := netip.AddrFrom4([4]byte{10, byte(v >> 16), byte(v >> 8), byte(v)})
		p, err := a.Prefix(16 + r.IntN(17))
		if err != nil {
			b.Fatal(err)
		}
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
	for _, bench := range []struct {
		name string
		in   Input
	}{
		{"elsewhere", Input{Facts: facts, Cluster: manyPrefixes(172, 1000)}},
		{"open", Input{Facts: facts, Cluster: manyPrefixes(10, 1000)}},
		{"allowed", Input{Facts: facts, Cluster: manyPrefixes(10, 1000), Settings: allow}},
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
