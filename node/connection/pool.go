package connection

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/culvert-dev/culvert/dns/vip"
	"github.com/culvert-dev/culvert/node/vnat"
	"github.com/culvert-dev/culvert/policy"
)

// translate has the TUN rewrite the addresses of pooled twins, of which the plan may have others now.
func (s *Session) translate() {
	s.openPool()
	var table vnat.Table
	if len(s.plan.Pools) > 0 {
		table.Pools, table.Leases = s.plan.Pools, &s.virtual.leases
	}
	for _, t := range s.plan.Twins {
		if t.Pooled && t.Virtual.IsValid() {
			table.Twins = append(table.Twins, vnat.Twin{Real: t.Real, Virtual: t.Virtual})
		}
	}
	s.notice(noticeTranslate, s.tunnel.nat.Set(table))
}

// openPool has the pool that the plan asks for, if any. Where its file cannot be used, leases live as long
// as the connection.
func (s *Session) openPool() {
	pool := s.virtual.leases.pool.Load()
	if pool != nil {
		s.notice(noticePool, pool.SetPrefixes(s.plan.Pools))
		return
	}
	if len(s.plan.Pools) == 0 {
		return
	}
	config := vip.Config{Prefixes: s.plan.Pools, Log: s.log}
	if s.virtual.store != nil {
		config.Path = s.virtual.store.PoolPath(s.virtual.key)
	}
	pool, err := vip.Open(config)
	if err != nil {
		s.notice(noticePool, fmt.Errorf("leases of virtual addresses are not remembered: %w", err))
		config.Path = ""
		if pool, err = vip.Open(config); err != nil {
			s.notice(noticePool, err)
			return
		}
	}
	s.virtual.leases.pool.Store(pool)
	s.watchPool()
}

// closePool ends the pool; its file stays for the next connection.
func (s *Session) closePool() {
	pool := s.virtual.leases.pool.Swap(nil)
	if pool == nil {
		return
	}
	if err := pool.Close(); err != nil {
		s.log.Warn("leases of virtual addresses may be forgotten", "err", err)
	}
}

// leases is the pool as the TUN sees it, before there is one too.
type leases struct{ pool atomic.Pointer[vip.Pool] }

// answers is the pool as the resolver sees it: a question for the name of an address is no use of it.
type answers struct{ *leases }

// Real implements dns.Pool.
func (a answers) Real(virtual netip.Addr) (netip.Addr, bool) {
	if pool := a.pool.Load(); pool != nil {
		return vip.Quiet{Pool: pool}.Real(virtual)
	}
	return netip.Addr{}, false
}

var errNoPool = errors.New("there is no pool of virtual addresses")

// Lease implements dns.Pool.
func (l *leases) Lease(real netip.Addr, name string) (netip.Addr, error) {
	if pool := l.pool.Load(); pool != nil {
		return pool.Lease(real, name)
	}
	return netip.Addr{}, errNoPool
}

// Real implements vnat.Leases.
func (l *leases) Real(virtual netip.Addr) (netip.Addr, bool) {
	if pool := l.pool.Load(); pool != nil {
		return pool.Real(virtual)
	}
	return netip.Addr{}, false
}

// VIP implements vnat.Leases.
func (l *leases) VIP(real netip.Addr) (netip.Addr, bool) {
	if pool := l.pool.Load(); pool != nil {
		return pool.VIP(real)
	}
	return netip.Addr{}, false
}

// lease returns what people should know of the lease of an address, real or virtual; nil if there is none.
func (l *leases) lease(e policy.Explanation) *vip.Info {
	pool := l.pool.Load()
	if pool == nil {
		return nil
	}
	info, ok := pool.Peek(e.Addr)
	if !ok && e.Pooled {
		info, ok = pool.PeekReal(e.Addr)
	}
	if !ok {
		return nil
	}
	return &info
}

// watchPool looks how the pool stands. A pool that is used up costs names, not the connection.
func (s *Session) watchPool() {
	pool := s.virtual.leases.pool.Load()
	if pool == nil {
		s.virtual.pool = nil
		return
	}
	stats := pool.Stats()
	s.virtual.pool = &stats
	var full []error
	for _, p := range stats.Pools {
		if p.Leased == p.Capacity && p.Reclaimable == 0 {
			full = append(full, fmt.Errorf("degraded: all %d virtual addresses of %s are in use; a name that needs another fails until one has been idle for two minutes, or choose a larger subnet by cluster.virtualIPSubnet",
				p.Capacity, p.Prefix))
		}
	}
	s.notice(noticeFull, errors.Join(full...))
}
