package connection

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/carrier"
)

// agentPeer is an agent as a WireGuard peer, with the carrier to it.
type agentPeer struct {
	key     wgtypes.Key
	allowed []netip.Prefix
	keeper  *carrier.Keeper
	stop    func() // ends the carrier and waits
}

// agentLink is what setAgent needs to know of an agent.
type agentLink struct {
	workload string         // whose it is
	key      wgtypes.Key    // made by the agent's process: another key is another agent
	allowed  []netip.Prefix // what belongs to it; in no other peer's prefixes
	dial     dialFunc       // opens a stream to its carrier port
	// changed and failed are called as carry calls its own.
	changed func(context.Context, carrier.State)
	failed  func(context.Context, error)
}

// setAgent makes l the one peer for its workload and carries packets to it, until dropAgent or close. An agent
// that was the workload's before keeps its carrier, whatever l.dial is. An error changes nothing.
func (t *tunnel) setAgent(ctx context.Context, l agentLink) error {
	if err := t.disjoint(l); err != nil {
		return err
	}
	endpoint, err := t.endpointOf(l.workload)
	if err != nil {
		return err
	}
	before := t.agents[l.workload]
	if before != nil && before.key == l.key && slices.Equal(before.allowed, l.allowed) {
		return nil
	}
	interval := keepalive
	peers := []wgtypes.PeerConfig{{
		PublicKey:                   l.key,
		Endpoint:                    net.UDPAddrFromAddrPort(endpoint),
		PersistentKeepaliveInterval: &interval,
		ReplaceAllowedIPs:           true,
		AllowedIPs:                  ipNets(l.allowed),
	}}
	another := before != nil && before.key != l.key
	if another {
		peers = append([]wgtypes.PeerConfig{{PublicKey: before.key, Remove: true}}, peers...)
	}
	if err := t.device.Configure(wgtypes.Config{Peers: peers}); err != nil {
		return fmt.Errorf("configure WireGuard peer for %s: %w", l.workload, err)
	}
	if before != nil && !another {
		before.allowed = slices.Clone(l.allowed)
		return nil
	}
	if another {
		before.stop()
	}
	t.agents[l.workload] = t.carryTo(ctx, endpoint, l)
	t.device.Nudge(l.key)
	return nil
}

// disjoint returns an error if what is to belong to an agent belongs to another peer: WireGuard would take it away
// from that one without a word.
func (t *tunnel) disjoint(l agentLink) error {
	if l.key == t.gateway {
		return fmt.Errorf("the agent of %s has the gateway's key", l.workload)
	}
	if p, taken := overlapping(l.allowed, t.allowed); taken {
		return fmt.Errorf("%s of the agent of %s belongs to the gateway", p, l.workload)
	}
	for workload, other := range t.agents {
		if workload == l.workload {
			continue
		}
		if other.key == l.key {
			return fmt.Errorf("the agents of %s and %s have one key", l.workload, workload)
		}
		if p, taken := overlapping(l.allowed, other.allowed); taken {
			return fmt.Errorf("%s of the agent of %s belongs to that of %s", p, l.workload, workload)
		}
	}
	return nil
}

// overlapping returns one of a that has an address in common with one of b.
func overlapping(a, b []netip.Prefix) (netip.Prefix, bool) {
	for _, p := range a {
		if slices.ContainsFunc(b, p.Overlaps) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// endpointOf returns the made-up address of a workload's agents, which is its own as long as the tunnel lives:
// those after the gateway's.
func (t *tunnel) endpointOf(workload string) (netip.AddrPort, error) {
	endpoint, known := t.endpoints[workload]
	if known {
		return endpoint, nil
	}
	last := gatewayEndpoint.Addr().As4()
	if n := int(last[3]) + len(t.endpoints) + 1; n < 255 { // TEST-NET-1 is a /24
		last[3] = byte(n)
		t.endpoints[workload] = netip.AddrPortFrom(netip.AddrFrom4(last), gatewayEndpoint.Port())
		return t.endpoints[workload], nil
	}
	return netip.AddrPort{}, fmt.Errorf("no agent for %s: this connection has gone through %d workloads, which is all it can", workload, len(t.endpoints))
}

// carryTo starts carrying packets to an agent.
func (t *tunnel) carryTo(ctx context.Context, endpoint netip.AddrPort, l agentLink) *agentPeer {
	ctx, cancel := context.WithCancel(ctx)
	device := t.device
	a := &agentPeer{key: l.key, allowed: slices.Clone(l.allowed), keeper: &carrier.Keeper{
		Bind:     t.bind,
		Endpoint: endpoint,
		Dial:     l.dial,
		Hello:    carrier.Hello{MTU: t.mtu},
		Log:      t.log,
		OnChange: func(state carrier.State) { l.changed(ctx, state) },
		OnSwitch: func() { device.Nudge(l.key) },
	}}
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.keeper.Run(ctx); err != nil && ctx.Err() == nil {
			l.failed(ctx, err)
		}
	})
	a.stop = func() { cancel(); running.Wait() }
	return a
}

// dropAgent ends the peer of a workload and its carrier, and waits for that; there need not be one.
func (t *tunnel) dropAgent(workload string) error {
	a := t.agents[workload]
	if a == nil {
		return nil
	}
	delete(t.agents, workload)
	a.stop()
	if err := t.device.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: a.key, Remove: true}}}); err != nil {
		return fmt.Errorf("remove the WireGuard peer for %s: %w", workload, err)
	}
	return nil
}

// kickAgents makes the carriers to all agents open new streams: see [carrier.Keeper.Kick].
func (t *tunnel) kickAgents() {
	for _, a := range t.agents {
		a.keeper.Kick()
	}
}

// agentHandshake is handshake for the agent of a workload.
func (t *tunnel) agentHandshake(workload string) (at time.Time, received, sent int64) {
	if a := t.agents[workload]; a != nil {
		return t.handshakeWith(a.key)
	}
	return time.Time{}, 0, 0
}
