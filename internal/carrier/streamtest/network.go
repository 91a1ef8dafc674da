package streamtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Network is a listener and the way to it. The zero value has no listener: use NewNetwork.
type Network struct {
	mu     sync.Mutex
	shape  Shape
	down   bool
	conns  []*Conn
	dials  int
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewNetwork returns a network whose streams have that shape.
func NewNetwork(shape Shape) *Network {
	return &Network{shape: shape, accept: make(chan net.Conn), closed: make(chan struct{})}
}

var _ net.Listener = (*Network)(nil)

// Accept implements net.Listener.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (n *Network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr implements net.Listener.
func (n *Network) Addr() net.Addr { return &net.UnixAddr{Name: "streamtest", Net: "unix"} }

// Dial opens a stream to the listener. While the network is down it tries again after one, two, four
// seconds and so on, as TCP does with a SYN, until done is closed.
func (n *Network) Dial(done <-chan struct{}) (io.ReadWriteCloser, error) {
	n.mu.Lock()
	n.dials++
	for wait := time.Second; n.down; wait *= 2 {
		n.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-done:
			return nil, os.ErrDeadlineExceeded
		}
		n.mu.Lock()
	}
	ours, theirs := Pipe(n.shape)
	n.conns = append(n.conns, ours)
	n.mu.Unlock()
	select {
	case n.accept <- theirs:
		return ours, nil
	case <-n.closed:
		return nil, net.ErrClosed
	case <-done:
		return nil, os.ErrDeadlineExceeded
	}
}

// Down takes the network down, old streams and new, without closing any; or up again. Streams from
// before stay silent when old is false.
func (n *Network) Down(down, old bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
	for _, c := range n.conns {
		if down || old {
			c.Silence(down)
		}
	}
}

// Conns returns the dialling ends of all streams so far, oldest first.
func (n *Network) Conns() []*Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*Conn(nil), n.conns...)
}

// Dials returns how often Dial was called.
func (n *Network) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}
