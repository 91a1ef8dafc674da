package reach

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// network is what a run needs of the operating system.
type network interface {
	// route says where an ordinary packet of this user to a goes.
	route(a netip.Addr) (Route, error)
	// socket opens a socket that sends probes of one family.
	socket(is4 bool) (socket, error)
	close()
}

// socket sends probes with a hop limit of 1 and hears of the ICMP errors about them.
type socket interface {
	// port is the source port of its probes.
	port() uint16
	// send sends one probe. An error of an earlier probe is never returned.
	send(to netip.AddrPort) error
	// receive waits for an answer, or for close.
	receive() (heard, error)
	close() error
}

// heard is an ICMP error about the probe that was sent to to.
type heard struct {
	to   netip.AddrPort
	from netip.Addr
	kind answerKind
}

// A probe that stays without an answer is sent again once, to the next port, so that an answer tells which it is
// for. Ports are those of traceroute(8). The waits together stay below the budget.
const (
	firstPort = 33434
	tries     = 2
)

var patience = [tries]time.Duration{600 * time.Millisecond, 900 * time.Millisecond}

// A burst must fit into the queues on its way: the TUN's, WireGuard's and the carrier's. A pause after so many
// probes lets 1,000 of them leave within 100 ms.
const (
	burst = 64
	pause = 5 * time.Millisecond
)

// grace is how long an answer may take from the TUN to the socket before it counts as dropped.
const grace = 100 * time.Millisecond

// run is one run of a Prober. Everything in it belongs to the goroutine in do; readers only send.
type run struct {
	cfg     Config
	probes  map[netip.Addr]*probe
	order   []*probe // by address, so that equal targets give equal traffic
	sockets map[bool]socket
	answers chan message
	readers sync.WaitGroup
	done    chan struct{} // closed to let the readers go
}

// probe is what a run knows of one address.
type probe struct {
	addr netip.Addr
	evidence
	marks *marks
	sent  [tries]time.Time
	open  bool // worth waiting for
}

// message is what a reader heard, or why it hears nothing more.
type message struct {
	heard
	is4 bool
	at  time.Time
	err error
}

func newRun(cfg Config, targets []Target) *run {
	r := &run{cfg: cfg, probes: map[netip.Addr]*probe{}, sockets: map[bool]socket{},
		answers: make(chan message), done: make(chan struct{})}
	for _, t := range targets {
		if r.probes[t.Addr] == nil {
			r.probes[t.Addr] = &probe{addr: t.Addr, marks: new(marks)}
		}
	}
	r.order = slices.SortedFunc(maps.Values(r.probes), func(a, b *probe) int { return a.addr.Compare(b.addr) })
	return r
}

// do makes the run. An error is about all probes; what is in the way of one is in its evidence.
func (r *run) do(ctx context.Context, host network) error {
	r.lookUp(ctx, host)
	r.openSockets(host)
	r.cfg.Tap.watch.Store(r.watch())
	for is4, s := range r.sockets {
		r.readers.Go(func() { r.read(is4, s) })
	}
	for try := range tries {
		r.send(ctx, try)
		r.collect(ctx, patience[try])
	}
	if slices.ContainsFunc(r.order, func(p *probe) bool { return p.open && p.marks.in.Load() }) {
		r.collect(ctx, grace)
	}
	err := r.closeSockets()
	r.cfg.Tap.watch.Store(nil)
	for _, p := range r.order {
		p.out, p.in = p.marks.out.Load(), p.marks.in.Load()
		if p.open && ctx.Err() != nil {
			p.err = ctx.Err()
		}
	}
	return err
}

// failAll notes that no probe could be made to the end.
func (r *run) failAll(err error) {
	for _, p := range r.order {
		if p.answer == noAnswer && p.err == nil {
			p.err = err
		}
	}
}

// lookUp asks for the routes. A probe is sent only where the tunnel has the route: elsewhere it would bother a stranger.
func (r *run) lookUp(ctx context.Context, host network) {
	for _, p := range r.order {
		if p.err = ctx.Err(); p.err == nil {
			p.route, p.err = host.route(p.addr)
		}
		p.open = p.err == nil && p.route.Refusal == "" && p.route.Interface == r.cfg.Interface
	}
}

// openSockets opens a socket for each family that has something to send.
func (r *run) openSockets(host network) {
	for _, p := range r.order {
		is4 := p.addr.Is4()
		if !p.open || r.sockets[is4] != nil {
			continue
		}
		s, err := host.socket(is4)
		if err != nil {
			r.give(is4, err)
			continue
		}
		r.sockets[is4] = s
	}
}

// give gives up all open probes of a family.
func (r *run) give(is4 bool, err error) {
	for _, p := range r.order {
		if p.open && p.addr.Is4() == is4 {
			p.open, p.err = false, err
		}
	}
}

// watch returns what the Tap is to look for.
func (r *run) watch() *watch {
	w := &watch{marks: make(map[netip.Addr]*marks, len(r.order))}
	for _, p := range r.order {
		w.marks[p.addr] = p.marks
	}
	if s := r.sockets[true]; s != nil {
		w.port4 = s.port()
	}
	if s := r.sockets[false]; s != nil {
		w.port6 = s.port()
	}
	return w
}

// read passes on what a socket hears, until it is closed.
func (r *run) read(is4 bool, s socket) {
	for {
		h, err := s.receive()
		select {
		case r.answers <- message{h, is4, time.Now(), err}:
		case <-r.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// closeSockets closes all sockets and waits for their readers.
func (r *run) closeSockets() error {
	close(r.done)
	var errs []error
	for _, s := range r.sockets {
		errs = append(errs, s.close())
	}
	r.readers.Wait()
	return errors.Join(errs...)
}

// send sends all open probes.
func (r *run) send(ctx context.Context, try int) {
	sent := 0
	for _, p := range r.order {
		if !p.open || ctx.Err() != nil {
			continue
		}
		p.sent[try] = time.Now()
		p.sendErr = r.sockets[p.addr.Is4()].send(netip.AddrPortFrom(p.addr, firstPort+uint16(try)))
		p.open = p.sendErr == nil || passing(p.sendErr)
		if sent++; sent%burst == 0 {
			r.collect(ctx, pause)
		}
	}
}

// passing reports whether a failure to send may be over in a moment: a full queue.
func passing(err error) bool {
	return errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EAGAIN)
}

// collect takes answers until nothing is open, or for so long.
func (r *run) collect(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for slices.ContainsFunc(r.order, func(p *probe) bool { return p.open }) {
		select {
		case m := <-r.answers:
			r.take(m)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// take notes an answer.
func (r *run) take(m message) {
	if m.err != nil {
		r.give(m.is4, m.err)
		return
	}
	p, try := r.probes[m.to.Addr()], int(m.to.Port())-firstPort
	if p == nil || !p.open || m.kind == noAnswer || try < 0 || try >= tries || p.sent[try].IsZero() {
		return
	}
	p.answer, p.from, p.rtt, p.open = m.kind, m.from, cmp.Or(m.at.Sub(p.sent[try]), 1), false
}
