package carrier

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/culvert-dev/culvert/internal/frame"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// Limits of an endpoint's queue. Its byte limit moves between the two with the measured rate (see flow).
const (
	minQueue        = 128 << 10
	maxQueue        = 1 << 20
	maxQueuePackets = 4096
	// maxAge is how long a packet may wait: what is older, TCP has sent again.
	maxAge = time.Second
)

// ErrNoPath is returned by Send when the endpoint's stream has ended. The packet is lost, as on any
// network. It matches syscall.ENETUNREACH.
var ErrNoPath = fmt.Errorf("no stream to the other side: %w", syscall.ENETUNREACH)

var errTooLong = errors.New("packet too long for the carrier")

// Endpoint is the other side as wireguard-go knows it. Its address is a name: nothing is ever sent
// to it. Safe for concurrent use.
type Endpoint struct {
	addr     netip.AddrPort
	text     string
	bytes    []byte
	sent     atomic.Uint64 // payload bytes handed to streams
	received atomic.Uint64 // payload bytes taken off streams
	dropped  atomic.Uint64 // packets given up because of the queue's bounds
	limit    atomic.Int64  // of the queue, in bytes

	mu     sync.Mutex
	queue  queue
	link   *link // sends what is queued; nil while there is none
	closed bool
	first  initiation
}

var _ conn.Endpoint = (*Endpoint)(nil)

// initiation is a copy of the last handshake initiation sent. wireguard-go waits five seconds before it
// tries again, so one that met no stream, or a dead one, is sent once more on the next.
type initiation struct {
	packet [device.MessageInitiationSize]byte
	at     time.Time // zero: none, or answered
}

func newEndpoint(addr netip.AddrPort) *Endpoint {
	raw, _ := addr.MarshalBinary() // never fails
	e := &Endpoint{addr: addr, text: addr.String(), bytes: raw}
	e.limit.Store(maxQueue)
	return e
}

// AddrPort returns the made-up address that names the endpoint.
func (e *Endpoint) AddrPort() netip.AddrPort { return e.addr }

// ClearSrc does nothing: there is no source address.
func (e *Endpoint) ClearSrc() {}

// SrcToString returns "".
func (e *Endpoint) SrcToString() string { return "" }

// DstToString returns the address as ip:port.
func (e *Endpoint) DstToString() string { return e.text }

// DstToBytes returns the address in bytes, for WireGuard's cookies.
func (e *Endpoint) DstToBytes() []byte { return e.bytes }

// DstIP returns the address without the port. wireguard-go's limiter of handshakes counts by it.
func (e *Endpoint) DstIP() netip.Addr { return e.addr.Addr() }

// SrcIP returns the zero address.
func (e *Endpoint) SrcIP() netip.Addr { return netip.Addr{} }

// send queues copies of packets and never blocks. Without a stream they wait for one.
func (e *Endpoint) send(packets [][]byte) error {
	now := time.Now()
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return ErrNoPath
	}
	var err error
	dropped := e.queue.expire(now.Add(-maxAge))
	for _, p := range packets {
		if len(p) > frame.MaxPacket {
			err = fmt.Errorf("%w: %d bytes, at most %d", errTooLong, len(p), frame.MaxPacket)
			continue
		}
		e.noteInitiation(p, now)
		e.queue.add(p, now)
	}
	dropped += e.queue.trim(int(e.limit.Load()), maxQueuePackets)
	l := e.link
	e.mu.Unlock()
	if dropped > 0 {
		e.dropped.Add(uint64(dropped))
	}
	if l != nil {
		l.wakeWriter()
	}
	return err
}

func (e *Endpoint) noteInitiation(p []byte, now time.Time) {
	if isInitiation(p) {
		copy(e.first.packet[:], p)
		e.first.at = now
	}
}

// answered forgets the initiation: the other side has answered it.
func (e *Endpoint) answered() {
	e.mu.Lock()
	e.first.at = time.Time{}
	e.mu.Unlock()
}

// take returns what l may send next, nil if nothing, or if l is no longer the one to send.
func (e *Endpoint) take(l *link, now time.Time) *block {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.link != l {
		return nil
	}
	if dropped := e.queue.expire(now.Add(-maxAge)); dropped > 0 {
		e.dropped.Add(uint64(dropped))
	}
	b := e.queue.take()
	if b != nil {
		e.sent.Add(uint64(b.payload))
	}
	return b
}

// attach makes l the stream that sends. If what was sent before may be lost, an initiation that nobody has
// answered is sent again; but never twice at once, which wireguard-go does not expect.
func (e *Endpoint) attach(l *link, lost bool) {
	now := time.Now()
	e.mu.Lock()
	e.link = l
	e.queue.expire(now.Add(-maxAge))
	if lost && now.Sub(e.first.at) < device.RekeyTimeout && !e.queue.initiation() {
		e.queue.add(e.first.packet[:], now)
	}
	e.mu.Unlock()
	l.wakeWriter()
}

// detach takes the sending away from l; without effect if another has it already.
func (e *Endpoint) detach(l *link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.link == l {
		e.link = nil
	}
}

// reopen undoes close.
func (e *Endpoint) reopen() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = false
}

// close ends the sending: nothing more is queued, what was is dropped.
func (e *Endpoint) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.link = nil
	e.dropped.Add(uint64(e.queue.clear()))
}
