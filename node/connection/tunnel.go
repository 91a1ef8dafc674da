package connection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/wgdev"
	"github.com/culvert-dev/culvert/node/reach"
	"github.com/culvert-dev/culvert/node/vnat"
)

// gatewayEndpoint is the made-up address under which WireGuard knows the gateway; the carrier, not
// an address, decides where its packets go. TEST-NET-1 (RFC 5737) is never a real host.
var gatewayEndpoint = netip.MustParseAddrPort("192.0.2.1:51820")

// keepalive keeps the session's keys fresh, so that the first packet after an idle hour need not
// wait for a handshake.
const keepalive = 25 * time.Second

// tunnel is the WireGuard device and the carrier below it. Its owner is the session's goroutine.
type tunnel struct {
	log    *slog.Logger
	bind   *carrier.Bind
	device *wgdev.Device
	key    wgtypes.Key
	mtu    int

	gateway wgtypes.Key    // the peer configured now; zero before the first
	allowed []netip.Prefix // its AllowedIPs
	tap     *reach.Tap     // around the TUN, for probes
	nat     *vnat.Device   // around that, for virtual addresses out of a pool

	keeper     *carrier.Keeper
	stopKeeper context.CancelFunc
	keepers    sync.WaitGroup

	agents    map[string]*agentPeer     // further peers, by workload
	endpoints map[string]netip.AddrPort // of workloads that had an agent ever
}

// newKey makes the workstation's key pair; it lives in memory only.
func newKey() (wgtypes.Key, error) {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return key, fmt.Errorf("make a WireGuard key: %w", err)
	}
	return key, nil
}

// newTunnel runs WireGuard on the TUN interface that the helper opened. It takes over fd.
func newTunnel(fd int, key wgtypes.Key, mtu int, log *slog.Logger) (*tunnel, error) {
	dev, name, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("use the TUN interface: %w", err), unix.Close(fd))
	}
	return newTunnelOn(dev, name, key, mtu, log)
}

// newTunnelOn is newTunnel with the interface open. It takes over dev.
func newTunnelOn(dev tun.Device, name string, key wgtypes.Key, mtu int, log *slog.Logger) (t *tunnel, err error) {
	tap := reach.NewTap(dev)
	t = &tunnel{log: log, bind: carrier.NewBind(), key: key, mtu: mtu, tap: tap, nat: vnat.New(tap),
		agents: map[string]*agentPeer{}, endpoints: map[string]netip.AddrPort{}}
	t.device, err = wgdev.New(t.nat, t.bind, log)
	if err != nil {
		return nil, fmt.Errorf("start WireGuard on %s: %w", name, err)
	}
	if err := t.device.Configure(wgtypes.Config{PrivateKey: &key, ReplacePeers: true}); err != nil {
		t.device.Close()
		return nil, fmt.Errorf("configure WireGuard on %s: %w", name, err)
	}
	return t, nil
}

// admit lets further prefixes belong to the gateway, beside those that do.
func (t *tunnel) admit(prefixes []netip.Prefix) error {
	further := slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return slices.Contains(t.allowed, p) })
	if len(further) == 0 {
		return nil
	}
	err := t.device.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: t.gateway, UpdateOnly: true, AllowedIPs: ipNets(further)}}})
	if err != nil {
		return fmt.Errorf("configure WireGuard peer: %w", err)
	}
	t.allowed = slices.Concat(t.allowed, further)
	return nil
}

// ipNets converts at the edge.
func ipNets(prefixes []netip.Prefix) []net.IPNet {
	out := make([]net.IPNet, len(prefixes))
	for i, p := range prefixes {
		out[i] = net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	}
	return out
}

// setPeer makes gateway the one peer and allowed the prefixes that belong to it.
func (t *tunnel) setPeer(gateway wgtypes.Key, allowed []netip.Prefix) error {
	if t.gateway == gateway && slices.Equal(t.allowed, allowed) {
		return nil // replacing would lose the packets of a moment
	}
	interval := keepalive
	peers := []wgtypes.PeerConfig{{
		PublicKey:                   gateway,
		Endpoint:                    net.UDPAddrFromAddrPort(gatewayEndpoint),
		PersistentKeepaliveInterval: &interval,
		ReplaceAllowedIPs:           true,
		AllowedIPs:                  ipNets(allowed),
	}}
	if t.gateway != (wgtypes.Key{}) && t.gateway != gateway {
		peers = append([]wgtypes.PeerConfig{{PublicKey: t.gateway, Remove: true}}, peers...)
	}
	if err := t.device.Configure(wgtypes.Config{Peers: peers}); err != nil {
		return fmt.Errorf("configure WireGuard peer: %w", err)
	}
	t.allowed = slices.Clone(allowed)
	if t.gateway != gateway {
		t.gateway = gateway
		t.device.Nudge(gateway)
	}
	return nil
}

// dialFunc opens a stream to a gateway's carrier port.
type dialFunc func(ctx context.Context) (io.ReadWriteCloser, error)

// carry starts carrying packets over streams that dial opens, in place of those before. changed and
// failed are called from the carrier's goroutines, with the context that ends this carrying; failed
// only for an error that ends it for good.
func (t *tunnel) carry(ctx context.Context, dial dialFunc, changed func(context.Context, carrier.State), failed func(context.Context, error)) {
	t.stopCarrying()
	ctx, t.stopKeeper = context.WithCancel(ctx)
	key, device := t.gateway, t.device
	keeper := &carrier.Keeper{
		Bind:     t.bind,
		Endpoint: gatewayEndpoint,
		Dial:     dial,
		Hello:    carrier.Hello{MTU: t.mtu},
		Log:      t.log,
		OnChange: func(state carrier.State) { changed(ctx, state) },
		OnSwitch: func() { device.Nudge(key) },
	}
	t.keeper = keeper
	t.keepers.Go(func() {
		if err := keeper.Run(ctx); err != nil && ctx.Err() == nil {
			failed(ctx, err)
		}
	})
}

func (t *tunnel) stopCarrying() {
	if t.stopKeeper != nil {
		t.stopKeeper()
		t.keepers.Wait()
		t.stopKeeper, t.keeper = nil, nil
	}
}

// handshake returns when the latest handshake with the gateway was and the bytes since the start.
func (t *tunnel) handshake() (at time.Time, received, sent int64) {
	return t.handshakeWith(t.gateway)
}

// handshakeWith is handshake for any peer.
func (t *tunnel) handshakeWith(key wgtypes.Key) (at time.Time, received, sent int64) {
	status, err := t.device.Status()
	if err != nil {
		return time.Time{}, 0, 0
	}
	for _, peer := range status.Peers {
		if peer.PublicKey == key {
			return peer.LastHandshakeTime, peer.ReceiveBytes, peer.TransmitBytes
		}
	}
	return time.Time{}, 0, 0
}

// close ends the carriers and the device and waits for all.
func (t *tunnel) close() {
	t.stopCarrying()
	for _, a := range t.agents {
		a.stop()
	}
	t.device.Close()
}
