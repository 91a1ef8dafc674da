package dns

import (
	"math/bits"
	"net/netip"
	"sync/atomic"
	"time"
)

// Stats are counters since the server was made, and its present state.
type Stats struct {
	Queries  uint64 // received and admitted
	Cached   uint64 // answered from memory
	Cluster  uint64 // questions asked of the cluster, those asked for once on behalf of several counting once
	Agents   uint64 // questions asked of agents, counted likewise for each
	Upstream uint64 // questions asked of the host's resolvers, counted likewise
	Local    uint64 // questions denied here
	ServFail uint64 // replies with SERVFAIL
	Blocked  uint64 // addresses taken out of answers of the cluster
	Withheld uint64 // replies from which addresses left to other networks were taken out
	Virtual  uint64 // replies in which virtual addresses stand in place of the cluster's
	NoLease  uint64 // replies from which addresses were taken out because no virtual one was to be had
	Refused  uint64 // queries dropped because of their source
	Dropped  uint64 // messages that are no queries, and queries given up for want of room

	InFlight       int           // questions being asked
	Remembered     int           // answers in memory
	TCPConnections int           // open
	P50, P99       time.Duration // from query to reply, 0 before the first, right within a fifth
	Servers        []ServerState
}

// ServerState is what is known of one server that is asked.
type ServerState struct {
	Addr     netip.AddrPort
	Source   Source
	Workload string // of SourceAgent
	Alive    bool   // false after several failures in a row, until the next answer
}

// EventKind says what an [Event] is about.
type EventKind uint8

const (
	// ServerDown: a server has failed repeatedly and is asked last from now on.
	ServerDown EventKind = iota
	// ServerUp: a server that was down has answered.
	ServerUp
	// AddressBlocked: an answer of the cluster named an address that cannot be the cluster's.
	AddressBlocked
)

// Event is something worth showing to people that happened while answering.
type Event struct {
	Kind     EventKind
	Source   Source
	Workload string         // of ServerDown and ServerUp, of SourceAgent
	Server   netip.AddrPort // of ServerDown and ServerUp
	Name     string         // of AddressBlocked: the name asked for
	Addr     netip.Addr     // of AddressBlocked
}

type counters struct {
	queries, cached, cluster, agents, upstream, local, servfail, blocked, refused, dropped atomic.Uint64

	withheld, virtual, noLease atomic.Uint64 // see show

	tcp     atomic.Int64
	latency histogram
}

// show counts a reply that says s.
func (c *counters) show(s *shown) {
	for _, n := range []struct {
		counter *atomic.Uint64
		became  bool
	}{{&c.withheld, s.withheld}, {&c.virtual, s.virtual}, {&c.noLease, s.noLease}} {
		if n.became {
			n.counter.Add(1)
		}
	}
}

// histogram counts durations in four buckets per doubling, from a microsecond on.
type histogram [4 * 32]atomic.Uint64

func (h *histogram) add(d time.Duration) {
	v := uint64(max(d/(time.Microsecond/4), 4)) // quarters of a microsecond
	octave := bits.Len64(v) - 1
	i := (octave-2)*4 + int(v>>(octave-2)&3)
	h[min(i, len(h)-1)].Add(1)
}

// quantile returns the upper end of the bucket that holds the fraction q of all durations.
func (h *histogram) quantile(q float64) time.Duration {
	var total uint64
	for i := range h {
		total += h[i].Load()
	}
	rank, seen := uint64(q*float64(total)), uint64(0)
	for i := range h {
		if seen += h[i].Load(); seen > rank {
			return time.Duration(5+i%4) << (i / 4) * (time.Microsecond / 4)
		}
	}
	return 0
}

// Stats returns the counters of the server.
func (s *Server) Stats() Stats {
	c, st := &s.counters, s.state.Load()
	out := Stats{
		Queries: c.queries.Load(), Cached: c.cached.Load(), Cluster: c.cluster.Load(), Agents: c.agents.Load(), Upstream: c.upstream.Load(),
		Local: c.local.Load(), ServFail: c.servfail.Load(), Blocked: c.blocked.Load(), Refused: c.refused.Load(),
		Withheld: c.withheld.Load(), Virtual: c.virtual.Load(), NoLease: c.noLease.Load(),
		Dropped: c.dropped.Load(), TCPConnections: int(c.tcp.Load()),
		P50: c.latency.quantile(0.5), P99: c.latency.quantile(0.99),
		InFlight:   st.flights.len(),
		Remembered: st.clusterCache.len() + st.upstreamCache.len(),
	}
	for _, g := range st.groups() {
		for _, srv := range g.servers {
			out.Servers = append(out.Servers, ServerState{Addr: srv.addr, Source: g.source, Workload: g.workload, Alive: !srv.health.dead()})
		}
	}
	return out
}
