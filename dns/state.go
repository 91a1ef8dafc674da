package dns

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// state is one configuration with everything that depends on it. An answer stored in a state's caches was asked for
// under that state's configuration, or under one that decides alike.
//
// An answer depends on the cluster if the cluster was asked, or would have been had the tunnel been up; those answers
// are in clusterCache, all others in upstreamCache. A question is therefore found in one of them at most.
type state struct {
	cfg           Config
	gateway       *group
	upstreams     *group
	clusterCache  *cache
	upstreamCache *cache
	flights       *flights
	outward       *outward
}

var upstreamTiming = timing{first: time.Second, resend: 2 * time.Second, total: 8 * time.Second, dead: 2 * time.Second}

func clusterTiming(total time.Duration) timing {
	return timing{first: 500 * time.Millisecond, resend: time.Second, total: total, dead: 1500 * time.Millisecond}
}

// Set replaces the configuration. What is remembered stays as far as the change leaves it true. Set may be called at
// any time, from any goroutine; questions in flight end under the configuration they began with, unless those asked
// are not part of the new one.
func (s *Server) Set(cfg Config) {
	s.setting.Lock()
	defer s.setting.Unlock()
	cfg = cfg.normalized()
	cfg.Upstreams = slices.DeleteFunc(cfg.Upstreams, s.listensOn)
	old := s.state.Load()
	next := s.newState(cfg)
	if old != nil {
		next.inherit(old)
	}
	s.state.Store(next)
	if old != nil {
		old.retire(next)
	}
}

func (s *Server) newState(cfg Config) *state {
	return &state{
		cfg:           cfg,
		gateway:       s.newGroup(SourceCluster, cfg.Gateway, clusterTiming(cfg.LookupTimeout)),
		upstreams:     s.newGroup(SourceUpstream, cfg.Upstreams, upstreamTiming),
		clusterCache:  newCache(),
		upstreamCache: newCache(),
		flights:       new(flights),
		outward:       newOutward(&cfg, s.opts.Pool),
	}
}

// inherit takes over from old what is still true.
func (st *state) inherit(old *state) {
	if st.cfg.sameOutward(&old.cfg) {
		st.outward = old.outward // by which answers know what they have shown
	}
	sameUpstreams := slices.Equal(st.cfg.Upstreams, old.cfg.Upstreams)
	if sameUpstreams {
		st.upstreams = old.upstreams
	}
	if slices.Equal(st.cfg.Gateway, old.cfg.Gateway) && st.cfg.LookupTimeout == old.cfg.LookupTimeout {
		st.gateway = old.gateway
	}
	if !st.cfg.sameRoutes(&old.cfg) || !sameUpstreams {
		return // names that fall back depend on the upstreams too
	}
	st.upstreamCache = old.upstreamCache
	if st.cfg.sameCluster(&old.cfg) {
		st.clusterCache = old.clusterCache
		st.flights = old.flights
	}
}

// retire closes what next does not use.
func (st *state) retire(next *state) {
	for _, g := range []*group{st.gateway, st.upstreams} {
		if g != next.gateway && g != next.upstreams {
			g.close()
		}
	}
}

// asksOthers reports whether st asks other servers than next does.
func (st *state) asksOthers(next *state) bool {
	return st.upstreams != next.upstreams || st.gateway != next.gateway
}

func (s *Server) newGroup(source Source, addrs []netip.AddrPort, t timing) *group {
	g := &group{source: source, timing: t, work: &s.work}
	g.life, g.end = context.WithCancel(s.life)
	g.changed = func(addr netip.AddrPort, alive bool) { s.serverChanged(source, addr, alive) }
	for _, addr := range addrs {
		g.servers = append(g.servers, &server{addr: addr})
	}
	return g
}
