package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestTwinsFitIntoAPeer: however a cluster grows, step by step, and whatever its subnets look like, no Peer
// has more twins than it may, and as long as that is enough no address of the cluster gets another twin.
func TestTwinsFitIntoAPeer(t *testing.T) {
	seed := testSeed(t)
	for round := range 30 {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		in := Input{Virtual: Virtual{V4: DefaultVirtualSubnet}}
		given := map[netip.Addr]netip.Addr{}
		for step := range 12 {
			growAtRandom(&in.Cluster, rng)
			p := NewPlan(in)
			n := len(slices.DeleteFunc(slices.Clone(p.Twins), func(x Twin) bool { return !x.Virtual.IsValid() }))
			if n > maxTwins || n < maxTwins && n < len(p.Twins) {
				t.Fatalf("seed %d round %d step %d: %d of %d twins", seed, round, step, n, len(p.Twins))
			}
			if n == maxTwins {
				break
			}
			for _, s := range slices.Concat(in.Cluster.Services, in.Cluster.Pods) {
				for _, a := range []netip.Addr{s.Prefix.Addr(), lastAddr(s.Prefix)} {
					now := twinOf(p.Twins, a)
					if before, ok := given[a]; ok && before != now || !now.IsValid() {
						t.Fatalf("seed %d round %d step %d: %s was %s and is %s", seed, round, step, a, before, now)
					}
					given[a] = now
				}
			}
			in.Virtual = in.Virtual.Keep(p.Undivided)
		}
	}
}

// growAtRandom adds subnets of any size anywhere in 10.0.0.0/8.
func growAtRandom(c *Cluster, rng *rand.Rand) {
	for range 1 + rng.IntN(40) {
		s := Subnet{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rng.IntN(256)), byte(rng.IntN(256)), 0}), 16+rng.IntN(9)).Masked()}
		if rng.IntN(4) == 0 {
			c.Services = append(c.Services, s)
		} else {
			c.Pods = append(c.Pods, s)
		}
	}
}

// twinOf returns the virtual address of a real one; not valid if it has none.
func twinOf(twins []Twin, a netip.Addr) netip.Addr {
	for _, t := range twins {
		if t.Real.Contains(a) && t.Virtual.IsValid() {
			return transplant(netip.PrefixFrom(a, a.BitLen()), t.Virtual).Addr()
		}
	}
	return netip.Addr{}
}
