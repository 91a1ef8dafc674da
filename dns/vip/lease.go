package vip

import (
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
)

const (
	gone     = math.MaxInt32 // in lease.used: reclaimed
	maxNames = 4             // remembered of one lease, for people

	// maxOtherNames bounds the bytes of all names of one lease but the first: the cluster chooses how long they are, and
	// a million leases keep them, in memory and in the file. The first is what the lease counts for when it is read.
	maxOtherNames = 256
)

// lease is one virtual address and what it stands for. Packet lookups read vip and real, which never change, and
// used; the rest is guarded by Pool.mu. A new meaning of the address is a new lease.
type lease struct {
	vip, real netip.Addr
	used      atomic.Int32 // second of the pool's clock of the last use, rounded down; or gone
	noted     int32        // second of the last line in the file
	since     int64        // Unix seconds
	at        [2]int32     // index in the family's queue and in the holder's
	skip      uint64       // all offsets from this one's to before skip are taken
	holder    *holder      // whom the lease counts for; nil for nobody
	names     []string     // asked for by, first ones first
}

// touch marks the lease as used in second now. It reports false when the lease has been reclaimed: that and the last
// packet before it exclude each other.
func (l *lease) touch(now int32) bool {
	for {
		used := l.used.Load()
		switch {
		case used == gone:
			return false
		case used >= now, l.used.CompareAndSwap(used, now):
			return true
		}
	}
}

// addName remembers that name was asked for, if there is room.
func (l *lease) addName(name string) {
	if len(l.names) == maxNames || slices.Contains(l.names, name) {
		return
	}
	if len(l.names) > 0 && otherBytes(l.names)+len(name) > maxOtherNames {
		return
	}
	l.names = append(l.names, name)
}

// otherBytes returns the length of all names but the first, of which there must be one.
func otherBytes(names []string) (n int) {
	for _, name := range names[1:] {
		n += len(name)
	}
	return n
}

// holder is a name and the leases that count for it.
type holder struct {
	name   string
	leases queue
}
