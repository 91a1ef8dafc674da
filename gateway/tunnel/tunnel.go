package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/gateway/dataplane"
	"github.com/culvert-dev/culvert/gateway/dnsforward"
	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/wgdev"
)

// Config of a [Tunnel]. Permit and Log are required.
type Config struct {
	// MTU is the largest inner IP packet in bytes; see [dataplane.Config].
	MTU int
	// Permit says who may reach what; see [dataplane.Config].
	Permit func(peer netip.Addr, proto dataplane.Proto, dst netip.AddrPort) dataplane.Verdict
	// Nameservers are asked what Peers ask at port 53 of this pod's overlay addresses. At least one is
	// required unless WithoutDNS, with which that port is closed.
	Nameservers []netip.AddrPort
	WithoutDNS  bool
	// MaxStreams and Limits bound what Peers may hold; zero means the defaults of carrier and data plane.
	MaxStreams int
	Limits     dataplane.Limits
	Log        *slog.Logger
	// Metrics is where counters are registered; nil means nowhere.
	Metrics prometheus.Registerer
}

// Tunnel is a running packet path. Use [New]; the caller must Close it.
type Tunnel struct {
	log       *slog.Logger
	key       wgtypes.Key           // public
	forwarder *dnsforward.Forwarder // nil: without DNS
	plane     *dataplane.Plane
	device    *wgdev.Device
	carrier   *carrier.Server
}

// New puts the packet path together, from the far end to the near one, with a new key and without Peers.
func New(cfg Config) (*Tunnel, error) {
	t := &Tunnel{log: cfg.Log}
	planeConfig := dataplane.Config{MTU: cfg.MTU, Permit: cfg.Permit, Limits: cfg.Limits, Log: cfg.Log, Metrics: dataplane.NewMetrics(cfg.Metrics)}
	var err error
	if !cfg.WithoutDNS {
		if t.forwarder, err = dnsforward.New(dnsforward.Config{Upstreams: cfg.Nameservers, Log: cfg.Log, Metrics: cfg.Metrics}); err != nil {
			return nil, err
		}
		planeConfig.ServeDNS = t.forwarder.Serve
	}
	if t.plane, err = dataplane.New(planeConfig); err != nil {
		t.closeDNS()
		return nil, err
	}
	bind := carrier.NewBind()
	if t.device, err = wgdev.New(t.plane.TUN(), bind, cfg.Log); err != nil {
		err = errors.Join(err, t.plane.Close())
		t.closeDNS()
		return nil, err
	}
	if err := t.makeKey(); err != nil {
		t.Close()
		return nil, err
	}
	t.carrier = &carrier.Server{Bind: bind, Hello: carrier.Hello{MTU: cfg.MTU}, Log: cfg.Log, MaxStreams: cfg.MaxStreams}
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(carrierMetrics{t.carrier.Stats})
	}
	return t, nil
}

// makeKey gives the device a key that nobody else has.
func (t *Tunnel) makeKey() error {
	key, err := wgtypes.GeneratePrivateKey()
	if err == nil {
		err = t.device.Configure(wgtypes.Config{PrivateKey: &key})
	}
	if err != nil {
		return fmt.Errorf("set the WireGuard key: %w", err)
	}
	t.key = key.PublicKey()
	return nil
}

// PublicKey returns the public half of the key.
func (t *Tunnel) PublicKey() wgtypes.Key { return t.key }

// Device returns the WireGuard device, for [Apply].
func (t *Tunnel) Device() *wgdev.Device { return t.device }

// SetPeers tells the data plane whose packets to take; see [Plane].
func (t *Tunnel) SetPeers(list []Peer) {
	addrs := make([]dataplane.PeerAddrs, len(list))
	for i, p := range list {
		addrs[i] = p.addrs()
	}
	t.plane.SetPeers(addrs)
}

// Connected reports whether the carrier's stream behind endpoint, as of a peer's in the device's status, is
// open. Streams whose other end is silent do not stay open.
func (t *Tunnel) Connected(endpoint netip.AddrPort) bool { return t.carrier.Open(endpoint) }

// Run serves the streams that come by listeners until ctx ends, which is no error, or something fails. It
// closes the listeners. From the end of ctx on nothing more is answered.
func (t *Tunnel) Run(ctx context.Context, listeners ...net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error { return t.carrier.Serve(ctx, l) })
	}
	group.Go(func() error {
		select {
		case <-ctx.Done():
			t.stopDNS()
			return nil
		case <-t.device.Done():
			return t.Live()
		}
	})
	return group.Wait()
}

// Live returns an error when the WireGuard device has ended by itself.
func (t *Tunnel) Live() error {
	select {
	case <-t.device.Done():
		return errors.New("the WireGuard device has ended")
	default:
		return nil
	}
}

// Close ends the packet path and waits for it. Run must have returned.
func (t *Tunnel) Close() {
	t.stopDNS()
	t.device.Close() // and with it the TUN and the bind
	if err := t.plane.Close(); err != nil {
		t.log.Warn("close the data plane", "err", err)
	}
	t.closeDNS()
}

func (t *Tunnel) stopDNS() {
	if t.forwarder != nil {
		t.forwarder.Stop()
	}
}

func (t *Tunnel) closeDNS() {
	if t.forwarder != nil {
		t.forwarder.Close()
	}
}
