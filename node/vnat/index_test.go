package vnat

import (
	"math/big"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// slowly finds the longest mapping around a by looking at each, and counts its host bits as a number.
func slowly(mappings []mapping, a netip.Addr) (to netip.Addr, ok bool) {
	longest := -1
	for _, m := range mappings {
		if !m.from.Contains(a) || m.from.Bits() <= longest {
			continue
		}
		longest, ok = m.from.Bits(), true
		n := new(big.Int).SetBytes(a.AsSlice())
		n.Sub(n, new(big.Int).SetBytes(m.from.Masked().Addr().AsSlice()))
		n.Add(n, new(big.Int).SetBytes(m.to.Masked().Addr().AsSlice()))
		to, _ = netip.AddrFromSlice(n.FillBytes(make([]byte, a.BitLen()/8)))
	}
	return to, ok
}

// randomAddr returns one of few addresses, near each other or far apart.
func randomAddr(rng *rand.Rand, is4 bool) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = []byte{0, 0xff, byte(rng.IntN(4))}[rng.IntN(3)]
	}
	if is4 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16(b)
}

func TestIndexIsLongestMatch(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	found := 0
	for range 2000 {
		var mappings []mapping
		seen := map[netip.Prefix]bool{}
		for range rng.IntN(12) {
			a := randomAddr(rng, rng.IntN(2) == 0)
			from := netip.PrefixFrom(a, rng.IntN(a.BitLen()+1))
			if seen[from.Masked()] {
				continue
			}
			seen[from.Masked()] = true
			mappings = append(mappings, mapping{from: from, to: netip.PrefixFrom(randomAddr(rng, a.Is4()), from.Bits())})
		}
		x := newIndex(append([]mapping(nil), mappings...))
		for range 20 {
			a := randomAddr(rng, rng.IntN(2) == 0)
			want, ok := slowly(mappings, a)
			if got, have := x.translate(a); got != want || have != ok || x.holds(a) != ok {
				t.Fatalf("%v in %v: %v (%v), want %v (%v)", a, mappings, got, have, want, ok)
			}
			if ok {
				found++
			}
		}
	}
	if found < 2000 {
		t.Errorf("only %d addresses lay in a prefix", found)
	}
}
