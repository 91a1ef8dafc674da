package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/miekg/dns"
)

// Options are what a [Server] is made of. UDP or TCP must not be empty.
type Options struct {
	// UDP and TCP are bound sockets, as a rule one of each per address family. The server owns them from NewServer
	// on; the UDP ones must be [*net.UDPConn].
	UDP []net.PacketConn
	TCP []net.Listener
	// Log receives what people should know; nil means [slog.Default].
	Log *slog.Logger
	// AllowedSource reports whether queries from addr are answered. nil means those from this host only: from loopback
	// and from the addresses the sockets are bound to. It is called once per UDP query and must be fast.
	AllowedSource func(addr netip.Addr) bool
	// Own reports whether addr is one of this host's own addresses, which no answer of the cluster may name. nil means
	// only those that are so by definition, such as loopback.
	Own func(addr netip.Addr) bool
	// Pool leases the virtual addresses of [Config.Twins] that are Pooled. nil is a pool without addresses.
	Pool Pool
	// Events, if not nil, is told what happens. It is called from many goroutines and must return at once.
	Events func(Event)
}

// Server is a resolver. Make it with [NewServer], configure it with [Server.Set], run it with [Server.Run].
type Server struct {
	opts     Options
	log      *slog.Logger
	bound    []netip.AddrPort // local addresses of the sockets
	counters counters

	state   atomic.Pointer[state]
	setting sync.Mutex // held while a state is replaced

	clusterSlots, upstreamSlots, tcpSlots slots

	// life is the context of everything that asks; it ends with Run, which then waits for work.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

// NewServer returns a server without configuration: until Set it answers SERVFAIL.
func NewServer(opts Options) *Server {
	s := &Server{
		opts:          opts,
		log:           opts.Log,
		clusterSlots:  make(slots, clusterQuestions),
		upstreamSlots: make(slots, upstreamQuestions),
		tcpSlots:      make(slots, tcpConnections),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.life, s.end = context.WithCancel(context.Background())
	for _, conn := range opts.UDP {
		s.bound = append(s.bound, localAddr(conn.LocalAddr()))
	}
	for _, l := range opts.TCP {
		s.bound = append(s.bound, localAddr(l.Addr()))
	}
	if s.opts.AllowedSource == nil {
		s.opts.AllowedSource = s.fromHere
	}
	s.Set(Config{})
	return s
}

func localAddr(addr net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(addr.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// listensOn reports whether addr is this server itself, which must not be its own upstream.
func (s *Server) listensOn(addr netip.AddrPort) bool { return slices.Contains(s.bound, addr) }

// fromHere is the default of Options.AllowedSource.
func (s *Server) fromHere(addr netip.Addr) bool {
	return addr.IsLoopback() || slices.ContainsFunc(s.bound, func(b netip.AddrPort) bool { return b.Addr() == addr })
}

// Run answers queries until ctx ends, then closes the sockets, waits for everything it started and returns nil. It
// returns earlier, with an error, if a socket fails. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, len(s.opts.UDP)+len(s.opts.TCP))
	serve := func(err error) { failed <- err }
	for _, conn := range s.opts.UDP {
		s.work.Go(func() { serve(s.serveUDP(conn)) })
	}
	for _, l := range s.opts.TCP {
		s.work.Go(func() { serve(s.serveTCP(l)) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.close()
	s.work.Wait()
	return err
}

// close ends everything Run started.
func (s *Server) close() {
	s.end()
	for _, conn := range s.opts.UDP {
		conn.Close()
	}
	for _, l := range s.opts.TCP {
		l.Close()
	}
	s.setting.Lock()
	defer s.setting.Unlock()
	for _, g := range s.state.Load().groups() {
		g.close()
	}
}

// quick appends to dst, which must be empty, the reply to msg if it is known without asking anyone. Otherwise ask
// reports whether the question q has to be asked; if not, the message deserves no reply.
func (s *Server) quick(dst, msg []byte, tcp bool, now time.Time) (reply []byte, q query, ask bool) {
	q, v := parseQuery(msg)
	if v == verdictDrop {
		s.counters.dropped.Add(1)
		return nil, q, false
	}
	s.counters.queries.Add(1)
	if v != verdictAsk {
		return appendVerdict(dst, &q, v), q, false
	}
	a := s.remembered(&q, now)
	if a == nil {
		return nil, q, true
	}
	s.counters.cached.Add(1)
	reply = appendReply(dst, &q, s.outgoing(&q, a), now, q.limit(tcp))
	s.counters.latency.add(time.Since(now))
	return reply, q, false
}

// remembered returns the answer to q from memory, or nil.
func (s *Server) remembered(q *query, now time.Time) *answer {
	if q.special {
		return nil
	}
	st := s.state.Load()
	var room [300]byte
	key := q.appendKey(room[:0])
	if a := st.clusterCache.get(key, now); a != nil {
		return a
	}
	return st.upstreamCache.get(key, now)
}

// flight asks the question of w and replies, unless the same question is being asked: then w gets that reply. It does
// not wait. w.query must not share memory with a receive buffer.
func (s *Server) flight(w waiter) {
	st := s.state.Load()
	if w.query.special {
		s.work.Go(func() { s.reply(s.resolve(s.life, st, &w.query, w.tcp, ""), w) })
		return
	}
	key := string(w.query.appendKey(nil))
	flightKey := key + w.class()
	first, ok := st.flights.join(flightKey, w)
	if !ok {
		s.reply(unreachable("", errBusy), w)
	}
	if !first {
		return
	}
	s.work.Go(func() {
		a := s.resolve(s.life, st, &w.query, w.tcp, key)
		for _, w := range st.flights.land(flightKey) {
			s.reply(a, w)
		}
	})
}

// reply sends a to w.
func (s *Server) reply(a *answer, w waiter) {
	if w.trace != nil {
		w.trace <- a
		return
	}
	buf := readBuffer(usualBuffer)
	defer buf.release()
	a = s.outgoing(&w.query, a)
	w.client.send(appendReply(buf.bytes[:0], &w.query, a, time.Now(), w.query.limit(w.tcp)))
	s.counters.latency.add(time.Since(w.since))
}

// outgoing returns a as the client that asked q gets it. What is hidden or withheld is so by the configuration of
// this moment: answers are remembered, and waited for, with the addresses that the cluster named.
func (s *Server) outgoing(q *query, a *answer) *answer {
	out := a
	if shown := s.state.Load().outward.show(q, a); shown != nil {
		out = shown.out
		s.counters.show(shown)
	}
	if out.rcode() == wire.RcodeServerFailure {
		s.counters.servfail.Add(1)
	}
	return out
}

// serverChanged tells those who care that a server went or came back.
func (s *Server) serverChanged(g *group, addr netip.AddrPort, alive bool) {
	kind, text := ServerUp, "DNS server answers again"
	if !alive {
		kind, text = ServerDown, "DNS server does not answer; asking it last"
	}
	log := s.log
	if g.workload != "" {
		log = log.With("workload", g.workload)
	}
	log.Info(text, "source", g.source.String(), "server", addr.String())
	s.event(Event{Kind: kind, Source: g.source, Workload: g.workload, Server: addr})
}

func (s *Server) event(e Event) {
	if s.opts.Events != nil {
		s.opts.Events(e)
	}
}

var errNotUDP = errors.New("not a UDP socket")

func asUDP(conn net.PacketConn) (*net.UDPConn, error) {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("serve DNS on %s: %w but %T", conn.LocalAddr(), errNotUDP, conn)
	}
	return udp, nil
}
