package connection

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/wgdev"
)

var overlayNode = netip.MustParseAddr("245.1.0.2")

// farEnd is the other side of a peer: gateway or agent, with its host in the test's hands.
type farEnd struct {
	key     wgtypes.Key
	tun     *tuntest.ChannelTUN
	carrier *carrier.Server
	dials   chan struct{}
	dial    dialFunc
}

func newFarEnd(t *testing.T, node wgtypes.Key) *farEnd {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	bind := carrier.NewBind()
	f := &farEnd{key: key, tun: tuntest.NewChannelTUN(), carrier: &carrier.Server{Bind: bind}, dials: make(chan struct{}, 16)}
	device, err := wgdev.New(f.tun.TUN(), bind, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = device.Configure(wgtypes.Config{PrivateKey: &key, Peers: []wgtypes.PeerConfig{{
		PublicKey: node.PublicKey(), AllowedIPs: ipNets([]netip.Prefix{netip.PrefixFrom(overlayNode, 32)}),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.dial = func(ctx context.Context) (io.ReadWriteCloser, error) {
		f.dials <- struct{}{}
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := f.carrier.Serve(ctx, listener); err != nil {
			t.Errorf("serve the carrier: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); device.Close(); serving.Wait() })
	return f
}

// nodeEnd is a tunnel whose host is the test.
type nodeEnd struct {
	*tunnel
	t    *testing.T
	host *tuntest.ChannelTUN
}

func newNodeEnd(t *testing.T) *nodeEnd {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	host := tuntest.NewChannelTUN()
	tn, err := newTunnelOn(host.TUN(), "test", key, 1420, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tn.close)
	return &nodeEnd{tn, t, host}
}

func (n *nodeEnd) link(workload string, f *farEnd, allowed ...string) agentLink {
	return agentLink{workload: workload, key: f.key.PublicKey(), allowed: prefixesOf(allowed...), dial: f.dial,
		changed: func(context.Context, carrier.State) {},
		failed:  func(_ context.Context, err error) { n.t.Errorf("carrier of %s: %v", workload, err) }}
}

func (n *nodeEnd) set(l agentLink) {
	n.t.Helper()
	if err := n.setAgent(n.t.Context(), l); err != nil {
		n.t.Fatal(err)
	}
}

// sees fails the test unless a packet to that address comes out at f, and nowhere else.
func (n *nodeEnd) sees(f *farEnd, to string, others ...*farEnd) {
	n.t.Helper()
	deadline := time.After(20 * time.Second)
	again := time.NewTicker(50 * time.Millisecond) // the first may be lost while the streams are made
	defer again.Stop()
	dst := netip.MustParseAddr(to)
	for out := tuntest.Ping(dst, overlayNode); ; {
		select {
		case p := <-f.tun.Inbound:
			if got := netip.AddrFrom4([4]byte(p[16:20])); got == dst {
				for _, o := range others {
					select {
					case p := <-o.tun.Inbound: // perhaps one of its own that was sent twice
						if netip.AddrFrom4([4]byte(p[16:20])) == dst {
							n.t.Errorf("a packet to %s came elsewhere as well", to)
						}
					default:
					}
				}
				return
			}
		case <-again.C:
			select {
			case n.host.Outbound <- append([]byte(nil), out...):
			case <-deadline:
				n.t.Fatalf("no packet to %s is taken", to)
			}
		case <-deadline:
			n.t.Fatalf("no packet to %s comes out", to)
		}
	}
}

// peers returns the AllowedIPs and endpoint of each peer, by key.
func (n *nodeEnd) peers() map[wgtypes.Key]string {
	n.t.Helper()
	status, err := n.device.Status()
	if err != nil {
		n.t.Fatal(err)
	}
	out := map[wgtypes.Key]string{}
	for _, p := range status.Peers {
		var words []string
		for _, a := range p.AllowedIPs {
			words = append(words, a.String())
		}
		out[p.PublicKey] = p.Endpoint.String() + " " + strings.Join(words, ",")
	}
	return out
}

func prefixesOf(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func TestPacketsGoToTheirAgents(t *testing.T) {
	n := newNodeEnd(t)
	gateway, echo, db := newFarEnd(t, n.key), newFarEnd(t, n.key), newFarEnd(t, n.key)
	if err := n.setPeer(gateway.key.PublicKey(), prefixesOf("10.96.0.0/12")); err != nil {
		t.Fatal(err)
	}
	n.carry(t.Context(), gateway.dial, func(context.Context, carrier.State) {}, func(_ context.Context, err error) { t.Error(err) })
	n.set(n.link("shop/deployment/echo", echo, "246.1.0.0/16"))
	n.set(n.link("shop/deployment/db", db, "246.2.0.0/16"))
	n.sees(gateway, "10.96.0.1", echo, db)
	n.sees(echo, "246.1.0.1", gateway, db)
	n.sees(db, "246.2.0.1", gateway, echo)
	if at, _, sent := n.agentHandshake("shop/deployment/db"); at.IsZero() || sent == 0 {
		t.Errorf("handshake at %v, %d bytes sent", at, sent)
	}
	if got := n.peers(); got[echo.key.PublicKey()] != "192.0.2.2:51820 246.1.0.0/16" || got[db.key.PublicKey()] != "192.0.2.3:51820 246.2.0.0/16" {
		t.Errorf("peers %v", got)
	}
}

func TestAgentGivesWay(t *testing.T) {
	n := newNodeEnd(t)
	first, second, other := newFarEnd(t, n.key), newFarEnd(t, n.key), newFarEnd(t, n.key)
	n.set(n.link("echo", first, "246.1.0.0/16"))
	n.set(n.link("db", other, "246.2.0.0/16"))
	n.sees(first, "246.1.0.1")
	n.sees(other, "246.2.0.1")

	n.set(n.link("echo", first, "246.1.0.0/16", "246.3.0.0/16")) // as when its twins change
	n.sees(first, "246.3.0.1")
	if len(first.dials) != 1 {
		t.Errorf("the same agent was dialled %d times", len(first.dials))
	}
	n.kickAgents() // as when the route to the API server is another one
	await(t, "both agents are dialled anew", func() bool { return len(first.dials) == 2 && len(other.dials) == 2 })
	n.set(n.link("echo", second, "246.1.0.0/16", "246.3.0.0/16")) // as when its pod is another one
	n.sees(second, "246.1.0.1", first)
	n.sees(other, "246.2.0.1", first, second)
	await(t, "the stream to the agent before ends", func() bool { return first.carrier.Stats().Streams == 0 })
	if got := n.peers(); len(got) != 2 || got[second.key.PublicKey()] != "192.0.2.2:51820 246.1.0.0/16,246.3.0.0/16" {
		t.Errorf("peers %v", got)
	}
	for range 2 { // the second time there is none
		if err := n.dropAgent("echo"); err != nil {
			t.Fatal(err)
		}
	}
	n.sees(other, "246.2.0.2", second)
	if got := n.peers(); len(got) != 1 || got[other.key.PublicKey()] == "" {
		t.Errorf("peers %v", got)
	}
	n.set(n.link("echo", second, "246.1.0.0/16"))
	n.sees(second, "246.1.0.9")
	if got := n.peers(); got[second.key.PublicKey()] != "192.0.2.2:51820 246.1.0.0/16" {
		t.Errorf("a workload's endpoint has changed: peers %v", got)
	}
}

// await polls until done.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestAgentTakesNothingFromOtherPeers(t *testing.T) {
	n := newNodeEnd(t)
	gateway, echo, db := newFarEnd(t, n.key), newFarEnd(t, n.key), newFarEnd(t, n.key)
	if err := n.setPeer(gateway.key.PublicKey(), prefixesOf("10.96.0.0/12")); err != nil {
		t.Fatal(err)
	}
	n.set(n.link("echo", echo, "246.1.0.0/16"))
	before := n.peers()
	for _, row := range []struct {
		name string
		link agentLink
		want string
	}{
		{"part of the gateway's", n.link("db", db, "10.97.0.0/16"), "10.97.0.0/16 of the agent of db belongs to the gateway"},
		{"around another agent's", n.link("db", db, "246.9.0.0/16", "246.0.0.0/8"), "246.0.0.0/8 of the agent of db belongs to that of echo"},
		{"one agent for two workloads", n.link("db", echo, "246.2.0.0/16"), "the agents of db and echo have one key"},
		{"the gateway as an agent", n.link("db", gateway, "246.2.0.0/16"), "the agent of db has the gateway's key"},
		{"a change of its own", n.link("echo", echo, "246.1.0.0/16", "10.96.0.1/32"), "10.96.0.1/32 of the agent of echo belongs to the gateway"},
	} {
		if err := n.setAgent(t.Context(), row.link); err == nil || err.Error() != row.want {
			t.Errorf("%s: %v, want %s", row.name, err, row.want)
		}
	}
	after := n.peers()
	if len(after) != len(before) || after[echo.key.PublicKey()] != before[echo.key.PublicKey()] {
		t.Errorf("peers %v, before %v", after, before)
	}
}

func TestEndpointsRunOut(t *testing.T) {
	n := newNodeEnd(t)
	seen := map[netip.AddrPort]bool{gatewayEndpoint: true}
	for i := range 253 {
		e, err := n.endpointOf(strings.Repeat("x", i+1))
		if err != nil || seen[e] || !netip.MustParsePrefix("192.0.2.0/24").Contains(e.Addr()) {
			t.Fatalf("workload %d: %v, %v", i+1, e, err)
		}
		seen[e] = true
	}
	if _, err := n.endpointOf("one more"); err == nil {
		t.Error("there is an endpoint for one more")
	}
	if e, err := n.endpointOf("x"); err != nil || e.String() != "192.0.2.2:51820" {
		t.Errorf("the first workload's: %v, %v", e, err)
	}
}
