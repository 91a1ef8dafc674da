package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Plane is the userspace data plane. All methods may be called from any goroutine.
type Plane struct {
	cfg     Config
	metrics *Metrics
	out     *queue
	stack   *stack.Stack
	link    *link
	device  *device
	dns     *localPort // nil without Config.ServeDNS
	own     map[netip.Addr]bool
	pings   pingSupport

	peers   atomic.Pointer[peerTable]
	setting sync.Mutex // held by SetPeers and Close, one at a time

	flows     atomic.Int64 // all flows of all Peers
	fragments atomic.Uint32
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup // every goroutine of the plane and its flows
	closed    sync.Once
}

// New returns a running plane without Peers. The caller must Close it.
func New(cfg Config) (*Plane, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.Limits.Flows = boundFlows(cfg.Limits.Flows, cfg.Log)
	p := &Plane{cfg: cfg, metrics: cfg.Metrics, out: newQueue(), own: ownAddresses(cfg.Log)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.peers.Store(&peerTable{})
	p.link = &link{mtu: uint32(cfg.MTU), out: p.out, metrics: cfg.Metrics}
	if p.stack, err = newStack(p.link, p.accept); err != nil {
		p.cancel()
		return nil, fmt.Errorf("data plane: %w", err)
	}
	p.device = newDevice(p)
	if cfg.ServeDNS != nil {
		p.dns = newLocalPort(p)
		p.wg.Go(func() { cfg.ServeDNS(p.dns.streams, p.dns.datagrams) })
	}
	p.wg.Go(p.sweep)
	return p, nil
}

// TUN returns the device to be given to WireGuard. Closing it closes the plane.
func (p *Plane) TUN() tun.Device { return p.device }

// SetPeers makes wanted the Peers that the plane serves. Flows of Peers that are not in it, or whose
// ID or addresses changed, are cut before it returns, and where only twins changed those to destinations
// that now stand for something else. A Peer whose addresses or twins are wrong, or whose addresses are taken
// by one earlier in the list, is logged and left out.
func (p *Plane) SetPeers(wanted []PeerAddrs) {
	p.setting.Lock()
	defer p.setting.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	next, moved, gone := p.peers.Load().with(p.ctx, wanted, func(a PeerAddrs, err error) {
		p.cfg.Log.Warn("data plane: peer left out", "peer", a.ID, "node", a.Node, "err", err)
	})
	p.peers.Store(next)
	for pr, m := range moved {
		pr.translate(m)
	}
	for _, old := range gone {
		old.remove()
	}
}

// Close ends all flows, resetting TCP connections on both sides, and waits for every goroutine of the
// plane. It returns nil; a second call waits for nothing and does nothing.
func (p *Plane) Close() error {
	p.closed.Do(func() {
		p.setting.Lock()
		defer p.setting.Unlock()
		p.cancel()
		p.out.drain()
		for _, old := range p.peers.Load().peers {
			old.remove()
		}
		if p.dns != nil {
			p.dns.close()
		}
		p.wait()
		p.stack.Close()
		p.stack.Wait()
		p.peers.Store(&peerTable{})
		p.out.close()
		p.device.ended()
	})
	return nil
}

// wait waits for all goroutines. A handshake that entered the stack while its flow was being aborted
// has no endpoint yet to abort, so those that appear meanwhile are aborted too.
func (p *Plane) wait() {
	done := make(chan struct{})
	go func() {
		p.wg.Wait()
		close(done)
	}()
	for {
		for _, ep := range p.stack.RegisteredEndpoints() {
			ep.Abort()
		}
		select {
		case <-done:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// acquire takes one of the flows the process may have; false means there is none left.
func (p *Plane) acquire(proto Proto) bool {
	if p.flows.Add(1) > int64(p.cfg.Limits.Flows) {
		p.flows.Add(-1)
		return false
	}
	p.metrics.current(proto, 1)
	return true
}

func (p *Plane) release(proto Proto) {
	p.flows.Add(-1)
	p.metrics.current(proto, -1)
}
