package dataplane

import (
	"os"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// outbound is a packet on its way to a Peer: one made here, or one of the stack, of which the queue
// holds a reference.
type outbound struct {
	made  *[]byte
	stack *stack.PacketBuffer
}

// size is the length of the packet in bytes.
func (o outbound) size() int {
	if o.stack != nil {
		return o.stack.Size()
	}
	return len(*o.made)
}

// release gives back what o holds.
func (o outbound) release() {
	if o.stack != nil {
		o.stack.DecRef()
	} else {
		buffers.Put(o.made)
	}
}

// queue holds packets on their way to Peers until wireguard-go reads them. It is bounded; a full
// queue makes its writers wait, which slows senders down instead of losing what TCP would have to
// send again. The reader (the WireGuard device) never waits for anything a writer holds.
type queue struct {
	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	ring     []outbound
	head, n  int
	// draining: writers no longer wait; a full queue drops. closed: nothing goes in or out.
	draining, closed bool
}

// queueLength is in packets: 1,024 of 1,420 bytes are a few milliseconds at 1 Gbit/s.
const queueLength = 1024

func newQueue() *queue {
	q := &queue{ring: make([]outbound, queueLength)}
	q.notEmpty.L, q.notFull.L = &q.mu, &q.mu
	return q
}

// push appends a packet and reports whether it was taken; what was not taken is released. It waits
// while the queue is full, unless wait is false.
func (q *queue) push(o outbound, wait bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == len(q.ring) && wait && !q.draining && !q.closed {
		q.notFull.Wait()
	}
	if q.closed || q.n == len(q.ring) {
		o.release()
		return false
	}
	q.ring[(q.head+q.n)%len(q.ring)] = o
	q.n++
	if q.n == 1 {
		q.notEmpty.Signal()
	}
	return true
}

// pop waits for at least one packet and fills out with what is there. After close it returns
// os.ErrClosed.
func (q *queue) pop(out []outbound) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 && !q.closed {
		q.notEmpty.Wait()
	}
	if q.closed {
		return 0, os.ErrClosed
	}
	n := min(q.n, len(out))
	for i := range n {
		out[i], q.ring[q.head] = q.ring[q.head], outbound{}
		q.head = (q.head + 1) % len(q.ring)
	}
	q.n -= n
	q.notFull.Broadcast()
	return n, nil
}

// drain lets all writers go; from now on a full queue drops.
func (q *queue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.draining = true
	q.notFull.Broadcast()
}

// close ends reading and writing and forgets what was queued.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for ; q.n > 0; q.n-- {
		q.ring[q.head].release()
		q.ring[q.head] = outbound{}
		q.head = (q.head + 1) % len(q.ring)
	}
	q.closed = true
	q.notFull.Broadcast()
	q.notEmpty.Broadcast()
}

// buffers are for packets in the queue; they grow to the MTU.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

func newBuffer() *[]byte {
	b := buffers.Get().(*[]byte)
	*b = (*b)[:0]
	return b
}
