package carrier

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// waitingChunks is how many received chunks may wait for wireguard-go; links wait beyond that.
const waitingChunks = 4

// Bind is the conn.Bind of node and gateway: it sends and receives over the streams that a Keeper or
// a Server brings. Make it with NewBind. Streams outlive Close and Open; what arrives while the Bind is
// closed is dropped, as wireguard-go expects of a closed socket.
type Bind struct {
	chunks  chan *chunk
	opening atomic.Pointer[opening] // nil while closed

	mu        sync.Mutex
	endpoints map[netip.AddrPort]*Endpoint
	streams   uint64 // endpoints made for streams, ever
}

// opening is the time between Open and Close.
type opening struct{ closed chan struct{} }

var _ conn.Bind = (*Bind)(nil)

// NewBind returns a closed Bind without endpoints.
func NewBind() *Bind {
	return &Bind{chunks: make(chan *chunk, waitingChunks), endpoints: map[netip.AddrPort]*Endpoint{}}
}

// Open starts receiving. The port is returned as given: there is no socket.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	o := &opening{closed: make(chan struct{})}
	if !b.opening.CompareAndSwap(nil, o) {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	r := &receiver{bind: b, closed: o.closed}
	return []conn.ReceiveFunc{r.receive}, port, nil
}

// Close ends receiving; repeated calls do nothing.
func (b *Bind) Close() error {
	if o := b.opening.Swap(nil); o != nil {
		close(o.closed)
	}
	return nil
}

// SetMark does nothing: whoever dials the streams marks their sockets.
func (b *Bind) SetMark(uint32) error { return nil }

// BatchSize is how many packets Send and receive take at a time.
func (b *Bind) BatchSize() int { return conn.IdealBatchSize }

// Send queues copies of packets for ep and never blocks. Errors: ErrNoPath when the stream of ep has
// ended, conn.ErrWrongEndpointType for an endpoint of another Bind.
func (b *Bind) Send(packets [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*Endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	if b.opening.Load() == nil {
		return net.ErrClosed
	}
	return e.send(packets)
}

// ParseEndpoint returns the endpoint named ip:port, a new one when there is none yet: a peer may be
// configured before its stream is there.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	return b.endpoint(addr), nil
}

// endpoint returns the endpoint of that name, made when there is none.
func (b *Bind) endpoint(addr netip.AddrPort) *Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.endpoints[addr]
	if e == nil {
		e = newEndpoint(addr)
		b.endpoints[addr] = e
	}
	return e
}

// remove ends an endpoint.
func (b *Bind) remove(e *Endpoint) {
	b.mu.Lock()
	if b.endpoints[e.addr] == e {
		delete(b.endpoints, e.addr)
	}
	b.mu.Unlock()
	e.close()
}

// deliver hands a chunk over to wireguard-go; it waits while others are ahead. The chunk is the Bind's
// from here on. It returns early when done is closed.
func (b *Bind) deliver(c *chunk, done <-chan struct{}) {
	o := b.opening.Load()
	if o == nil {
		c.release()
		return
	}
	select {
	case b.chunks <- c:
	case <-o.closed:
		c.release()
	case <-done:
		c.release()
	}
}

// receiver is one ReceiveFunc. wireguard-go calls it from one goroutine.
type receiver struct {
	bind   *Bind
	closed <-chan struct{}
	chunk  *chunk // partly handed out; nil if none
}

// receive is a conn.ReceiveFunc: it waits for packets and copies as many as are there and fit.
func (r *receiver) receive(packets [][]byte, sizes []int, eps []conn.Endpoint) (n int, err error) {
	select {
	case <-r.closed:
		return r.stop()
	default:
	}
	for n < len(packets) {
		if r.chunk == nil && !r.next(n == 0) {
			break
		}
		n += r.chunk.copyTo(packets[n:], sizes[n:], eps[n:])
		if r.chunk.empty() {
			r.chunk.release()
			r.chunk = nil
		}
	}
	if n == 0 {
		return r.stop()
	}
	return n, nil
}

// next takes the next chunk, if wait is set by waiting for it. It reports whether there is one; after
// waiting, false means closed.
func (r *receiver) next(wait bool) bool {
	if !wait {
		select {
		case r.chunk = <-r.bind.chunks:
			return true
		default:
			return false
		}
	}
	select {
	case r.chunk = <-r.bind.chunks:
		return true
	case <-r.closed:
		return false
	}
}

func (r *receiver) stop() (int, error) {
	if r.chunk != nil {
		r.chunk.release()
		r.chunk = nil
	}
	return 0, net.ErrClosed
}
