package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/culvert-dev/culvert/gateway/dataplane"
	"github.com/culvert-dev/culvert/gateway/dnsforward"
	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/internal/enrol"
)

// ErrIdle is how Run ends when nobody needs the agent.
var ErrIdle = errors.New("no node has spoken")

// Defaults of a [Config].
const (
	CarrierPort = 7841
	ControlPort = 7842
	Idle        = 10 * time.Minute
)

// Config of an [Agent]. The zero value of each field means its default.
type Config struct {
	CarrierPort, ControlPort uint16 // on the loopback
	// Idle is the time without a sign of life of anybody after which the agent leaves. A node of whom nothing was
	// heard for that long, ten minutes at most, is let go before.
	Idle        time.Duration
	MTU         int              // largest inner IP packet in bytes; 0: 1420
	ResolvConf  string           // the pod's; "": /etc/resolv.conf
	Nameservers []netip.AddrPort // empty: those of ResolvConf
	PodUID      string           // told to nodes; may be unknown
	MaxNodes    int              // enrolled at most; 0: 64
	MaxMemory   uint64           // bytes at which the agent leaves; 0: any
	Log         *slog.Logger     // one line per change; nil discards them

	// Now tells the time; nil means time.Now. Check is how often signs of life are looked for; 0 means a
	// sixtieth of Idle, a second at least.
	Now   func() time.Time
	Check time.Duration
}

func (c Config) withDefaults() Config {
	setDefault(&c.CarrierPort, CarrierPort)
	setDefault(&c.ControlPort, ControlPort)
	setDefault(&c.Idle, Idle)
	setDefault(&c.MTU, 1420)
	setDefault(&c.ResolvConf, "/etc/resolv.conf")
	setDefault(&c.MaxNodes, 64)
	setDefault(&c.Check, max(c.Idle/60, time.Second))
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// setDefault gives *v the value d when it is zero.
func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// limits are what one node, and all, may hold: an agent lives on the memory of the pod it is a guest in. 2,000 TCP
// connections that all send at once took 133 MiB.
var limits = dataplane.Limits{FlowsPerPeer: 4096, DialsPerPeer: 1024, EchoPerPeer: 64, Flows: 8192}

// maxStreams leaves every node a second stream beside the first.
const maxStreams = 256

// Agent serves the nodes enrolled. Use [New], then [Agent.Run] once.
type Agent struct {
	cfg              Config
	log              *slog.Logger
	border           border
	tunnel           *tunnel.Tunnel
	carrier, control []net.Listener
	broken           chan error // why the agent cannot go on, at most one

	mu       sync.Mutex // guards what follows, and that device and plane follow it
	nodes    nodes
	admitted []tunnel.Peer // whom the data plane admits
	last     time.Time     // sign of life of anybody
	leaving  bool          // nobody is enrolled any more
}

// New listens and puts an agent together. The caller must Run it.
func New(cfg Config) (_ *Agent, err error) {
	a := &Agent{cfg: cfg.withDefaults(), broken: make(chan error, 1)}
	a.log, a.last = a.cfg.Log, a.cfg.Now()
	if a.carrier, err = listen("port-forwards of the carrier", a.cfg.CarrierPort); err != nil {
		return nil, err
	}
	if a.control, err = listen("enrolments", a.cfg.ControlPort); err != nil {
		closeAll(a.carrier)
		return nil, err
	}
	for _, port := range []uint16{a.cfg.CarrierPort, a.cfg.ControlPort} {
		for _, addr := range loopback {
			a.border.own = append(a.border.own, netip.AddrPortFrom(addr, port))
		}
	}
	servers := a.nameservers()
	a.tunnel, err = tunnel.New(tunnel.Config{MTU: a.cfg.MTU, Permit: a.border.permit, Nameservers: servers, WithoutDNS: len(servers) == 0,
		MaxStreams: maxStreams, Limits: limits, Log: a.log})
	if err != nil {
		closeAll(a.carrier)
		closeAll(a.control)
		return nil, err
	}
	a.log.Info("the agent starts", "carrier", a.cfg.CarrierPort, "control", a.cfg.ControlPort, "nameservers", servers, "idle", a.cfg.Idle)
	return a, nil
}

// nameservers returns those of the pod. Without any an agent does without DNS: most of what it is for needs none.
func (a *Agent) nameservers() []netip.AddrPort {
	if len(a.cfg.Nameservers) > 0 {
		return a.cfg.Nameservers
	}
	r, err := dnsforward.ReadResolver(a.cfg.ResolvConf, nil)
	if err != nil {
		a.log.Warn("names are not answered", "err", err)
	} else if len(r.Servers) == 0 {
		a.log.Warn("names are not answered: no nameserver in " + a.cfg.ResolvConf)
	}
	return r.Servers
}

// Run serves until ctx ends, which is no error, until nobody needs the agent, which is ErrIdle, or until a part
// fails. It waits for all parts and closes everything.
func (a *Agent) Run(ctx context.Context) error {
	defer a.tunnel.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.tunnel.Run(ctx, a.carrier...) })
	server := &enrol.Server{Handle: a.enrol, Log: a.log}
	for _, l := range a.control {
		group.Go(func() error { return server.Serve(ctx, l) })
	}
	group.Go(func() error { return a.watch(ctx) })
	return group.Wait()
}

// watch looks for signs of life until ctx ends, or there were none for too long, or the agent is broken.
func (a *Agent) watch(ctx context.Context) error {
	tick := time.NewTicker(a.cfg.Check)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-a.broken:
			return err
		case <-tick.C:
			if err := a.look(); err != nil {
				return err
			}
		}
	}
}

// look brings the nodes' signs of life up to date, lets go of those of whom nothing was heard for too long, and
// returns ErrIdle when that is everybody. It looks after the memory, too.
func (a *Agent) look() error {
	if err := checkMemory(a.cfg.MaxMemory); err != nil {
		return err
	}
	device, err := a.tunnel.Device().Status()
	if err != nil {
		return fmt.Errorf("read the WireGuard peers: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	a.nodes = a.nodes.heard(device.Peers, a.tunnel.Connected, now)
	for _, n := range a.nodes {
		if n.seen.After(a.last) {
			a.last = n.seen
		}
	}
	if live := a.nodes.since(now.Add(-min(a.cfg.Idle, Idle))); len(live) < len(a.nodes) {
		if err := a.serveLocked(live); err != nil {
			return err
		}
	}
	if len(a.nodes) == 0 && now.Sub(a.last) >= a.cfg.Idle {
		a.leaving = true
		return fmt.Errorf("%w for %v", ErrIdle, a.cfg.Idle)
	}
	return nil
}

// enrol answers one request.
func (a *Agent) enrol(r enrol.Request) (enrol.Answer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaving {
		return enrol.Answer{}, &enrol.Refusal{Reason: enrol.Stopping, Message: "this agent is leaving: nobody has needed it"}
	}
	now := a.cfg.Now()
	next, err := a.nodes.with(r, a.tunnel.PublicKey(), a.cfg.MaxNodes, now)
	if err != nil {
		a.log.Warn("a node is refused", "connection", r.Connection, "err", err)
		return enrol.Answer{}, err
	}
	a.last = now
	if err := a.serveLocked(next); err != nil {
		a.leaving = true
		a.broken <- err // once, as nobody is enrolled any more
		return enrol.Answer{}, err
	}
	return enrol.Answer{PublicKey: a.tunnel.PublicKey(), PodUID: a.cfg.PodUID}, nil
}

// serveLocked makes next the nodes served. Nobody goes where it may not for a moment: what a node newly reaches it
// may reach before its flows are let in, and what it no longer does is closed before they are ended.
func (a *Agent) serveLocked(next nodes) error {
	a.border.set(next)
	admitted, err := tunnel.Apply(a.tunnel.Device(), a.tunnel, a.admitted, next.peers())
	tunnel.LogChange(a.log, a.admitted, admitted)
	a.admitted, a.nodes = admitted, next
	return err
}
