package wgdev_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/carrier/streamtest"
	"github.com/culvert-dev/culvert/internal/wgdev"
	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

var (
	nodeAddr    = netip.MustParseAddr("245.1.0.2")
	gatewayAddr = netip.MustParseAddr("245.1.0.3")
	endpoint    = netip.MustParseAddrPort("192.0.2.1:1")
)

// side is one end of a tunnel: a device over a Bind, and its TUN in the test's hands.
type side struct {
	bind *carrier.Bind
	dev  *wgdev.Device
	tun  *tuntest.ChannelTUN
	key  wgtypes.Key
}

func newSide(t testing.TB) *side {
	t.Helper()
	s := &side{bind: carrier.NewBind(), tun: tuntest.NewChannelTUN(), key: key(t)}
	var err error
	if s.dev, err = wgdev.New(s.tun.TUN(), s.bind, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.dev.Configure(wgtypes.Config{PrivateKey: &s.key}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *side) peer(t testing.TB, other *side, addr netip.Addr, at *net.UDPAddr) {
	t.Helper()
	err := s.dev.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{
		PublicKey: other.key.PublicKey(), Endpoint: at, AllowedIPs: prefixes(netip.PrefixFrom(addr, 32).String()),
	}}})
	if err != nil {
		t.Fatal(err)
	}
}

// handshake returns when the session with the only peer was made.
func (s *side) handshake(t testing.TB) time.Time {
	t.Helper()
	status, err := s.dev.Status()
	if err != nil || len(status.Peers) != 1 {
		t.Fatalf("status: %d peers, %v", len(status.Peers), err)
	}
	return status.Peers[0].LastHandshakeTime
}

// kept holds peers of ended tunnels; see Device.Peer.
var kept []any

// tunnel is a node and a gateway whose host answers every packet, with a network between.
type tunnel struct {
	t             testing.TB
	node, gateway *side
	keeper        *carrier.Keeper
	pings         int
}

// newTunnel starts everything; the function it returns stops it and waits.
func newTunnel(t testing.TB, l net.Listener, dial func(context.Context) (io.ReadWriteCloser, error)) (*tunnel, func()) {
	tn := &tunnel{t: t, node: newSide(t), gateway: newSide(t)}
	tn.node.peer(t, tn.gateway, gatewayAddr, net.UDPAddrFromAddrPort(endpoint))
	tn.gateway.peer(t, tn.node, nodeAddr, nil)
	kept = append(kept, tn.node.dev.Peer(tn.gateway.key.PublicKey()), tn.gateway.dev.Peer(tn.node.key.PublicKey()))
	tn.keeper = &carrier.Keeper{Bind: tn.node.bind, Endpoint: endpoint, Dial: dial,
		OnSwitch: func() { tn.node.dev.Nudge(tn.gateway.key.PublicKey()) }}
	server := &carrier.Server{Bind: tn.gateway.bind}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := tn.keeper.Run(ctx); err != nil {
			t.Errorf("keeper: %v", err)
		}
	})
	tasks.Go(func() {
		if err := server.Serve(ctx, l); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	tasks.Go(func() { // the gateway's host: every ping comes back
		for {
			select {
			case p := <-tn.gateway.tun.Inbound:
				copy(p[12:16], gatewayAddr.AsSlice())
				copy(p[16:20], nodeAddr.AsSlice())
				select {
				case tn.gateway.tun.Outbound <- p:
				case <-ctx.Done():
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return tn, func() {
		cancel()
		tn.node.dev.Close()
		tn.gateway.dev.Close()
		tasks.Wait()
	}
}

// ping sends a packet through the tunnel and reports whether its answer came within d.
func (tn *tunnel) ping(d time.Duration) bool {
	tn.pings++
	out := tuntest.Ping(gatewayAddr, nodeAddr)
	mark := byte(tn.pings)
	out[len(out)-1] = mark
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	select {
	case tn.node.tun.Outbound <- out:
	case <-timeout.C:
		return false
	}
	for {
		select {
		case p := <-tn.node.tun.Inbound:
			if p[len(p)-1] == mark {
				return true
			}
		case <-timeout.C:
			return false
		}
	}
}

// passes pings every 200 ms until one is answered and returns how long that took.
func (tn *tunnel) passes(within time.Duration) time.Duration {
	tn.t.Helper()
	start := time.Now()
	for time.Since(start) < within {
		if tn.ping(200 * time.Millisecond) {
			return time.Since(start)
		}
	}
	tn.t.Fatalf("no ping was answered within %v; keeper %+v", within, tn.keeper.State())
	return 0
}

// TestSessionSurvives switches streams in every way there is. The WireGuard session must outlive them
// all: one handshake, long ago.
func TestSessionSurvives(t *testing.T) {
	for _, row := range []struct {
		name  string
		what  func(tn *tunnel, n *streamtest.Network)
		back  time.Duration // within which pings are answered again
		keeps bool          // no switch is expected
		fresh bool          // WireGuard may make a new session: it does after 15 s without answers
	}{
		{"nothing happens", func(*tunnel, *streamtest.Network) {}, 10 * time.Millisecond, true, false},
		{"kicked", func(tn *tunnel, _ *streamtest.Network) { tn.keeper.Kick() }, 10 * time.Millisecond, false, false},
		{"cut within a frame", func(_ *tunnel, n *streamtest.Network) { n.Conns()[0].Write([]byte{5, 5, 2, 4}); n.Conns()[0].Close() },
			300 * time.Millisecond, false, false},
		{"black-holed for a minute", func(_ *tunnel, n *streamtest.Network) {
			n.Down(true, true)
			time.Sleep(time.Minute)
			n.Down(false, false)
		}, 5 * time.Second, false, true},
		{"black-holed for eight seconds", func(_ *tunnel, n *streamtest.Network) {
			n.Down(true, true)
			time.Sleep(8 * time.Second)
			n.Down(false, false)
		}, 5 * time.Second, false, false},
		{"black-holed for a minute under traffic", func(tn *tunnel, n *streamtest.Network) {
			n.Down(true, true)
			for range 60 {
				tn.ping(time.Second)
			}
			n.Down(false, false)
		}, 5 * time.Second, false, true},
		{"only its stream goes silent", func(tn *tunnel, n *streamtest.Network) { n.Conns()[0].Silence(true) }, 5 * time.Second, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := streamtest.NewNetwork(streamtest.Shape{Delay: time.Millisecond, Buffer: 1 << 20})
				tn, stop := newTunnel(t, n, func(ctx context.Context) (io.ReadWriteCloser, error) { return n.Dial(ctx.Done()) })
				defer stop()
				first := tn.passes(time.Second)
				made := tn.node.handshake(t)
				time.Sleep(12 * time.Second) // past WireGuard's own keepalive
				row.what(tn, n)
				back := tn.passes(row.back)
				t.Logf("first ping after %v, back after %v", first, back)
				time.Sleep(10 * time.Second)
				if !tn.ping(time.Second) {
					t.Error("a ping ten seconds later was lost")
				}
				if again := tn.node.handshake(t); !again.Equal(made) && !row.fresh {
					t.Errorf("a new handshake, %v after the first", again.Sub(made))
				}
				if switched := tn.keeper.State().Redials > 0; switched == row.keeps {
					t.Errorf("%d redials", tn.keeper.State().Redials)
				}
				if from := tn.gateway.roamed(t); from == "" {
					t.Error("the gateway knows no endpoint of the node")
				}
			})
		})
	}
}

func (s *side) roamed(t testing.TB) string {
	status, err := s.dev.Status()
	if err != nil || len(status.Peers) != 1 || status.Peers[0].Endpoint == nil {
		return ""
	}
	return status.Peers[0].Endpoint.String()
}

// TestGatewayFollows: after a switch the gateway can reach the node although the node sends nothing of its
// own accord.
func TestGatewayFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := streamtest.NewNetwork(streamtest.Shape{Delay: time.Millisecond, Buffer: 1 << 20})
		tn, stop := newTunnel(t, n, func(ctx context.Context) (io.ReadWriteCloser, error) { return n.Dial(ctx.Done()) })
		defer stop()
		tn.passes(time.Second)
		time.Sleep(10 * time.Second)
		for range 3 {
			before := tn.gateway.roamed(t)
			tn.keeper.Kick()
			time.Sleep(3 * time.Second)
			if now := tn.gateway.roamed(t); now == before {
				t.Errorf("the gateway still sends to %s", now)
			}
			tn.gateway.tun.Outbound <- tuntest.Ping(nodeAddr, gatewayAddr)
			select {
			case <-tn.node.tun.Inbound:
			case <-time.After(100 * time.Millisecond):
				t.Error("a packet from the gateway did not arrive")
			}
		}
	})
}

// TestFirstPacketWaitsForTheStream: what a program sends before there is a stream arrives as soon as there
// is one, and not only with WireGuard's next attempt at a handshake, five seconds later.
func TestFirstPacketWaitsForTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := streamtest.NewNetwork(streamtest.Shape{Delay: time.Millisecond, Buffer: 1 << 20})
		tn, stop := newTunnel(t, n, func(ctx context.Context) (io.ReadWriteCloser, error) {
			time.Sleep(2 * time.Second)
			return n.Dial(ctx.Done())
		})
		defer stop()
		if !tn.ping(2200 * time.Millisecond) {
			t.Error("the packet was lost")
		}
	})
}

// TestOverTCP runs the tunnel over real connections and leaves no goroutine behind.
func TestOverTCP(t *testing.T) {
	defer goleak.VerifyNone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tn, stop := newTunnel(t, l, func(ctx context.Context) (io.ReadWriteCloser, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	defer stop()
	tn.passes(5 * time.Second)
	made := tn.node.handshake(t)
	tn.keeper.Kick()
	for range 100 {
		if !tn.ping(time.Second) {
			t.Fatal("a ping was lost during the switch")
		}
	}
	if again := tn.node.handshake(t); !again.Equal(made) {
		t.Error("a new handshake")
	}
}
