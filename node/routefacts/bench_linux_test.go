package routefacts

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// manyRoutes are the messages of a kernel with n routes of a VPN in 10.0.0.0/8, each with the
// attributes that Linux 6 sends.
func manyRoutes(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, n)
	for i := range out {
		v := r.Uint32()
		bits := byte(16 + r.IntN(17))
		v &= ^uint32(0) << (32 - bits)
		out[i] = rtm(unix.AF_INET, bits, 254, 3, 253, unix.RTN_UNICAST, 0).attr32(unix.RTA_TABLE, 254).
			attr(unix.RTA_DST, 10, byte(v>>16), byte(v>>8), byte(v)).attr32(unix.RTA_PRIORITY, 50).attr32(unix.RTA_OIF, 3)
	}
	return out
}

// BenchmarkDecodeRoutes builds facts from the messages of a dump.
func BenchmarkDecodeRoutes(b *testing.B) {
	messages := manyRoutes(100_000)
	b.ReportAllocs()
	for b.Loop() {
		c := collector{steady: true, links: map[int]int{}}
		c.routes(messages)
		if len(c.facts.Routes) != len(messages) {
			b.Fatalf("%d routes of %d", len(c.facts.Routes), len(messages))
		}
	}
}

// BenchmarkDecodeAndPlan goes from the messages to a plan for a cluster of 1,000 prefixes, all of them
// among the VPN's routes.
func BenchmarkDecodeAndPlan(b *testing.B) {
	messages := manyRoutes(100_000)
	var in policy.Input
	for i := range 1000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i<<1) & 0xfe, 0})
		in.Cluster.Pods = append(in.Cluster.Pods, policy.Subnet{Prefix: netip.PrefixFrom(a, 24)})
	}
	b.ReportAllocs()
	for b.Loop() {
		c := collector{steady: true, links: map[int]int{}}
		c.routes(messages)
		in.Facts = c.facts
		if p := policy.NewPlan(in); len(p.Conflicts) == 0 {
			b.Fatal("no conflict in the VPN's range")
		}
	}
}
