package vnat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/culvert-dev/culvert/internal/packet"
)

// Leases say which VIP stands for which real address of the cluster. They are asked for every packet, by several
// goroutines at once, and must neither block nor allocate.
type Leases interface {
	Real(vip netip.Addr) (netip.Addr, bool)
	VIP(real netip.Addr) (netip.Addr, bool)
}

// Twin is a prefix of the cluster and the one of the same length that stands for it on the wire, 1:1.
type Twin struct{ Real, Virtual netip.Prefix }

// Table says what to translate. The zero value is nothing.
type Table struct {
	// Pools hold all VIPs, and nothing of what is Virtual.
	Pools []netip.Prefix
	// Twins are the pooled ones. Where one lies in another the longer counts, as for routes.
	Twins []Twin
	// Leases is needed if there are pools or twins.
	Leases Leases
}

// table is a Table made ready for searching. It never changes.
type table struct {
	pools  index // to themselves
	wire   index // real to virtual
	real   index // virtual to real
	leases Leases
}

// compile returns nil for a table without anything to translate.
func compile(t Table) (*table, error) {
	if len(t.Pools) == 0 && len(t.Twins) == 0 {
		return nil, nil
	}
	if t.Leases == nil {
		return nil, errors.New("translate virtual IPs: there are pools or twins but no leases")
	}
	var pools, wire, back []mapping
	for _, p := range t.Pools {
		if !p.IsValid() {
			return nil, errors.New("translate virtual IPs: a pool is no prefix")
		}
		pools = append(pools, mapping{from: p, to: p})
	}
	for _, w := range t.Twins {
		if !w.Real.IsValid() || w.Real.Bits() != w.Virtual.Bits() || w.Real.Addr().Is4() != w.Virtual.Addr().Is4() {
			return nil, fmt.Errorf("translate virtual IPs: %s cannot be the twin of %s", w.Virtual, w.Real)
		}
		if i := slices.IndexFunc(t.Pools, w.Virtual.Overlaps); i >= 0 {
			return nil, fmt.Errorf("translate virtual IPs: pool %s overlaps %s, the twin of %s", t.Pools[i], w.Virtual, w.Real)
		}
		wire = append(wire, mapping{from: w.Real, to: w.Virtual})
		back = append(back, mapping{from: w.Virtual, to: w.Real})
	}
	return &table{newIndex(pools), newIndex(wire), newIndex(back), t.Leases}, nil
}

// outward translates a packet of this host in place. If it may not go on, it is as it was, and its header is returned.
func (t *table) outward(pkt []byte) (packet.Header, bool) {
	h, err := packet.Parse(pkt)
	if err != nil {
		return h, true
	}
	if !t.pools.holds(h.Dst) {
		return h, !t.real.holds(h.Dst)
	}
	dst, ok := t.wireOf(h.Dst)
	if !ok {
		return h, false
	}
	if q, quotes := packet.ParseQuote(pkt, &h); quotes && q.Src == h.Dst { // an error goes to who sent what it is about
		q.RewriteSrc(pkt, dst)
	}
	packet.RewriteDst(pkt, &h, dst)
	return h, true
}

// inward translates a packet for this host in place, and reports whether it may go on.
func (t *table) inward(pkt []byte) bool {
	h, err := packet.Parse(pkt)
	if err != nil {
		return true
	}
	if real, ok := t.real.translate(h.Src); ok {
		vip, ok := t.leases.VIP(real)
		if !ok {
			return false
		}
		packet.RewriteSrc(pkt, &h, vip)
	}
	q, quotes := packet.ParseQuote(pkt, &h)
	if !quotes {
		return true
	}
	if real, ok := t.real.translate(q.Dst); ok { // what this host sent there
		vip, ok := t.leases.VIP(real)
		if !ok {
			return false
		}
		q.RewriteDst(pkt, vip)
	}
	return true
}

// wireOf returns the wire address that vip stands for.
func (t *table) wireOf(vip netip.Addr) (netip.Addr, bool) {
	real, ok := t.leases.Real(vip)
	if !ok {
		return netip.Addr{}, false
	}
	return t.wire.translate(real)
}
