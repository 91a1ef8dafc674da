package dataplane

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dnsPort is the only port at which the gateway's own overlay addresses answer.
const dnsPort = 53

// localPort is port 53 of the gateway's address, as every Peer sees it.
type localPort struct {
	streams   *localListener
	datagrams *localPacketConn
}

func newLocalPort(p *Plane) *localPort {
	return &localPort{
		streams:   &localListener{conns: make(chan net.Conn, 64), closed: make(chan struct{})},
		datagrams: &localPacketConn{plane: p, in: make(chan localDatagram, 256), closed: make(chan struct{})},
	}
}

func (l *localPort) close() {
	_ = l.streams.Close()
	_ = l.datagrams.Close()
}

// localAddr is the address of both, which has no single IP: each Peer sees another.
type localAddr string

func (a localAddr) Network() string { return string(a) }
func (a localAddr) String() string  { return ":53" }

// localListener hands out the connections of Peers.
type localListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// deliver offers a connection; one too many is reset.
func (l *localListener) deliver(c *localConn) {
	select {
	case l.conns <- c:
	default:
		c.flow.abort()
	}
}

func (l *localListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *localListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *localListener) Addr() net.Addr { return localAddr("tcp") }

// localConn is a connection of a Peer that ends its flow when it is closed.
type localConn struct {
	*gonet.TCPConn
	flow *tcpFlow
}

func newLocalConn(f *tcpFlow, ep tcpip.Endpoint, wq *waiter.Queue) *localConn {
	return &localConn{TCPConn: gonet.NewTCPConn(wq, ep), flow: f}
}

func (c *localConn) Close() error {
	c.flow.end(false)
	return nil
}

// localDatagram is a datagram of a Peer to port 53 of the gateway's address.
type localDatagram struct {
	src     netip.AddrPort
	payload []byte
}

// localPacketConn hands out the datagrams of Peers and sends the answers.
type localPacketConn struct {
	plane  *Plane
	in     chan localDatagram
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when the deadline changes
}

// deliver queues a datagram and reports whether there was room.
func (c *localPacketConn) deliver(src netip.AddrPort, payload []byte) bool {
	select {
	case c.in <- localDatagram{src, append([]byte(nil), payload...)}:
		return true
	default:
		return false
	}
}

// ReadFrom returns the next datagram; what does not fit into b is cut off.
func (c *localPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		expired, moved, stop := c.expiry()
		select {
		case d := <-c.in:
			stop()
			return copy(b, d.payload), net.UDPAddrFromAddrPort(d.src), nil
		case <-c.closed:
			stop()
			return 0, nil, net.ErrClosed
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-moved:
			stop()
		}
	}
}

// expiry returns channels for the read deadline and for its next change.
func (c *localPacketConn) expiry() (expired <-chan time.Time, moved <-chan struct{}, stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	if c.deadline.IsZero() {
		return nil, c.moved, func() {}
	}
	t := time.NewTimer(time.Until(c.deadline))
	return t.C, c.moved, func() { t.Stop() }
}

// WriteTo answers a Peer from port 53 of its gateway address.
func (c *localPacketConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	u, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: net.InvalidAddrError("not a UDP address")}
	}
	dst := netip.AddrPortFrom(u.AddrPort().Addr().Unmap(), uint16(u.Port))
	pr := c.plane.peers.Load().byNode[dst.Addr()]
	if pr == nil {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: net.InvalidAddrError("not a current Peer")}
	}
	c.plane.sendUDP(netip.AddrPortFrom(pr.gateway(dst.Addr()), dnsPort), dst, b)
	return len(b), nil
}

// Close ends all reads.
func (c *localPacketConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// LocalAddr returns ":53": the address differs from Peer to Peer.
func (c *localPacketConn) LocalAddr() net.Addr { return localAddr("udp") }

// SetReadDeadline sets when a ReadFrom, also one that waits now, gives up; zero means never.
func (c *localPacketConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
	return nil
}

// SetWriteDeadline does nothing: writes do not wait for Peers.
func (c *localPacketConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (c *localPacketConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }
