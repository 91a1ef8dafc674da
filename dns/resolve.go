package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	wire "github.com/miekg/dns"
)

const (
	clusterQuestions  = 256 // asked of the cluster at once
	upstreamQuestions = 512 // asked of the host's resolvers at once
)

// How long answers are remembered. What the cluster says changes with every roll-out; a name just denied may be a
// service about to be made.
var (
	clusterLifetimes  = lifetimes{positive: 30 * time.Second, negative: 3 * time.Second, capTTL: true}
	upstreamLifetimes = lifetimes{positive: time.Hour, negative: time.Minute}
)

var errBusy = errors.New("too many questions at once")

// resolve finds the answer to q, under st or, if those who were asked did not answer before others took their place,
// under what replaced it: the resolver of another connection, for one, is gone at once.
func (s *Server) resolve(ctx context.Context, st *state, q *query, tcp bool, key string) *answer {
	for {
		a := s.resolveUnder(ctx, st, q, tcp, key)
		next := s.state.Load()
		if !a.unreachable || !st.asksOthers(next) {
			return a
		}
		st = next
	}
}

// resolveUnder decides whom to ask, asks, and remembers the answer under key.
func (s *Server) resolveUnder(ctx context.Context, st *state, q *query, tcp bool, key string) *answer {
	name, err := q.name()
	if err != nil {
		return failure(wire.RcodeFormatError, 0, "")
	}
	d := st.decide(q, name)
	switch d.Source {
	case SourceNone:
		s.counters.local.Add(1)
		if d.exists {
			return failure(wire.RcodeSuccess, wire.ExtendedErrorCodeBlocked, d.Reason)
		}
		return failure(wire.RcodeNameError, wire.ExtendedErrorCodeBlocked, d.Reason)
	case SourceUpstream:
		a, err := s.askUpstream(ctx, st, q, tcp, upstreamLifetimes)
		if err != nil {
			return unreachable(noResolver, err)
		}
		st.upstreamCache.put(key, a)
		return a
	}
	a := s.resolveCluster(ctx, st, q, tcp, name, d)
	st.clusterCache.put(key, a)
	return a
}

// decide decides about q, which asks about name.
func (st *state) decide(q *query, name string) Decision {
	if q.qclass == wire.ClassINET || q.qclass == wire.ClassANY {
		return st.route(name, q.qtype)
	}
	return Decision{Source: SourceUpstream, Name: name, Reason: "not of the class IN"}
}

// route is [Route] with what the pool knows.
func (st *state) route(name string, qtype uint16) Decision {
	d := st.cfg.route(name, qtype)
	if pool := st.outward.pool; pool != nil && d.vip.IsValid() {
		if real, ok := pool.Real(d.vip); ok && st.outward.twins.contains(real) {
			return st.cfg.via(st.cfg.reverseOf(real))
		}
	}
	return d
}

// resolveCluster asks the cluster, and for names that may be meant otherwise the host's resolvers after it.
func (s *Server) resolveCluster(ctx context.Context, st *state, q *query, tcp bool, name string, d Decision) *answer {
	a, err := s.askCluster(ctx, st, q, name, d)
	if !d.Fallback {
		if err != nil {
			return unreachable("", err)
		}
		return a
	}
	if err == nil && a.rcode() == wire.RcodeSuccess {
		return a
	}
	denied := err == nil && a.rcode() == wire.RcodeNameError
	outside, outsideErr := s.askUpstream(ctx, st, q, tcp, clusterLifetimes)
	switch {
	case !denied && (outsideErr != nil || outside.rcode() == wire.RcodeNameError):
		// The name may well exist: deny nothing while the cluster cannot tell.
		if err != nil {
			return unreachable("", err)
		}
		return a
	case outsideErr != nil:
		return unreachable(noResolver, outsideErr)
	case !denied:
		outside.life = 0
	}
	return outside
}

const noResolver = "no answer from this host's resolvers: "

// unreachable is the answer when those who know did not answer.
func unreachable(prefix string, err error) *answer {
	a := failure(wire.RcodeServerFailure, wire.ExtendedErrorCodeNoReachableAuthority, clip(prefix+err.Error()))
	a.unreachable = true
	return a
}

// clipBytes is the length of the longest text in an extended error: with the longest name there is room for it in 512
// bytes.
const clipBytes = 120

// clip keeps an extended error short enough for any reply.
func clip(text string) string { return clipTo(text, clipBytes) }

func clipTo(text string, limit int) string {
	return strings.ToValidUTF8(text[:min(len(text), limit)], "")
}

var (
	errDown = errors.New("the tunnel to the cluster is down")
	errLong = errors.New("it is too long")
)

// askCluster asks the cluster, as d says, and returns the answer under the question's name.
func (s *Server) askCluster(ctx context.Context, st *state, q *query, name string, d Decision) (*answer, error) {
	if !st.cfg.Up || d.Source == SourceCluster && len(st.cfg.Gateway) == 0 {
		return nil, errDown
	}
	if !s.clusterSlots.take() {
		return nil, errBusy
	}
	defer s.clusterSlots.give()
	ctx, cancel := context.WithTimeout(ctx, st.cfg.LookupTimeout)
	defer cancel()
	msg, err := clusterQuery(q, d.Name)
	if err != nil {
		return nil, fmt.Errorf("ask the cluster for %s: %w", d.Name, err)
	}
	ask := s.askGateway
	if d.Source == SourceAgent {
		ask = s.askAgentAlone
	}
	r, err := ask(ctx, st, d, msg, q.qtype)
	if err != nil {
		return nil, err
	}
	return s.clusterAnswer(st, r, q, name, d.Name)
}

// askGateway asks the gateway msg, and the agents that are the way to what it names.
func (s *Server) askGateway(ctx context.Context, st *state, _ Decision, msg []byte, qtype uint16) (reply, error) {
	s.counters.cluster.Add(1)
	m, err := exchangeWhole(ctx, st.gateway, msg)
	if err != nil {
		return reply{}, fmt.Errorf("no answer from the cluster: %w", err)
	}
	r := reply{msg: m, source: SourceCluster}
	return r, s.consult(ctx, st, &r, msg, qtype)
}

// exchangeWhole asks g msg, by TCP if the response is too long for UDP.
func exchangeWhole(ctx context.Context, g *group, msg []byte) (*wire.Msg, error) {
	response, err := g.exchange(ctx, msg, usualBuffer)
	if err == nil && response[2]&(flagTC>>8) != 0 {
		response, err = g.exchangeTCP(ctx, msg)
	}
	if err != nil {
		return nil, err
	}
	m := new(wire.Msg)
	return m, m.Unpack(response)
}

// clusterAnswer turns the cluster's reply about full into the answer about name.
func (s *Server) clusterAnswer(st *state, r reply, q *query, name, full string) (*answer, error) {
	found := s.rewrite(st, r.msg, q, name, full)
	msg, err := r.msg.Pack()
	if err == nil && len(msg) > wire.MaxMsgSize {
		err = errLong
	}
	if err != nil {
		return nil, fmt.Errorf("answer of the cluster for %s: %w", full, err)
	}
	a, err := parseAnswer(msg, q.end, clusterLifetimes, time.Now())
	if err != nil {
		return nil, err
	}
	a.flags |= flagRA
	a.source, a.name, a.agents = r.source, wire.CanonicalName(full), r.agents
	a.addrs, a.excused = slices.Clip(found.kept), slices.Clip(found.excused)
	if a.opt == nil {
		a.opt, a.ownOPT = appendOPT(nil, 0, 0, ""), true
	}
	losses := r.losses
	if len(losses) > 0 {
		a.life, a.unreachable = 0, true
	}
	if len(found.removed) > 0 {
		losses = addLoss(losses, foreignLoss(found.removed[0]))
	}
	a.explain(losses)
	return a, nil
}

// found are the addresses in an answer of the cluster.
type found struct{ removed, kept, excused []netip.Addr }

// rewrite is what happens to every answer of the cluster before it is remembered. It returns the addresses taken out,
// those left, and those left only because a virtual address may stand for them.
func (s *Server) rewrite(st *state, m *wire.Msg, q *query, name, full string) found {
	// One spelling of the asked name throughout lets the packer point to the question.
	m.Question = []wire.Question{{Name: name, Qtype: q.qtype, Qclass: q.qclass}}
	m.Compress = true
	rename(m, full, name)
	adoptSOA(m, name)
	var f found
	f.removed, f.kept = removeAddresses(m, func(addr netip.Addr) bool {
		foreign, real := s.foreign(addr), st.outward.real(addr)
		if foreign && real {
			f.excused = append(f.excused, addr)
		}
		return !real && (foreign || st.cfg.standIn(addr) || st.cfg.othersStandIn(addr))
	})
	for _, addr := range f.removed {
		s.blocked(name, addr)
	}
	for _, addr := range f.excused {
		if !st.outward.hidden.contains(addr) {
			s.blocked(name, addr)
		}
	}
	return f
}

// blocked tells that the cluster named addr under name and clients do not get it.
func (s *Server) blocked(name string, addr netip.Addr) {
	s.counters.blocked.Add(1)
	s.event(Event{Kind: AddressBlocked, Source: SourceCluster, Name: name, Addr: addr})
}

// foreign reports whether addr, as it is, would lead a program to this host instead of to the cluster.
func (s *Server) foreign(addr netip.Addr) bool {
	return nobodys(addr) || s.opts.Own != nil && s.opts.Own(addr)
}

// slots bound how much happens at once; who finds none free is turned away rather than kept waiting.
type slots chan struct{}

func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) give() { <-s }
