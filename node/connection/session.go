package connection

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/node/report"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// defaultTimeout bounds connecting, from the command to the first handshake.
const defaultTimeout = 30 * time.Second

// Options are what a Session needs from the process it runs in; all are required.
type Options struct {
	Request report.Request
	Channel *report.Channel // to the command; the session closes it
	Helper  *helper.Client
	Log     *slog.Logger
}

// Session is one connection. Its state belongs to the goroutine in [Session.Run]; what others need
// they read from the snapshot.
type Session struct {
	request report.Request
	channel *report.Channel
	helper  *helper.Client
	log     *slog.Logger

	answers    chan bool       // of the command; closed when it hung up
	ctx        context.Context // of Run; ends with the session
	background *sync.WaitGroup // of Run, which waits for it
	mail       mailbox
	snapshot   atomic.Pointer[api.Status]
	view       atomic.Pointer[view]
	quit       chan struct{} // closed to ask for the end
	quitOnce   sync.Once
	told       atomic.Bool   // the connection stood, and the command knows
	restored   chan struct{} // closed when the host is as it was, or restoreErr says why not

	restoreErr error       // set before restored is closed
	patience   *time.Timer // of connecting

	kube      *kube.Client
	knowledge knowledge
	followed  *v1alpha1.Policy // whose spec is in force; nil for none
	settings  policy.Settings
	cluster   policy.Cluster
	trusted   string // hash of what the user let the team's Policy take; "" for nothing
	key       wgtypes.Key
	overlay   []netip.Prefix
	virtual   virtual
	addresses []netip.Addr
	plan      policy.Plan
	planner   policy.Planner
	applied   bool             // the host follows a plan
	inForce   policy.Plan      // the one that it was last brought to
	protects  int              // how many dialled addresses the plan protects
	proofs    proofs           // of what the plan says can be reached
	path      string           // on which the carrier's packets leave the host, as far as routes tell
	resolver  hostdns.Config   // the host's own, or another connection's that is hooked up below
	earlier   []helper.Earlier // connections on this host that began before

	peer       *v1alpha1.Peer // as created; Name and UID identify it
	unsure     *v1alpha1.Peer // asked for, but nobody knows whether it was created
	gateway    *v1alpha1.PeerGateway
	iface      string
	tunnel     *tunnel
	dns        *dns.Server
	uapi       net.Listener // of `wg show`
	hostAddrs  dns.HostAddrs
	generation uint64 // grows with every change of gateway

	carrier carrier.State
	dials   int       // of the tunnel's carriers, to tell the present one's events from older ones
	since   time.Time // when the state began
	began   time.Time // when the present gateway was first asked for a handshake
	hello   helper.Hello
	ticks   int
	state   api.State
	reason  string
	notices notices
	ended   error // why the connection is over; nil while it is not
}

// NewSession returns a session that has not begun.
func NewSession(o Options) *Session {
	return &Session{
		request:  o.Request,
		channel:  o.Channel,
		helper:   o.Helper,
		log:      o.Log,
		hello:    o.Helper.Hello(),
		answers:  make(chan bool, 1),
		quit:     make(chan struct{}),
		restored: make(chan struct{}),
		mail:     newMailbox(),
		notices:  notices{},
		proofs:   newProofs(),
		state:    api.Connecting,
		since:    time.Now(),
	}
}

// errQuit ends a session that was asked to end.
var errQuit = errors.New("asked to quit")

// Run connects, tells the command how it went, and then keeps the connection until it is asked to
// end, the Peer is deleted, or ctx ends. When it returns the host is restored and every goroutine
// that it started has ended.
func (s *Session) Run(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	s.ctx, s.background = ctx, &background
	s.publish()
	background.Go(func() {
		if err := api.Serve(ctx, listener, uint32(os.Getuid()), s); err != nil {
			s.log.Error("status socket", "err", err)
		}
	})
	background.Go(func() { s.hearHelper(ctx) })
	background.Go(s.hearCommand)
	defer s.channel.Close() //nolint:errcheck // hearCommand ends with it
	err := s.connect(ctx, &background)
	if told := s.tell(err); err == nil && !told {
		err = errQuit // a command that hung up before the result wants no connection
	}
	if err == nil {
		err = s.keep(ctx)
	}
	s.close(err)
	if errors.Is(err, errQuit) {
		return nil
	}
	return err
}

// hearCommand takes answers from the command until it hangs up. Hanging up before the result is a
// Ctrl-C, and so it is in the foreground at any time.
func (s *Session) hearCommand() {
	defer close(s.answers)
	for {
		var answer report.Answer
		if err := s.channel.Receive(&answer); err != nil {
			if !s.told.Load() || s.request.Foreground {
				s.Stop()
			}
			return
		}
		select {
		case s.answers <- answer.Yes:
		default: // nobody asked
		}
	}
}

// ask puts a yes-or-no question to the person at the terminal, who may take any time.
func (s *Session) ask(ctx context.Context, question string) (bool, error) {
	if s.patience.Stop() {
		defer s.patience.Reset(s.timeout())
	}
	if err := s.channel.Send(report.Message{Question: question}); err != nil {
		return false, errQuit
	}
	select {
	case yes, ok := <-s.answers:
		if !ok {
			return false, errQuit
		}
		return yes, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// tell sends the command the result of connecting and reports whether it could be sent.
func (s *Session) tell(err error) bool {
	result := &report.Result{Failure: failure.Of(err)}
	if err == nil {
		status := s.Status()
		result.Status = &status
	}
	s.told.Store(err == nil)
	sendErr := s.channel.Send(report.Message{Result: result})
	if sendErr != nil {
		s.log.Info("nobody waits for the result", "err", sendErr)
	}
	if !s.request.Foreground {
		s.channel.Close() //nolint:errcheck // nothing more is said
	}
	return sendErr == nil
}

// keep runs the connection's events until it is over.
func (s *Session) keep(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for s.ended == nil {
		select {
		case event := <-s.mail:
			event()
		case <-tick.C:
			s.refresh(ctx)
		case <-s.quit:
			return errQuit
		case <-ctx.Done(): // the process was asked to end
			return errQuit
		}
		s.judge()
		s.publish()
	}
	return s.ended
}

// until runs events, and looks again at every tick (if that is not 0), until done reports true.
func (s *Session) until(ctx context.Context, tick time.Duration, done func() bool) error {
	var again <-chan time.Time
	if tick > 0 {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		again = ticker.C
	}
	for !done() {
		select {
		case event := <-s.mail:
			event()
			s.publish()
		case <-again:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if s.ended != nil {
			return s.ended
		}
	}
	return nil
}

// end notes that the connection is over; the first reason stays.
func (s *Session) end(err error) {
	if s.ended == nil {
		s.ended = err
	}
}

// judge derives the state from what is known.
func (s *Session) judge() {
	switch {
	case s.ended != nil:
	case !s.carrier.Connected:
		reason := "no path to the gateway"
		if s.carrier.Err != nil {
			reason = s.carrier.Err.Error()
		}
		s.setState(api.Reconnecting, reason)
	case s.mute():
		s.setState(api.Reconnecting, "the gateway does not answer WireGuard's handshake")
	default:
		again := !s.up()
		if s.setState(api.Connected, ""); again {
			s.prove()
		}
	}
}

func (s *Session) setState(state api.State, reason string) {
	if s.state != state {
		s.log.Info("state", "from", s.state, "to", state, "reason", reason)
		s.state, s.since = state, time.Now()
		s.setDNS()
	}
	s.reason = reason
}

// up reports whether the tunnel carries packets as far as is known.
func (s *Session) up() bool { return s.state == api.Connected }

// Quit implements api.Handler: it asks for the end and waits until the host is restored.
func (s *Session) Quit(ctx context.Context) error {
	s.Stop()
	select {
	case <-s.restored:
		return s.restoreErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop asks for the end and returns at once.
func (s *Session) Stop() { s.quitOnce.Do(func() { close(s.quit) }) }

// asked reports whether the end was asked for.
func (s *Session) asked() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}
