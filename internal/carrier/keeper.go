package carrier

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Keeper keeps a stream to one gateway: it dials, watches, dials again, and moves the endpoint to the
// new stream. Bind, Endpoint and Dial are required. The fields are not changed after Run began.
type Keeper struct {
	Bind *Bind
	// Endpoint is the made-up address under which wireguard-go knows the gateway.
	Endpoint netip.AddrPort
	// Dial opens a stream. It must return soon after ctx has ended (at the latest Timing.Dial after its
	// beginning), because Run waits for it at its own end. The stream's Close must unblock its Read and
	// Write and not wait for the other side.
	Dial   func(ctx context.Context) (io.ReadWriteCloser, error)
	Hello  Hello        // what to say; see Hello
	Log    *slog.Logger // nil: nothing is logged
	Timing Timing
	// OnChange is told of every change of State but its counters, OnSwitch each time another stream
	// carries the packets, the first included: the WireGuard peer should then send something, for the
	// gateway to follow. Both may be nil; they are called by Run, one at a time, and return soon.
	OnChange func(State)
	OnSwitch func()

	once sync.Once
	kick chan struct{}

	mu    sync.Mutex
	state State
	link  *link // in use; nil: none
}

// State is how a Keeper stands.
type State struct {
	Connected     bool          // a stream is there, and it answers
	Since         time.Time     // when Connected last changed; zero before the first stream
	RTT           time.Duration // shortest round trip seen lately; 0: not known
	Peer          Hello         // what the gateway said; zero before the first stream
	Redials       int           // streams after the first
	Err           error         // why there is no stream, or the last dial failed; nil once connected
	SentBytes     uint64        // payload, over all streams
	ReceivedBytes uint64        // payload, over all streams
	Dropped       uint64        // packets given up on the way to the stream
}

// Kick makes Run open a new stream at once, beside the one in use: the route or the source address
// towards the gateway has changed. It does not wait.
func (k *Keeper) Kick() {
	k.init()
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *Keeper) init() {
	k.once.Do(func() { k.kick = make(chan struct{}, 1) })
}

// State returns how things stand now.
func (k *Keeper) State() State {
	e := k.Bind.endpoint(k.Endpoint)
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.state
	if k.link != nil {
		s.RTT = k.link.rtt()
	}
	s.SentBytes, s.ReceivedBytes, s.Dropped = e.sent.Load(), e.received.Load(), e.dropped.Load()
	return s
}

// Run keeps a stream open until ctx ends, and then returns nil. It gives up on one thing only: a
// gateway of an incompatible version, with an error matching ErrIncompatible. When it returns, all
// streams are closed.
func (k *Keeper) Run(ctx context.Context) error {
	k.init()
	select {
	case <-k.kick: // the first dial is at once anyway
	default:
	}
	r := &run{
		Keeper:   k,
		hello:    fillHello(k.Hello, "node"),
		timing:   k.Timing.withDefaults(),
		endpoint: k.Bind.endpoint(k.Endpoint),
		log:      k.Log,
		results:  make(chan result),
		drained:  make(chan struct{}),
		retry:    time.NewTimer(0),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	ctx, r.stop = context.WithCancel(ctx)
	r.endpoint.reopen()
	err := r.loop(ctx)
	r.shutdown()
	return err
}
