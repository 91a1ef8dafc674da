package carrier

import (
	"cmp"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/culvert-dev/culvert/internal/accept"
)

// defaultMaxStreams bounds the memory that streams may take: each up to about 1.5 MiB when its reader
// is slow, 70 KiB when idle.
const defaultMaxStreams = 1024

// Server is the gateway's side: every stream it accepts becomes an endpoint of its own. Bind is
// required. The fields are not changed after Serve began.
type Server struct {
	Bind       *Bind
	Hello      Hello        // what to say; see Hello
	Log        *slog.Logger // nil: nothing is logged
	Timing     Timing
	MaxStreams int // more are closed at once; 0: 1024

	mu    sync.Mutex
	live  map[*Endpoint]struct{} // of open streams
	total Stats                  // of those that ended
}

// Stats counts what a Server does.
type Stats struct {
	Streams       int    // open now, with hellos exchanged
	Accepted      uint64 // streams whose hello was good, ever
	Refused       uint64 // streams closed before, ever: too many, no hello, incompatible
	SentBytes     uint64 // payload, over all streams
	ReceivedBytes uint64 // payload, over all streams
	Dropped       uint64 // packets given up on the way to a stream
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.total
	for e := range s.live {
		st.add(e)
	}
	st.Streams = len(s.live)
	return st
}

// Open reports whether the stream that the endpoint of that made-up address stands for is open.
func (s *Server) Open(endpoint netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.live {
		if e.addr == endpoint {
			return true
		}
	}
	return false
}

func (st *Stats) add(e *Endpoint) {
	st.SentBytes += e.sent.Load()
	st.ReceivedBytes += e.received.Load()
	st.Dropped += e.dropped.Load()
}

// Serve accepts streams until ctx ends, then says goodbye to all, closes them and returns nil. Another
// error is the listener's. It closes the listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	most := cmp.Or(s.MaxStreams, defaultMaxStreams)
	return accept.Serve(ctx, listener, accept.Streams{
		What:   "carrier streams",
		Most:   most,
		Handle: func(ctx context.Context, stream net.Conn) { s.serve(ctx, stream, log) },
		Refused: func() {
			s.refuse()
			log.Warn("carrier: too many streams, one refused", "limit", most)
		},
	})
}

// serve runs one stream to its end.
func (s *Server) serve(ctx context.Context, stream net.Conn, log *slog.Logger) {
	hello := fillHello(s.Hello, "gateway")
	e := s.Bind.newStreamEndpoint()
	defer s.Bind.remove(e)
	l, err := newLink(stream, s.Bind, e, hello, s.Timing.withDefaults())
	if err != nil {
		log.Error("carrier: hello", "error", err)
		stream.Close()
		return
	}
	defer l.wait()
	peer, err := l.hello(ctx.Done())
	if err == nil {
		err = compatible(hello, peer)
	}
	if err != nil {
		s.refuse()
		log.Debug("carrier: stream refused", "error", err)
		l.bye(err.Error(), err)
		return
	}
	s.enter(e)
	defer s.leave(e)
	e.attach(l, false)
	log.Debug("carrier: stream open", "endpoint", e.text, "node", peer.Version)
	select {
	case <-l.done:
	case <-ctx.Done():
		l.bye("gateway is stopping", errClosed)
		<-l.done
	}
	log.Debug("carrier: stream ended", "endpoint", e.text, "reason", l.reason())
}

func (s *Server) enter(e *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = map[*Endpoint]struct{}{}
	}
	s.live[e] = struct{}{}
	s.total.Accepted++
}

func (s *Server) leave(e *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, e)
	s.total.add(e)
}

func (s *Server) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total.Refused++
}

// streamPrefix is where the addresses of the gateway's endpoints come from: documentation addresses
// (RFC 3849), which are routed nowhere. Each stream has an address of its own, because
// wireguard-go's limiter of handshakes counts by address.
var streamPrefix = netip.MustParsePrefix("2001:db8::/32")

// newStreamEndpoint returns an endpoint with an address no other has had.
func (b *Bind) newStreamEndpoint() *Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.streams++
	raw := streamPrefix.Addr().As16()
	binary.BigEndian.PutUint64(raw[8:], b.streams)
	e := newEndpoint(netip.AddrPortFrom(netip.AddrFrom16(raw), 1))
	b.endpoints[e.addr] = e
	return e
}
