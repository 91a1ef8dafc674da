package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

// timing says how patient a group is.
type timing struct {
	first  time.Duration // for the preferred server alone; then all are asked
	resend time.Duration // between repetitions, packets being lost
	total  time.Duration // for one question
	dead   time.Duration // for one question while no server is known to answer
}

// group is a set of servers that know the same names, in order of preference.
type group struct {
	source   Source
	workload string // of an agent
	servers  []*server
	timing   timing
	life     context.Context // ends with the resolver, or when another group takes this one's place
	end      context.CancelFunc
	work     *sync.WaitGroup // what the resolver waits for
	changed  func(addr netip.AddrPort, alive bool)
}

var (
	errNoServer = errors.New("no server configured")
	errSilent   = errors.New("no answer")
)

// close ends what is being asked: other servers know the answer now.
func (g *group) close() {
	g.end()
	for _, s := range g.servers {
		s.close()
	}
}

// order returns the servers, those known to be dead last, and whether any is alive.
func (g *group) order() (order []*server, alive bool) {
	var dead []*server
	for _, s := range g.servers {
		if s.health.dead() {
			dead = append(dead, s)
		} else {
			order = append(order, s)
		}
	}
	return append(order, dead...), len(order) > 0
}

// exchange asks the servers msg, whose question ends at end, by UDP and returns the first usable response: at most
// size bytes, with an id of its own. The preferred server gets some time alone; then every server is asked, repeatedly,
// until the time is up. If all that answered refused or failed, one such response is returned.
func (g *group) exchange(ctx context.Context, msg []byte, size int) ([]byte, error) {
	order, alive := g.order()
	if len(order) == 0 {
		return nil, errNoServer
	}
	total := g.timing.total
	if !alive {
		total = min(total, g.timing.dead)
	}
	ctx, cancel := g.limit(ctx, total)
	defer cancel()
	g.probeDead(msg, alive)
	r := round{group: g, msg: msg, size: size}
	for i, s := range order {
		if s.health.dead() {
			if r.refusal != nil {
				return r.refusal, nil
			}
			return r.all(ctx, order[i:])
		}
		if done, silent := r.one(ctx, s); done != nil {
			return done, nil
		} else if silent {
			return r.all(ctx, order[i:])
		}
	}
	return r.outcome()
}

// limit bounds a question by a time and by the group's life.
func (g *group) limit(ctx context.Context, total time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, total)
	stop := context.AfterFunc(g.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// probeDead asks dead servers on the side, now and then, so that they are noticed when they come back.
func (g *group) probeDead(msg []byte, alive bool) {
	if !alive {
		return // they are asked anyway
	}
	for _, s := range g.servers {
		if !s.health.probe(time.Now()) {
			continue
		}
		g.work.Go(func() {
			ctx, cancel := context.WithTimeout(g.life, g.timing.dead)
			defer cancel()
			r := round{group: g, msg: msg, size: usualBuffer}
			r.all(ctx, []*server{s})
		})
	}
}

func (g *group) succeeded(s *server) {
	if s.health.succeeded() && g.changed != nil {
		g.changed(s.addr, true)
	}
}

func (g *group) failed(s *server) {
	if g.life.Err() != nil {
		return // it was not waited for
	}
	if s.health.failed(time.Now()) && g.changed != nil {
		g.changed(s.addr, false)
	}
}

// round is one question on its way through a group.
type round struct {
	group   *group
	msg     []byte
	size    int
	silent  *server // did not answer alone
	pending *trial  // sent to it, to go on with; or nil
	refusal []byte  // a response to fall back on
	err     error
}

// one asks s alone. It returns the response if that settles the question, or else whether s is silent rather than
// failing.
func (r *round) one(ctx context.Context, s *server) (response []byte, silent bool) {
	t, err := s.ask(ctx, r.msg, r.size)
	if err != nil {
		r.fail(s, err)
		return nil, false
	}
	response, err = t.await(ctx, time.Now().Add(r.group.timing.first))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.suspend(t)
		return nil, true
	case err != nil:
		t.finish()
		r.fail(s, err)
		return nil, false
	}
	t.finish()
	return r.accept(s, response), false
}

// suspend keeps a trial without a response to go on with, unless its socket is an old one: it may be bound to an address
// this host no longer has.
func (r *round) suspend(t *trial) {
	r.silent = t.server
	t.server.forget()
	if t.sock.uses > 0 {
		t.finish()
		return
	}
	r.pending = t
}

// accept notes a response and returns it if it settles the question; hosts ask on after the others.
func (r *round) accept(s *server, response []byte) []byte {
	r.group.succeeded(s)
	if settles(response) {
		return response
	}
	r.refusal = response
	return nil
}

func (r *round) fail(s *server, err error) {
	r.group.failed(s)
	r.note(s, err)
}

func (r *round) note(s *server, err error) { r.err = fmt.Errorf("ask %s: %w", s.addr, err) }

func (r *round) outcome() ([]byte, error) {
	if r.refusal != nil {
		return r.refusal, nil
	}
	return nil, r.err
}

type response struct {
	server *server
	msg    []byte
	err    error
}

// all asks servers at once and repeatedly, going on with the pending trial, and waits for all it started. With a
// refusal at hand it does not insist for long.
func (r *round) all(ctx context.Context, servers []*server) ([]byte, error) {
	patience := r.group.timing.total
	if r.refusal != nil {
		patience = r.group.timing.dead
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	responses := make(chan response, len(servers))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for _, s := range servers {
		t := r.pending
		if t == nil || t.server != s {
			t = nil
		}
		asking.Go(func() {
			msg, err := s.insist(ctx, t, r)
			responses <- response{s, msg, err}
		})
	}
	return r.collect(responses, servers)
}

// collect takes the first response that settles the question. A server silent until another has answered, or until
// the time is up, has failed.
func (r *round) collect(responses <-chan response, servers []*server) ([]byte, error) {
	waiting := make(map[*server]bool, len(servers))
	for _, s := range servers {
		waiting[s] = true
	}
	for len(waiting) > 0 {
		got := <-responses
		delete(waiting, got.server)
		if got.err != nil {
			r.fail(got.server, got.err)
			continue
		}
		if msg := r.accept(got.server, got.msg); msg != nil {
			if waiting[r.silent] {
				r.group.failed(r.silent)
			}
			return msg, nil
		}
	}
	return r.outcome()
}

// insist asks s again and again until it answers or ctx ends. t is an earlier trial to go on with, or nil.
func (s *server) insist(ctx context.Context, t *trial, r *round) ([]byte, error) {
	if t == nil {
		var err error
		if t, err = s.ask(ctx, r.msg, r.size); err != nil {
			return nil, err
		}
	} else {
		t.watch(ctx)
		t.send() // an error shows in the response that does not come
	}
	defer t.finish()
	for {
		msg, err := t.await(ctx, time.Now().Add(r.group.timing.resend))
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return msg, err
		}
		if ctx.Err() != nil {
			return nil, errSilent
		}
		t.send()
	}
}

// settles reports whether a response ends the search for one. After these failures hosts ask the next server.
func settles(response []byte) bool {
	switch response[3] & maskRcode {
	case wire.RcodeServerFailure, wire.RcodeRefused, wire.RcodeNotImplemented:
		return false
	}
	return true
}
