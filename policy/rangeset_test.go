package policy

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"go4.org/netipx"
)

// TestRangeSet compares the binary searches with netipx, which walks.
func TestRangeSet(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := randomHost{rand.New(rand.NewPCG(seed, 0)), IPv4}
	for round := range 2000 {
		h.family = []Family{IPv4, IPv6}[round%2]
		members, p := h.prefixes(8), h.prefix()
		var b netipx.IPSetBuilder
		for _, m := range members {
			b.AddPrefix(m)
		}
		set, err := b.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		s := rangesOf(members...)
		if got, want := s.overlaps(p), set.OverlapsPrefix(p); got != want {
			t.Errorf("%v overlaps %v: %v", members, p, got)
		}
		if got, want := s.covers(p), set.ContainsPrefix(p); got != want {
			t.Errorf("%v covers %v: %v", members, p, got)
		}
		b.Intersect(mustSet(p))
		inside, err := b.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := joinPrefixes(s.within(p)), joinPrefixes(inside.Prefixes()); got != want {
			t.Errorf("%v within %v: %s, want %s", members, p, got, want)
		}
	}
	if s := rangesOf(netip.MustParsePrefix("0.0.0.0/0")); s.overlaps(all6) || !s.has(IPv4) || s.has(IPv6) {
		t.Error("families are not told apart")
	}
}
