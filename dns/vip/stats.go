package vip

import (
	"errors"
	"net/netip"
)

// Stats is the state of a pool and what it refused since it was opened.
type Stats struct {
	Pools []PoolStats `json:"pools"`           // the IPv4 one first
	Error string      `json:"error,omitempty"` // why leases are not kept for the next connection, if they are not
}

// PoolStats is one family's part of [Stats].
type PoolStats struct {
	Prefix      netip.Prefix `json:"prefix"`
	Capacity    int          `json:"capacity"`    // leases there can be
	Leased      int          `json:"leased"`      // of them
	Reclaimable int          `json:"reclaimable"` // of these, idle for the quarantine
	PerName     int          `json:"perName"`     // that may count for one name

	Exhausted     uint64 `json:"exhausted"`               // times no address was left
	LastExhausted string `json:"lastExhausted,omitempty"` // the name that got none
	Refused       uint64 `json:"refused"`                 // times a name had too many
	LastRefused   string `json:"lastRefused,omitempty"`   // that name
}

// counts are what was refused in one family.
type counts struct {
	exhausted, refused         uint64
	lastExhausted, lastRefused string
}

func (c *counts) failed(err error, name string) {
	switch {
	case errors.Is(err, ErrExhausted):
		c.exhausted++
		c.lastExhausted = name
	case errors.Is(err, ErrNameLimit):
		c.refused++
		c.lastRefused = name
	}
}

// Stats returns the state of the pool. It looks at every lease.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	out, now := Stats{Pools: []PoolStats{}}, p.now()
	if p.store != nil && p.store.err != nil {
		out.Error = p.store.err.Error()
	}
	for i := range p.families {
		f, c := p.families[i].Load(), p.counts[i]
		if f == nil {
			continue
		}
		out.Pools = append(out.Pools, PoolStats{
			Prefix: f.prefix, Capacity: f.capacity, Leased: f.idle.len(), Reclaimable: f.reclaimable(now, p.patience), PerName: f.perName,
			Exhausted: c.exhausted, LastExhausted: c.lastExhausted, Refused: c.refused, LastRefused: c.lastRefused,
		})
	}
	return out
}

func (f *family) reclaimable(now, patience int32) (n int) {
	for _, it := range f.idle.items {
		if now-it.used.Load() >= patience {
			n++
		}
	}
	return n
}
