package vnat

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/culvert-dev/culvert/internal/packet"
)

// oracle says by looking at every prefix what becomes of an address on its way out or in: itself, another one, or
// that the packet may not go on.
type oracle struct{ Table }

func (o oracle) holds(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (o oracle) mappings(out bool) (m []mapping) {
	for _, w := range o.Twins {
		if out {
			m = append(m, mapping{from: w.Real, to: w.Virtual})
		} else {
			m = append(m, mapping{from: w.Virtual, to: w.Real})
		}
	}
	return m
}

// out returns what a VIP is on the wire.
func (o oracle) out(a netip.Addr) (netip.Addr, bool) {
	if !o.holds(o.Pools, a) {
		return a, true
	}
	real, ok := o.Leases.Real(a)
	if !ok {
		return a, false
	}
	return slowly(o.mappings(true), real)
}

// in returns what programs see of an address on the wire.
func (o oracle) in(a netip.Addr) (netip.Addr, bool) {
	real, ok := slowly(o.mappings(false), a)
	if !ok {
		return a, true
	}
	return o.Leases.VIP(real)
}

// outward returns what goes on of pkt, if anything does.
func (o oracle) outward(pkt []byte) ([]byte, bool) {
	b := bytes.Clone(pkt)
	h, err := packet.Parse(b)
	if err != nil {
		return b, true
	}
	if _, wire := slowly(o.mappings(false), h.Dst); wire && !o.holds(o.Pools, h.Dst) {
		return nil, false
	}
	q, quotes := packet.ParseQuote(b, &h)
	dst, ok := o.out(h.Dst)
	if !ok {
		return nil, false
	}
	if quotes && dst != h.Dst && q.Src == h.Dst {
		q.RewriteSrc(b, dst)
	}
	if dst != h.Dst {
		packet.RewriteDst(b, &h, dst)
	}
	return b, true
}

// inward returns what reaches the host of pkt, if anything does.
func (o oracle) inward(pkt []byte) ([]byte, bool) {
	b := bytes.Clone(pkt)
	h, err := packet.Parse(b)
	if err != nil {
		return b, true
	}
	src, ok := o.in(h.Src)
	if !ok {
		return nil, false
	}
	if q, quotes := packet.ParseQuote(b, &h); quotes {
		dst, ok := o.in(q.Dst)
		if !ok {
			return nil, false
		}
		if dst != q.Dst {
			q.RewriteDst(b, dst)
		}
	}
	if src != h.Src {
		packet.RewriteSrc(b, &h, src)
	}
	return b, true
}

// FuzzDevice: whatever a packet is, it goes on as the oracle says or not at all, its neighbours are untouched, and
// what is written back is an ICMP error to its sender.
func FuzzDevice(f *testing.F) {
	for _, seed := range [][]byte{nil, udp(self4, vip4, "x"), udp(self6, vip6, "x"), udp(self4, gone4, "x"), udp(self4, wire4, "x"),
		udp(wire4, self4, "x"), udp(wireGone4, self4, "x"), tcp(self4, astray4), fragments(self6, vip6)[0], fragments(self4, vip4)[1],
		errorAbout(udp(vip4, self4, "x"), packet.PortUnreachable, self4), errorAbout(udp(self4, wire4, "x"), packet.PortUnreachable, wire4),
		errorAbout(udp(self6, wire6, "x"), packet.TimeExceeded, wire6), errorAbout(udp(vip6, self6, "x"), packet.PortUnreachable, self6),
	} {
		f.Add(seed)
	}
	table := oracle{testTable()}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) > 2000 {
			return
		}
		other := udp(self4, native4, "other")
		d, under := newDevice(t)
		on, back := read(t, d, under, other, pkt, other)
		want, goesOn := table.outward(pkt)
		if (len(want) > 0) != (len(on) == 3) || len(want) > 0 && !bytes.Equal(on[1], want) {
			t.Fatalf("out\n got %x\nwant %x", on, want)
		}
		if !bytes.Equal(on[0], other) || !bytes.Equal(on[len(on)-1], other) {
			t.Fatalf("the neighbours are %x", on)
		}
		for _, b := range back {
			h, err := packet.Parse(pkt)
			e, errBack := packet.Parse(b)
			if err != nil || errBack != nil || goesOn || e.Dst != h.Src || e.Src != h.Dst {
				t.Fatalf("%x is answered by %x", pkt, b)
			}
		}
		got := write(t, d, under, other, pkt, other)
		want, arrives := table.inward(pkt)
		if arrives != (len(got) == 3) || arrives && !bytes.Equal(got[1], want) {
			t.Fatalf("in\n got %x\nwant %x", got, want)
		}
		if !bytes.Equal(got[0], other) || !bytes.Equal(got[len(got)-1], other) {
			t.Fatalf("the neighbours are %x", got)
		}
	})
}
