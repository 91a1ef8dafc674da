package peers

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/culvert-dev/culvert/gateway/mirror"
	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Resource is where Peers are found in the API.
var Resource = schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: v1alpha1.PeerResource}

// Config of a [Controller]. Fields are required unless they say otherwise.
type Config struct {
	Client    dynamic.Interface
	Namespace string
	WireGuard tunnel.WireGuard
	Plane     tunnel.Plane
	// Gateway is what this pod says of itself in status, without DNS; its PublicKey must be Key.
	Gateway v1alpha1.PeerGateway
	Key     wgtypes.Key
	// MaxPeers are served at most; 0 means no limit.
	MaxPeers int
	// Log gets one line per change; nil discards them.
	Log *slog.Logger
	// Metrics is where counters are registered; nil means nowhere.
	Metrics prometheus.Registerer
}

// resync is how often the WireGuard counters are read and everything is compared again, whether or
// not something has changed.
const resync = 15 * time.Second

// Controller serves the Peers of a namespace. Use [New], then [Controller.Run] once.
type Controller struct {
	cfg      Config
	log      *slog.Logger
	mirror   *mirror.Mirror[v1alpha1.Peer]
	metrics  *metrics
	writer   *writer
	started  time.Time
	reserved chan []netip.Prefix
	ready    atomic.Bool

	// What follows belongs to the goroutine of Run.
	inUse    []netip.Prefix // the latest value of reserved
	admitted []tunnel.Peer  // whom the data plane admits now
	plan     Plan           // the latest
	ledger   ledger
	dirty    bool      // something changed since plan was made
	nextPlan time.Time // not before
}

// New returns a Controller that does nothing until Run.
func New(cfg Config) *Controller {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{cfg: cfg, log: cfg.Log, ledger: ledger{}, reserved: make(chan []netip.Prefix, 1), metrics: newMetrics(cfg.Metrics)}
	c.mirror = mirror.New(mirror.Source{Client: cfg.Client, Resource: Resource, Namespace: cfg.Namespace,
		What: "Peers in namespace " + cfg.Namespace, Log: cfg.Log}, decode)
	c.writer = newWriter(cfg.Client.Resource(Resource).Namespace(cfg.Namespace), cfg.Log, c.metrics)
	return c
}

// decode makes a Peer of what the API sent.
func decode(u *unstructured.Unstructured) (v1alpha1.Peer, error) {
	var p v1alpha1.Peer
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p)
	p.ManagedFields = nil
	return p, err
}

// SetReserved tells which prefixes no overlay and no twin may overlap, in place of those told before. It may be
// called from any goroutine, also before Run.
func (c *Controller) SetReserved(prefixes []netip.Prefix) {
	for {
		select {
		case c.reserved <- prefixes:
			return
		case <-c.reserved: // older news that nobody has read yet
		}
	}
}

// Ready reports whether all Peers are known and those to be served are.
func (c *Controller) Ready() bool { return c.ready.Load() }

// Run serves Peers until ctx ends, then tells them that this gateway is gone, for which it takes
// [FarewellTimeout] at most. The device and the data plane stay as they are.
func (c *Controller) Run(ctx context.Context) {
	c.started = time.Now()
	watching := make(chan struct{})
	go func() { defer close(watching); c.mirror.Run(ctx) }()
	c.loop(ctx)
	c.writer.wait()
	c.farewell()
	<-watching
}

// loop owns the state until ctx ends.
func (c *Controller) loop(ctx context.Context) {
	tick := time.NewTicker(resync)
	defer tick.Stop()
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.mirror.Changes():
			c.dirty = true
		case c.inUse = <-c.reserved:
			c.dirty = true
		case <-tick.C:
			c.readTraffic()
			c.dirty = true
		case r := <-c.writer.results:
			c.writer.settle(r)
		case <-wake.C:
		}
		if c.dirty && !time.Now().Before(c.nextPlan) {
			c.reconcile()
		}
		wake.Reset(time.Until(c.nextStep(c.writer.dispatch(ctx))))
	}
}

// nextStep returns when the loop must go round although nothing happens: at due, and for a plan that
// is put off.
func (c *Controller) nextStep(due time.Time) time.Time {
	if c.dirty && c.nextPlan.Before(due) {
		return c.nextPlan
	}
	return due
}

// reconcile makes a new plan and carries it out. A burst of changes (a restart with many Peers) makes
// a burst of plans; leaving three times the pause that one took keeps most of the time for packets,
// while a lone change is served at once.
func (c *Controller) reconcile() {
	synced, _ := c.mirror.State()
	if !synced {
		c.dirty = false // the mirror tells when it is
		return
	}
	begin := time.Now()
	items := c.mirror.Items()
	c.plan = NewPlan(c.input(items, begin))
	admitted, err := tunnel.Apply(c.cfg.WireGuard, c.cfg.Plane, c.admitted, c.plan.Served)
	tunnel.LogChange(c.log, c.admitted, admitted)
	c.admitted, c.dirty = admitted, err != nil
	c.nextPlan = time.Now().Add(3 * time.Since(begin))
	c.metrics.planned(c.plan)
	if err != nil { // nobody is told that it is served before it is
		c.log.Error("cannot serve the Peers, trying again", "err", err)
		c.nextPlan = time.Now().Add(time.Second)
		return
	}
	c.writer.want(c.plan, items)
	c.ready.Store(true)
}

// input gathers what a plan follows from.
func (c *Controller) input(items map[types.NamespacedName]v1alpha1.Peer, now time.Time) Input {
	in := Input{Gateway: c.cfg.Gateway, Key: c.cfg.Key, Reserved: c.inUse, Traffic: c.ledger.totals(),
		MaxPeers: c.cfg.MaxPeers, Started: c.started, Now: now, Peers: make([]v1alpha1.Peer, 0, len(items))}
	for _, p := range items {
		in.Peers = append(in.Peers, c.writer.believed(p))
	}
	return in
}

// readTraffic brings the ledger up to date with the device.
func (c *Controller) readTraffic() {
	device, err := c.cfg.WireGuard.Status()
	if err != nil {
		c.log.Error("cannot read the WireGuard counters", "err", err)
		return
	}
	now := time.Now()
	c.ledger.read(c.input(c.mirror.Items(), now).Peers, c.admitted, device.Peers, now)
}
