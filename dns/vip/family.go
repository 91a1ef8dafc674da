package vip

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

const (
	maxLeases  = 1 << 20 // per family, whatever its prefix has room for: a bound on memory
	maxPerName = 4096    // about as many addresses as one DNS message holds
)

// family is the pool of one address family under one prefix. The tables may be read by anyone, the rest is guarded by
// Pool.mu. A family whose prefix changes is replaced.
type family struct {
	prefix   netip.Prefix
	last     uint64 // offset of the last address that may be leased; the first is 1
	capacity int
	perName  int
	reserved map[uint64]bool // offsets never leased

	vips, reals *table
	idle        queue // every lease
	holders     map[string]*holder
}

// newFamily returns the empty pool of prefix with room for about so many leases.
func newFamily(prefix netip.Prefix, reserved []netip.Addr, perName, leases int) *family {
	f := &family{
		prefix: prefix, last: lastOffset(prefix), perName: perName,
		vips: newTable(byVIP, leases), reals: newTable(byReal, leases),
		holders: make(map[string]*holder), reserved: make(map[uint64]bool),
	}
	for _, a := range reserved {
		if f.usable(a) {
			f.reserved[f.offset(a)] = true
		}
	}
	f.recount()
	return f
}

// lastOffset returns the offset of the last address but one in p, 0 if p has no room for a lease. Of an IPv6 prefix
// shorter than /64 only the first /64 is used.
func lastOffset(p netip.Prefix) uint64 {
	hostBits := min(p.Addr().BitLen()-p.Bits(), 64)
	if hostBits < 2 {
		return 0
	}
	return 1<<hostBits - 2 // 1<<64 is 0 here
}

// recount derives the capacity from what is reserved.
func (f *family) recount() {
	f.capacity = int(min(f.last-uint64(len(f.reserved)), maxLeases))
	if f.perName == 0 {
		f.perName = max(1, min(f.capacity/4, maxPerName))
	}
}

// addr returns the address at an offset into the prefix.
func (f *family) addr(offset uint64) netip.Addr {
	b := f.prefix.Addr().As16()
	low := b[8:]
	binary.BigEndian.PutUint64(low, binary.BigEndian.Uint64(low)+offset)
	a := netip.AddrFrom16(b)
	if f.prefix.Addr().Is4() {
		return a.Unmap()
	}
	return a
}

// offset returns the place of a in the prefix; of another address the place whose low bits are the same.
func (f *family) offset(a netip.Addr) uint64 {
	b := a.As16()
	low := binary.BigEndian.Uint64(b[8:])
	if hostBits := f.prefix.Addr().BitLen() - f.prefix.Bits(); hostBits < 64 {
		low &= 1<<hostBits - 1
	}
	return low
}

// usable reports whether a may be leased, apart from what is reserved.
func (f *family) usable(a netip.Addr) bool {
	o := f.offset(a)
	return o >= 1 && o <= f.last && f.addr(o) == a
}

// free returns the offset of the first free address from the preferred one on, after the last the first. There must
// be one. Each lease remembers how far taken addresses reach, and is told anew on the way (the "find" of a union-find
// structure): since no address becomes free again, that stays true.
func (f *family) free(preferred uint64) uint64 {
	found := preferred
	for {
		next, taken := f.step(found, 0)
		if !taken {
			break
		}
		found = next
	}
	for o := preferred; o != found; {
		o, _ = f.step(o, found)
	}
	return found
}

// step returns the offset to look at after o, and whether o cannot be leased. With an end, the lease at o learns that
// all before end are taken.
func (f *family) step(o, end uint64) (next uint64, taken bool) {
	switch {
	case o < 1 || o > f.last:
		return 1, true
	case f.reserved[o]:
		return o + 1, true
	}
	l := f.vips.find(f.addr(o))
	if l == nil {
		return o, false
	}
	next = l.skip
	if end != 0 {
		l.skip = end
	}
	return next, true
}

// take leases an address to real: a free one, or that of the lease idle longest if it is so for patience seconds.
func (f *family) take(real netip.Addr, now, patience int32) (*lease, error) {
	l := &lease{real: real}
	if f.idle.len() < f.capacity {
		o := f.free(f.offset(real))
		l.vip, l.skip = f.addr(o), o+1
	} else if old := f.reclaim(now, patience); old != nil {
		l.vip, l.skip = old.vip, old.skip
	} else {
		return nil, fmt.Errorf("%w: all %d addresses of %v are in use", ErrExhausted, f.capacity, f.prefix)
	}
	l.used.Store(now)
	f.add(l)
	return l, nil
}

// add takes l up, whose address and real address have no lease here.
func (f *family) add(l *lease) {
	f.idle.push(l)
	f.reals.put(l)
	f.vips.put(l)
}

// reclaim ends the lease idle longest and returns it, or nil if it is not idle long enough. Its place in vips is for
// the next lease to take.
func (f *family) reclaim(now, patience int32) *lease {
	for f.idle.len() > 0 {
		l, used := f.idle.oldest()
		if now-used < patience {
			return nil
		}
		if !l.used.CompareAndSwap(used, gone) {
			continue // a packet came first
		}
		f.idle.remove(l)
		f.reals.remove(l)
		f.discharge(l)
		return l
	}
	return nil
}

// admit reports an error if name holds as many leases as it may. Its lease idle longest stops counting if it is so
// for patience seconds.
func (f *family) admit(name string, now, patience int32) error {
	h := f.holders[name]
	if h == nil || h.leases.len() < f.perName {
		return nil
	}
	l, used := h.leases.oldest()
	if now-used < patience {
		return fmt.Errorf("%w: %q holds %d of %v", ErrNameLimit, name, h.leases.len(), f.prefix)
	}
	f.discharge(l)
	return nil
}

// charge makes l count for name.
func (f *family) charge(l *lease, name string) {
	h := f.holders[name]
	if h == nil {
		h = &holder{name: name, leases: queue{which: inHolder}}
		f.holders[name] = h
	}
	l.holder = h
	h.leases.push(l)
}

// discharge makes l count for nobody.
func (f *family) discharge(l *lease) {
	h := l.holder
	if h == nil {
		return
	}
	l.holder = nil
	if h.leases.remove(l); h.leases.len() == 0 {
		delete(f.holders, h.name)
	}
}
