package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"k8s.io/client-go/dynamic"

	"github.com/culvert-dev/culvert/gateway/dnsforward"
	"github.com/culvert-dev/culvert/gateway/egress"
	"github.com/culvert-dev/culvert/gateway/health"
	"github.com/culvert-dev/culvert/gateway/peers"
	"github.com/culvert-dev/culvert/gateway/policystatus"
	"github.com/culvert-dev/culvert/gateway/subnets"
	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// gateway is the parts of a running gateway.
type gateway struct {
	o        options
	log      *slog.Logger
	client   dynamic.Interface
	own      []netip.Addr
	resolver dnsforward.Resolver
	metrics  *prometheus.Registry

	border    *border
	tunnel    *tunnel.Tunnel
	peers     *peers.Controller
	publisher *policystatus.Publisher

	subnetsKnown chan struct{} // closed once they are
}

// serve runs a gateway until ctx ends, which is no error.
func serve(ctx context.Context, o options, log *slog.Logger) error {
	limitMemory(log, 0)
	client, err := newClient(o)
	if err != nil {
		return err
	}
	return serveWith(ctx, o, log, client)
}

// serveWith is serve with a client.
func serveWith(ctx context.Context, o options, log *slog.Logger, client dynamic.Interface) error {
	g := &gateway{o: o, log: log, client: client, metrics: prometheus.NewRegistry(), subnetsKnown: make(chan struct{})}
	g.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := g.facts(); err != nil {
		return err
	}
	carrierListener, err := net.Listen("tcp", o.carrierListen)
	if err != nil {
		return fmt.Errorf("listen for port-forwards: %w", err)
	}
	defer carrierListener.Close()
	healthListener, err := net.Listen("tcp", o.healthListen)
	if err != nil {
		return fmt.Errorf("listen for health checks: %w", err)
	}
	defer healthListener.Close()
	if err := g.build(); err != nil {
		return err
	}
	defer g.tunnel.Close()
	log.Info("the gateway starts", "version", version.Version, "pod", o.podName, "namespace", o.namespace,
		"addresses", g.own, "nameservers", g.resolver.Servers, "egressAllow", o.egressAllow)
	return g.run(ctx, carrierListener, healthListener)
}

// facts reads what the pod knows of itself.
func (g *gateway) facts() (err error) {
	if g.own, err = ownAddrs(g.o.podAddrs); err != nil {
		return err
	}
	if g.resolver, err = dnsforward.ReadResolver(g.o.resolvConf, g.own); err != nil {
		return err
	}
	if len(g.o.nameservers) > 0 {
		g.resolver.Servers = g.o.nameservers
	}
	return nil
}

// build puts the packet path together and what tells it whom to serve.
func (g *gateway) build() (err error) {
	g.border = &border{input: egress.Input{Own: g.own, Allow: g.o.egressAllow}}
	g.border.setSubnets(subnets.Result{})
	g.tunnel, err = tunnel.New(tunnel.Config{MTU: g.o.mtu, Permit: g.border.permit, Nameservers: g.resolver.Servers,
		MaxStreams: maxStreams(g.o.maxPeers), Log: g.log, Metrics: g.metrics})
	if err != nil {
		return err
	}
	g.border.plane = g.tunnel
	g.control(g.tunnel.PublicKey())
	return nil
}

// maxStreams leaves every Peer a second stream beside the first, and some that are being given up.
func maxStreams(peers int) int {
	if peers == 0 {
		return 1 << 16
	}
	return 2*peers + 64
}

// control builds what talks to the API server.
func (g *gateway) control(key wgtypes.Key) {
	g.peers = peers.New(peers.Config{
		Client: g.client, Namespace: g.o.namespace, WireGuard: g.tunnel.Device(), Plane: g.border, Key: key, MaxPeers: g.o.maxPeers,
		Gateway: v1alpha1.PeerGateway{Pod: g.o.podName, PodUID: g.o.podUID, PublicKey: key.String(), Version: version.Version,
			CarrierPort: int32(g.o.carrierPort)},
		Log: g.log, Metrics: g.metrics,
	})
	g.publisher = policystatus.New(policystatus.Config{Client: g.client, Namespace: g.o.namespace, Name: g.o.policy, Log: g.log})
}

// run serves until ctx ends or a part fails, and waits for all parts.
func (g *gateway) run(ctx context.Context, carrierListener, healthListener net.Listener) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	part := func(run func(context.Context) error) {
		group.Go(func() {
			if err := run(ctx); err != nil {
				stop(err)
			}
		})
	}
	pages := &health.Server{Live: g.tunnel.Live, Ready: g.ready, Metrics: g.metrics, Log: g.log}
	part(func(ctx context.Context) error { return pages.Serve(ctx, healthListener) })
	part(func(ctx context.Context) error { return g.tunnel.Run(ctx, carrierListener) })
	part(func(ctx context.Context) error { g.servePeers(ctx); return nil })
	part(func(ctx context.Context) error { g.publisher.Run(ctx); return nil })
	part(func(ctx context.Context) error { g.discover(ctx); return nil })
	<-ctx.Done()
	begin := time.Now()
	group.Wait()
	g.log.Debug("all parts have stopped", "took", time.Since(begin))
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// servePeers serves Peers until ctx ends, once it is known what they may reach and what their overlays and
// twins must not overlap: a workstation that is served uses the tunnel at once.
func (g *gateway) servePeers(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-g.subnetsKnown:
		g.peers.Run(ctx)
	}
}

// discover learns the subnets and tells them to everybody who needs them, until ctx ends.
func (g *gateway) discover(ctx context.Context) {
	uid := clusterUID(ctx, g.client, g.o.clusterScope, g.o.namespace, g.log)
	domain := g.o.clusterDomain
	if domain == "" {
		domain = g.resolver.ClusterDomain()
	}
	pod := g.o.podAddrs
	if len(pod) == 0 {
		pod = g.own
	}
	var once sync.Once
	subnets.New(subnets.Config{
		Client: g.client, Namespace: g.o.namespace, ClusterScope: g.o.clusterScope,
		Services: g.o.services, Pods: g.o.pods, Own: pod, Log: g.log,
		OnChange: func(r subnets.Result) {
			g.border.setSubnets(r)
			g.peers.SetReserved(reserved(r, g.own, g.o.egressAllow))
			g.publisher.Publish(policystatus.Facts{Subnets: r, ClusterUID: uid, ClusterDomain: domain})
			once.Do(func() { close(g.subnetsKnown) })
		},
	}).Run(ctx)
}

// ready returns nil once a node that connects finds everything it needs.
func (g *gateway) ready() error {
	select {
	case <-g.subnetsKnown:
	default:
		return errors.New("not ready: the cluster's subnets are not known yet")
	}
	switch {
	case !g.peers.Ready():
		return errors.New("not ready: the Peers are not known yet")
	case !g.publisher.Ready():
		return errors.New("not ready: the Policy's status is not written yet")
	}
	return g.tunnel.Live()
}
