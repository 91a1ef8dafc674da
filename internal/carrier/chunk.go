package carrier

import (
	"sync"

	"golang.zx2c4.com/wireguard/conn"
)

// chunkLen is how much a link reads at a time, in bytes; more than the longest frame.
const chunkLen = 64 << 10

// chunk is one read of a stream on its way to wireguard-go: the packets are where the stream put them.
type chunk struct {
	buf      [chunkLen]byte
	endpoint *Endpoint
	packets  []span
	next     int // first packet not yet handed out
}

// span is a part of a chunk's buffer.
type span struct{ from, to int }

var chunks = sync.Pool{New: func() any { return &chunk{packets: make([]span, 0, 64)} }}

func newChunk(e *Endpoint) *chunk {
	c := chunks.Get().(*chunk)
	c.endpoint, c.packets, c.next = e, c.packets[:0], 0
	return c
}

func (c *chunk) release() {
	c.endpoint = nil
	chunks.Put(c)
}

func (c *chunk) empty() bool { return c.next == len(c.packets) }

// copyTo copies packets into wireguard-go's buffers, as many as there are of the fewer. A packet longer
// than its buffer is passed over, with size zero.
func (c *chunk) copyTo(packets [][]byte, sizes []int, eps []conn.Endpoint) (n int) {
	for ; n < len(packets) && !c.empty(); n++ {
		s := c.packets[c.next]
		c.next++
		sizes[n], eps[n] = 0, c.endpoint
		if s.to-s.from <= len(packets[n]) {
			sizes[n] = copy(packets[n], c.buf[s.from:s.to])
		}
	}
	return n
}
