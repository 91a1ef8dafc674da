package twins

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// parse reads "REAL VIRTUAL" pairs. What is no prefix is the zero one.
func parse(text string) []Twin {
	var out []Twin
	for words := strings.Fields(text); len(words) > 1; words = words[2:] {
		real, _ := netip.ParsePrefix(words[0])
		virtual, _ := netip.ParsePrefix(words[1])
		out = append(out, Twin{real, virtual})
	}
	return out
}

func TestReal(t *testing.T) {
	m, err := New(parse(`
		10.132.0.0/16 246.132.0.0/16
		10.130.0.0/16 246.130.0.0/16
		10.9.8.7/32 246.1.2.3/32
		172.16.128.0/17 250.3.0.0/17
		fd00:130::/108 fd7a:5::/108
		fd00:132::/56 fd7a:5:0:100::/56
		2001:db8::1/128 fd7a:6::1/128
		fd00:1::/60 fd7a:7:0:10::/60`))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range [][2]string{
		{"246.130.4.7", "10.130.4.7"},
		{"246.132.0.0", "10.132.0.0"},
		{"246.132.255.255", "10.132.255.255"},
		{"246.1.2.3", "10.9.8.7"},
		{"250.3.127.1", "172.16.255.1"},
		{"fd7a:5::7", "fd00:130::7"},
		{"fd7a:5:0:1ab::9", "fd00:132:0:ab::9"},
		{"fd7a:6::1", "2001:db8::1"},
		{"fd7a:7:0:1f:1:2:3:4", "fd00:1:0:f:1:2:3:4"},
		// In no twin.
		{"246.129.255.255", ""}, {"246.131.0.0", ""}, {"246.133.0.0", ""}, {"246.1.2.2", ""}, {"246.1.2.4", ""},
		{"10.130.4.7", ""}, {"0.0.0.0", ""}, {"255.255.255.255", ""}, {"250.3.128.0", ""},
		{"fd7a:6::2", ""}, {"::", ""}, {"ffff::", ""}, {"::ffff:246.130.4.7", ""}, {"fd7a:5::7%eth0", ""},
	} {
		want := row[1]
		if want == "" {
			want = row[0]
		}
		if got := m.Real(netip.MustParseAddr(row[0])); got != netip.MustParseAddr(want) {
			t.Errorf("%s stands for %s, want %s", row[0], got, want)
		}
	}
	if got := m.Real(netip.Addr{}); got.IsValid() {
		t.Errorf("nothing stands for %s", got)
	}
	if a := netip.MustParseAddr("246.130.4.7"); Map(nil).Real(a) != a {
		t.Error("no map translates")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, row := range []struct{ name, twins, want string }{
		{"host bits in the virtual prefix", "10.130.0.0/16 246.130.0.1/16", "host bits"},
		{"host bits in the real prefix", "10.130.1.0/16 246.130.0.0/16", "host bits"},
		{"no prefix", "10.130.0.0/16 246", "invalid Prefix"},
		{"no real prefix", "10 246.130.0.0/16", "invalid Prefix"},
		{"mapped", "10.130.0.0/16 ::ffff:246.130.0.0/112", "plain"},
		{"two families", "::/16 246.130.0.0/16", "family"},
		{"two lengths", "10.130.0.0/16 246.0.0.0/8", "length"},
		{"the same virtual prefix twice", "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.130.0.0/16", "10.130.0.0/16 and 10.132.0.0/16, overlap"},
		{"one within another, not next in the list", "10.0.0.0/8 246.0.0.0/8 10.1.0.0/16 250.0.0.0/16 10.2.0.0/16 246.9.0.0/16", "246.0.0.0/8 and 246.9.0.0/16"},
		{"one real prefix twice", "10.130.0.0/16 246.130.0.0/16 10.130.0.0/16 246.132.0.0/16", "10.130.0.0/16 has two twins"},
	} {
		if m, err := New(parse(row.twins)); err == nil || m != nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, error %v, want %q", row.name, m, err, row.want)
		}
	}
	if _, err := New(parse("10.0.0.0/8 246.0.0.0/8 10.130.0.0/16 247.0.0.0/16")); err != nil {
		t.Errorf("a real prefix within another: %v", err)
	}
}

func TestForPeer(t *testing.T) {
	links := []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31"), netip.MustParsePrefix("fd7a:1::4/127")}
	for _, row := range []struct{ name, twins, want string }{
		{"both families", "127.0.0.0/8 250.0.0.0/8 ::1/128 fd7a:2::1/128", ""},
		{"virtual prefix of the internet", "10.0.0.0/8 11.0.0.0/8", "not in"},
		{"the broadcast address", "10.255.0.0/16 255.255.0.0/16", "broadcast"},
		{"multicast", "239.0.0.0/8 246.0.0.0/8", "multicast"},
		{"the Peer's own link", "10.0.0.0/8 245.0.0.0/8", "own addresses 245.1.2.4/31"},
		{"the Peer's own link of IPv6", "fd00::/64 fd7a:1::/64", "own addresses fd7a:1::4/127"},
		{"what New refuses", "10.0.0.0/8 246.0.0.0/8 10.0.0.0/8 247.0.0.0/8", "two twins"},
		{"nothing", "10 246", "not in"},
	} {
		m, err := ForPeer(parse(row.twins), links)
		if (err == nil) != (row.want == "") || err != nil && (m != nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, error %v, want %q", row.name, m, err, row.want)
		}
	}
}

func TestNewKeepsItsInput(t *testing.T) {
	list := parse("10.132.0.0/16 246.132.0.0/16 10.130.0.0/16 246.130.0.0/16")
	before := slices.Clone(list)
	m, err := New(list)
	if err != nil || !slices.Equal(list, before) || m[0].Real.String() != "10.130.0.0/16" {
		t.Errorf("%v of %v, error %v", m, list, err)
	}
}

// slowReal is the definition: bit by bit, whichever twin it is in.
func slowReal(list []Twin, a netip.Addr) netip.Addr {
	for _, t := range list {
		if !t.Virtual.Contains(a) {
			continue
		}
		out, host := t.Real.Addr().AsSlice(), a.AsSlice()
		for bit := t.Real.Bits(); bit < a.BitLen(); bit++ {
			out[bit/8] |= host[bit/8] & (0x80 >> (bit % 8))
		}
		a, _ = netip.AddrFromSlice(out)
		return a
	}
	return a
}

// FuzzMap builds twins out of random numbers and compares the map with its definition, at the borders of
// each twin above all.
func FuzzMap(f *testing.F) {
	f.Add(uint64(1), uint8(3), []byte{246, 130, 4, 7})
	f.Add(uint64(2), uint8(64), netip.MustParseAddr("fd7a::1").AsSlice())
	f.Add(uint64(3), uint8(0), []byte{})
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, raw []byte) {
		list := someTwins(rand.New(rand.NewPCG(seed, 0)), int(n%65))
		m, err := New(list)
		if err != nil {
			t.Fatalf("%v of %v", err, list)
		}
		probes := make([]netip.Addr, 0, 4*len(list)+1)
		if a, ok := netip.AddrFromSlice(raw); ok {
			probes = append(probes, a)
		}
		for _, w := range list {
			first, last := w.Virtual.Addr(), w.Virtual.Addr()
			for b, bit := last.AsSlice(), w.Virtual.Bits(); bit < last.BitLen(); bit++ {
				b[bit/8] |= 0x80 >> (bit % 8)
				last, _ = netip.AddrFromSlice(b)
			}
			probes = append(probes, first, last, first.Prev(), last.Next())
		}
		for _, a := range probes {
			if got, want := m.Real(a), slowReal(list, a); got != want {
				t.Fatalf("%v stands for %v, want %v, in %v", a, got, want, list)
			}
		}
	})
}

// someTwins returns up to n twins, each of which New accepts beside the others.
func someTwins(r *rand.Rand, n int) []Twin {
	var list []Twin
	for range n {
		size := 4 + 12*r.IntN(2)
		bits := 1 + r.IntN(8*size)
		t := Twin{somePrefix(r, size, bits), somePrefix(r, size, bits)}
		if !slices.ContainsFunc(list, func(o Twin) bool { return o.Virtual.Overlaps(t.Virtual) || o.Real == t.Real }) {
			list = append(list, t)
		}
	}
	return list
}

func somePrefix(r *rand.Rand, size, bits int) netip.Prefix {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	if size == 16 {
		b[0] |= 0x20 // no IPv4-mapped prefix
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, bits).Masked()
}

func TestRealAllocatesNothing(t *testing.T) {
	m, err := New(someTwins(rand.New(rand.NewPCG(1, 2)), 64))
	if err != nil || len(m) < 16 {
		t.Fatal(len(m), err)
	}
	for _, w := range m {
		if n := testing.AllocsPerRun(10, func() { m.Real(w.Virtual.Addr()) }); n != 0 {
			t.Fatalf("%v allocations for %v", n, w)
		}
	}
}

// BenchmarkReal is one look-up among as many twins as a Peer may have.
func BenchmarkReal(b *testing.B) {
	for _, text := range []string{"246.63.4.7", "fd7a:0:3f::7", "10.1.2.3"} {
		b.Run(text, func(b *testing.B) {
			var list []Twin
			for i := range 32 {
				list = append(list,
					Twin{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(32 + i)}), 16), netip.PrefixFrom(netip.AddrFrom4([4]byte{246, byte(32 + i)}), 16)},
					Twin{netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, 0, byte(32 + i)}), 48), netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x7a, 0, 0, 0, byte(32 + i)}), 48)})
			}
			m, err := New(list)
			if err != nil {
				b.Fatal(err)
			}
			a := netip.MustParseAddr(text)
			b.ReportAllocs()
			for b.Loop() {
				m.Real(a)
			}
		})
	}
}
