package connection

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/dns/vip"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/twins"
	"github.com/culvert-dev/culvert/node/vnat"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// virtual is what a session knows of virtual addresses. Its owner is the session's goroutine.
//
//	plan.Twins ──► Peer.spec.twins ──► the gateway takes them up ──► names are answered with them
//	     └───────► routes, AllowedIPs, and for pooled ones the rewriting at the TUN
type virtual struct {
	store  *twins.Store // nil where nothing can be remembered
	key    twins.Key
	chosen policy.Virtual // with every twin that the cluster was ever given
	kept   policy.Virtual // what the store has of that

	pool *vip.Stats // a few seconds ago; nil for no pool

	asked  []v1alpha1.Twin // of the Peer, done or under way
	known  []v1alpha1.Twin // that the gateway has taken up
	asking bool
	leases leases
}

// chooseVirtual finds out of which subnets virtual addresses are taken: those of the last time, if they
// are free. It writes nothing.
func (s *Session) chooseVirtual() error {
	v := &s.virtual
	v.key = twins.Key{Cluster: s.knowledge.policy.Status.ClusterUID, Connection: s.request.Name}
	in := policy.VirtualInput{
		Settings: s.settings,
		Cluster:  s.cluster,
		Facts:    s.knowledge.facts,
		Own:      s.own(),
		Overlay:  s.overlay,
		ULA:      twins.ULA(machineID()),

		Protected: protected(s.kube, s.resolver),
	}
	var err error
	if v.store, err = twins.Open(); err == nil {
		in.Remembered, in.Others, err = v.store.Recall(v.key)
	}
	s.notice(noticeTwins, err)
	v.chosen, err = policy.ChooseVirtual(in)
	if err != nil && needsVirtual(s.settings) {
		return failure.New(failure.Conflict, err, "nothing was changed")
	}
	s.notice(noticeNoVirtual, err)
	v.kept = in.Remembered
	return nil
}

// needsVirtual reports whether the settings ask for virtual addresses. Else there need not be any.
func needsVirtual(settings policy.Settings) bool {
	return settings.OnConflict == policy.ResolveVirtualize || settings.VirtualSubnet.IsValid() || settings.VirtualIPv6Subnet.IsValid() ||
		slices.ContainsFunc(settings.Routing, func(r policy.RoutingRule) bool {
			return r.Resolve == policy.ResolveVirtualize || r.Resolve == policy.ResolveVia
		})
}

// assign makes the twins of p those that the cluster was given.
func (s *Session) assign(p policy.Plan) {
	if len(p.Twins) > 0 {
		s.virtual.chosen = s.virtual.chosen.Keep(p.Twins)
	}
}

// rememberTwins keeps for the next connection what was assigned since the last time.
func (s *Session) rememberTwins() {
	v := &s.virtual
	if v.kept.V4 != v.chosen.V4 || v.kept.V6 != v.chosen.V6 || !slices.Equal(v.kept.Assigned, v.chosen.Assigned) {
		s.keepTwins()
	}
}

// keepTwins keeps what was assigned, and that it is in use.
func (s *Session) keepTwins() {
	v := &s.virtual
	if v.store == nil {
		return
	}
	err := v.store.Keep(v.key, v.chosen)
	s.notice(noticeTwins, err)
	if err == nil {
		v.kept = v.chosen
	}
}

// peerTwins are the twins as a Peer has them.
func peerTwins(plan policy.Plan) []v1alpha1.Twin {
	var out []v1alpha1.Twin
	for _, t := range plan.Twins {
		if t.Virtual.IsValid() {
			out = append(out, v1alpha1.Twin{Real: t.Real.String(), Virtual: t.Virtual.String()})
		}
	}
	return out
}

// askTwins has the Peer say what twins the plan has, beside the session's goroutine. refresh tries again
// what failed.
func (s *Session) askTwins() {
	v := &s.virtual
	wanted := peerTwins(s.plan)
	if s.peer == nil || v.asking || slices.Equal(wanted, v.asked) {
		return
	}
	v.asking = true
	name, uid := s.peer.Name, string(s.peer.UID)
	s.background.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, helperPatience)
		defer cancel()
		peer, err := s.kube.SetTwins(ctx, name, uid, wanted)
		s.mail.send(s.ctx, func() { s.twinsAsked(wanted, peer, err) })
	})
}

// twinsAsked takes in the API server's answer to askTwins.
func (s *Session) twinsAsked(wanted []v1alpha1.Twin, peer *v1alpha1.Peer, err error) {
	s.virtual.asking = false
	if err != nil {
		s.notice(noticeAskTwins, fmt.Errorf("new subnets of the cluster have no virtual addresses yet: %w", err))
		return
	}
	s.notice(noticeAskTwins, nil)
	s.virtual.asked = wanted
	s.peerChanged(peer)
	s.askTwins() // for what came about meanwhile
}

// twinsKnown takes in what the gateway has taken up. Names are answered with nothing else.
func (s *Session) twinsKnown(known []v1alpha1.Twin) {
	if slices.Equal(known, s.virtual.known) {
		return
	}
	s.virtual.known = known
	s.setDNS()
}

// dnsTwins returns the twins that names can be answered with now.
func (s *Session) dnsTwins() []dns.Twin {
	var out []dns.Twin
	for _, t := range s.plan.Twins {
		known := func(k v1alpha1.Twin) bool { return k.Real == t.Real.String() && k.Virtual == t.Virtual.String() }
		if t.Virtual.IsValid() && slices.ContainsFunc(s.virtual.known, known) {
			out = append(out, dns.Twin{Real: t.Real, Virtual: t.Virtual, Pooled: t.Pooled})
		}
	}
	return out
}

// virtualSubnets are where virtual addresses lie, and nothing else.
func (s *Session) virtualSubnets() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{s.virtual.chosen.V4, s.virtual.chosen.V6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

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

// virtualStatus is what status shows.
func (s *Session) virtualStatus() *api.Virtual {
	if s.plan.Trace == nil {
		return nil
	}
	v := &api.Virtual{Subnets: s.virtualSubnets(), Hidden: s.plan.Virtualized, Pool: s.virtual.pool}
	for _, t := range s.plan.Twins {
		v.Twins = append(v.Twins, api.Twin{
			Real: t.Real, Kind: string(t.Kind), Virtual: t.Virtual, Pooled: t.Pooled, Reason: t.Reason,
			Hidden: slices.ContainsFunc(s.plan.Virtualized, t.Real.Overlaps),
		})
	}
	return v
}
