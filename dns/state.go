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
	agents        []*group // as in cfg
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
	if old == nil {
		s.state.Store(next)
		return
	}
	made := next.groups()
	next.inherit(old)
	s.state.Store(next)
	next.retire(append(old.groups(), made...))
}

func (s *Server) newState(cfg Config) *state {
	return &state{
		cfg:           cfg,
		gateway:       s.newGroup(SourceCluster, "", cfg.Gateway, clusterTiming(cfg.LookupTimeout)),
		agents:        s.newAgents(&cfg),
		upstreams:     s.newGroup(SourceUpstream, "", cfg.Upstreams, upstreamTiming),
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
	if st.cfg.LookupTimeout == old.cfg.LookupTimeout {
		if slices.Equal(st.cfg.Gateway, old.cfg.Gateway) {
			st.gateway = old.gateway
		}
		st.inheritAgents(old)
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

// inheritAgents takes over what is known of the agents that are where they were.
func (st *state) inheritAgents(old *state) {
	for i, a := range st.cfg.Agents {
		same := func(o Agent) bool { return o.Workload == a.Workload && a.sameServers(&o) }
		if at := slices.IndexFunc(old.cfg.Agents, same); at >= 0 && !slices.Contains(st.agents, old.agents[at]) {
			st.agents[i] = old.agents[at]
		}
	}
}

// groups are all who may be asked.
func (st *state) groups() []*group { return append([]*group{st.gateway, st.upstreams}, st.agents...) }

// retire closes those of groups that are not used any more.
func (st *state) retire(groups []*group) {
	kept := st.groups()
	for _, g := range groups {
		if !slices.Contains(kept, g) {
			g.close()
		}
	}
}

// asksOthers reports whether st asks other servers than next does.
func (st *state) asksOthers(next *state) bool {
	return !slices.Equal(st.groups(), next.groups())
}

func (s *Server) newAgents(cfg *Config) []*group {
	var out []*group
	for _, a := range cfg.Agents {
		out = append(out, s.newGroup(SourceAgent, a.Workload, a.Servers, clusterTiming(cfg.LookupTimeout)))
	}
	return out
}

func (s *Server) newGroup(source Source, workload string, addrs []netip.AddrPort, t timing) *group {
	g := &group{source: source, workload: workload, timing: t, work: &s.work}
	g.life, g.end = context.WithCancel(s.life)
	g.changed = func(addr netip.AddrPort, alive bool) { s.serverChanged(g, addr, alive) }
	for _, addr := range addrs {
		g.servers = append(g.servers, &server{addr: addr})
	}
	return g
}
