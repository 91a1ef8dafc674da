package dataplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Overlay addresses of the tests, in the form the product uses.
var (
	node4    = netip.MustParseAddr("245.1.2.4")
	gateway4 = netip.MustParseAddr("245.1.2.5")
	node6    = netip.MustParseAddr("fd00:245::4")
	gateway6 = netip.MustParseAddr("fd00:245::5")

	otherNode4    = netip.MustParseAddr("245.9.9.8")
	otherGateway4 = netip.MustParseAddr("245.9.9.9")
	otherNode6    = netip.MustParseAddr("fd00:245::8")
	otherGateway6 = netip.MustParseAddr("fd00:245::9")

	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

func testPeer() PeerAddrs {
	return PeerAddrs{ID: "one", Node: []netip.Addr{node4, node6}, Gateway: []netip.Addr{gateway4, gateway6}}
}

func otherPeer() PeerAddrs {
	return PeerAddrs{ID: "two", Node: []netip.Addr{otherNode4, otherNode6}, Gateway: []netip.Addr{otherGateway4, otherGateway6}}
}

// permitLoopback is the switch that an agent uses: targets of the tests listen on loopback.
func permitLoopback(netip.Addr, Proto, netip.AddrPort) Verdict { return AllowReserved }

// newPlane returns a plane with the two Peers of the tests, closed at the end of the test.
func newPlane(t testing.TB, cfg Config) *Plane {
	t.Helper()
	if cfg.Permit == nil {
		cfg.Permit = permitLoopback
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	p.SetPeers([]PeerAddrs{testPeer(), otherPeer()})
	return p
}

// workstation is a network stack joined to a plane as a Peer is: by IP packets alone.
type workstation struct {
	t     testing.TB
	plane *Plane
	stack *stack.Stack
	link  *channel.Endpoint
	wg    sync.WaitGroup
	dark  atomic.Bool  // while set, packets are lost both ways
	tap   func([]byte) // sees each packet to the workstation; set before the first
}

// join connects a workstation with the addresses of testPeer to p.
func join(t testing.TB, p *Plane) *workstation {
	t.Helper()
	mtu := uint32(p.cfg.MTU)
	w := &workstation{t: t, plane: p, link: channel.New(16384, mtu, "")}
	w.link.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	w.stack = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true}),
			ipv6.NewProtocolWithOptions(ipv6.Options{AllowExternalLoopbackTraffic: true}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol},
	})
	w.must(w.stack.CreateNIC(1, w.link))
	w.must(w.stack.SetOption(tcpip.ReceiveBufferSizeOption{Min: 4096, Default: 1 << 20, Max: 1 << 20}))
	sack, quick := tcpip.TCPSACKEnabled(true), tcpip.TCPTimeWaitTimeoutOption(time.Millisecond)
	w.must(w.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack))
	w.must(w.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &quick))
	for _, a := range testPeer().Node {
		proto := header.IPv6ProtocolNumber
		if a.Is4() {
			proto = header.IPv4ProtocolNumber
		}
		w.must(w.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: proto,
			AddressWithPrefix: fromAddr(a).WithPrefix()}, stack.AddressProperties{}))
	}
	w.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}, {Destination: header.IPv6EmptySubnet, NIC: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	w.wg.Go(func() { w.pumpUp(ctx) })
	w.wg.Go(w.pumpDown)
	t.Cleanup(func() {
		cancel()
		p.Close()
		w.wg.Wait()
		w.stack.Destroy()
	})
	return w
}

func (w *workstation) must(err tcpip.Error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// pumpUp moves packets from the workstation to the plane, in batches as WireGuard does.
func (w *workstation) pumpUp(ctx context.Context) {
	const offset = 16
	for {
		pkt := w.link.ReadContext(ctx)
		if pkt == nil {
			return
		}
		var batch [][]byte
		for ; pkt != nil; pkt = w.link.Read() {
			b := make([]byte, offset, offset+pkt.Size())
			for _, s := range pkt.AsSlices() {
				b = append(b, s...)
			}
			pkt.DecRef()
			if batch = append(batch, b); len(batch) == batchSize {
				break
			}
		}
		if w.dark.Load() {
			continue
		}
		if _, err := w.plane.TUN().Write(batch, offset); err != nil && !errors.Is(err, os.ErrClosed) {
			w.t.Errorf("write to the plane: %v", err)
		}
	}
}

// pumpDown moves packets from the plane to the workstation until the plane is closed.
func (w *workstation) pumpDown() {
	const offset = 16
	bufs, sizes := make([][]byte, batchSize), make([]int, batchSize)
	for i := range bufs {
		bufs[i] = make([]byte, offset+w.plane.cfg.MTU)
	}
	for {
		n, err := w.plane.TUN().Read(bufs, sizes, offset)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				w.t.Errorf("read from the plane: %v", err)
			}
			return
		}
		for i := range n {
			b := bufs[i][offset : offset+sizes[i]]
			if w.dark.Load() {
				continue
			}
			if w.tap != nil {
				w.tap(b)
			}
			proto := header.IPv4ProtocolNumber
			if b[0]>>4 == 6 {
				proto = header.IPv6ProtocolNumber
			}
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
			w.link.InjectInbound(proto, pkt)
			pkt.DecRef()
		}
	}
}

func fullAddress(a netip.AddrPort) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	proto := header.IPv6ProtocolNumber
	if a.Addr().Is4() {
		proto = header.IPv4ProtocolNumber
	}
	return tcpip.FullAddress{NIC: 1, Addr: fromAddr(a.Addr()), Port: a.Port()}, proto
}

// dial connects from the workstation to dst within 10 s.
func (w *workstation) dial(dst netip.AddrPort) (*gonet.TCPConn, error) {
	return w.dialContext(context.Background(), dst)
}

func (w *workstation) dialContext(ctx context.Context, dst netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	to, proto := fullAddress(dst)
	return gonet.DialContextTCP(ctx, w.stack, to, proto)
}

// dialFrom is dial with a given source port.
func (w *workstation) dialFrom(port uint16, dst netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	to, proto := fullAddress(dst)
	src := node6
	if dst.Addr().Is4() {
		src = node4
	}
	from, _ := fullAddress(netip.AddrPortFrom(src, port))
	return gonet.DialTCPWithBind(ctx, w.stack, from, to, proto)
}

// mustDial is dial that ends the test on failure.
func (w *workstation) mustDial(dst netip.AddrPort) *gonet.TCPConn {
	w.t.Helper()
	c, err := w.dial(dst)
	if err != nil {
		w.t.Fatalf("dial %v: %v", dst, err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func (w *workstation) dialUDP(dst netip.AddrPort) *gonet.UDPConn {
	w.t.Helper()
	to, proto := fullAddress(dst)
	c, err := gonet.DialUDP(w.stack, nil, &to, proto)
	if err != nil {
		w.t.Fatalf("dial UDP %v: %v", dst, err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// serve starts a TCP server on a loopback address that gives each connection to handle, and returns
// where. handle owns the connection.
func serve(t testing.TB, on netip.Addr, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var conns sync.Map
	wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			wg.Go(func() { handle(c); conns.Delete(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Range(func(c, _ any) bool { c.(*net.TCPConn).Close(); return true })
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// eventually waits until ok holds.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within %v: %s", within, what)
}
