package vip

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
)

const smallestTable = 64 // slots

// key selects what a table finds leases by.
type key func(*lease) netip.Addr

func byVIP(l *lease) netip.Addr  { return l.vip }
func byReal(l *lease) netip.Addr { return l.real }

// table finds leases by address: open addressing with linear probing. One writer at a time changes it, under
// Pool.mu; readers need no lock, since a slot is one pointer and a fuller table is replaced by a larger one whole.
type table struct {
	key   key
	slots atomic.Pointer[[]atomic.Pointer[lease]]
	live  int
	spent int // slots that are not nil: leases, and removed
}

// removed takes the slot of a lease that was removed, so that probing goes on behind it. It is found by no address.
var removed = func() *lease {
	l := new(lease)
	l.used.Store(gone)
	return l
}()

func newTable(k key, leases int) *table {
	t := &table{key: k}
	slots := makeSlots(leases)
	t.slots.Store(&slots)
	return t
}

// makeSlots makes a power of two of slots, of which so many leases fill half at most.
func makeSlots(leases int) []atomic.Pointer[lease] {
	return make([]atomic.Pointer[lease], max(smallestTable, 1<<bits.Len(uint(2*leases-1))))
}

// find returns the lease with the address a, or nil.
func (t *table) find(a netip.Addr) *lease {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := hash(a) & mask; ; i = (i + 1) & mask {
		l := slots[i].Load()
		if l == nil || t.key(l) == a {
			return l
		}
	}
}

// put adds l, or replaces the lease with its address.
func (t *table) put(l *lease) {
	slots := *t.slots.Load()
	if 4*(t.spent+1) > 3*len(slots) {
		slots = t.rebuild(slots)
	}
	if t.place(slots, l) {
		t.live++
		t.spent++
	}
}

// rebuild replaces the slots by new ones without removed leases, and with room for more. Readers see the new ones
// when they are complete.
func (t *table) rebuild(old []atomic.Pointer[lease]) []atomic.Pointer[lease] {
	slots := makeSlots(t.live + 1)
	for i := range old {
		if l := old[i].Load(); l != nil && l != removed {
			t.place(slots, l)
		}
	}
	t.spent = t.live
	t.slots.Store(&slots)
	return slots
}

// place puts l into its slot and reports whether its address is a new one.
func (t *table) place(slots []atomic.Pointer[lease], l *lease) (added bool) {
	a, mask := t.key(l), uint64(len(slots)-1)
	for i := hash(a) & mask; ; i = (i + 1) & mask {
		old := slots[i].Load()
		if old == nil || old != removed && t.key(old) == a {
			slots[i].Store(l)
			return old == nil
		}
	}
}

// remove takes l out, which must be in.
func (t *table) remove(l *lease) {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := hash(t.key(l)) & mask; ; i = (i + 1) & mask {
		if slots[i].Load() == l {
			slots[i].Store(removed)
			t.live--
			return
		}
	}
}

// Addresses come from the cluster; nobody there can make them collide without knowing these.
var seeds = [2]uint64{rand.Uint64(), rand.Uint64()}

func hash(a netip.Addr) uint64 {
	b := a.As16()
	hi, lo := bits.Mul64(binary.BigEndian.Uint64(b[8:])^seeds[0], binary.BigEndian.Uint64(b[:8])^seeds[1])
	return hi ^ lo
}
