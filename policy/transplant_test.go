package policy

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// Transplanting agrees with doing it bit by bit, and leads back.
func TestTransplant(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		size := 4
		if rnd.IntN(2) == 0 {
			size = 16
		}
		addr := func() netip.Addr {
			raw := make([]byte, size)
			for i := range raw {
				raw[i] = byte(rnd.IntN(256))
			}
			a, _ := netip.AddrFromSlice(raw)
			return a
		}
		a, b := addr(), addr()
		bits := rnd.IntN(8*size + 1)
		from, to := netip.PrefixFrom(a, bits).Masked(), netip.PrefixFrom(b, bits).Masked()
		if a.Is4In6() || to.Addr().Is4In6() {
			continue
		}
		want := to.Addr().AsSlice()
		for i := bits; i < 8*size; i++ {
			want[i/8] |= a.AsSlice()[i/8] & (0x80 >> (i % 8))
		}
		got := Transplant(a, to)
		if !bytes.Equal(got.AsSlice(), want) || !to.Contains(got) || Transplant(got, from) != a {
			t.Fatalf("%v from %v to %v: %v, want %v", a, from, to, got, want)
		}
	}
}

func TestTransplantDoesNotAllocate(t *testing.T) {
	for _, text := range []string{"246.132.0.0/16", "fd99:1::/48"} {
		p := netip.MustParsePrefix(text)
		a := p.Addr().Next()
		if n := testing.AllocsPerRun(100, func() { a = Transplant(a, p) }); n != 0 {
			t.Errorf("%s: %v allocations", p, n)
		}
	}
}

// BenchmarkTransplant is what each packet to or from a virtual address pays.
func BenchmarkTransplant(b *testing.B) {
	for _, text := range []string{"246.132.0.0/16", "fd99:1::/48"} {
		p := netip.MustParsePrefix(text)
		a := p.Addr().Next()
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				a = Transplant(a, p)
			}
		})
	}
}
