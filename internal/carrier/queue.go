package carrier

import (
	"slices"
	"time"
)

// blockSpan is the longest time between the first and the last packet of a block: they expire together.
const blockSpan = maxAge / 10

// queue holds the packets of one endpoint that wait for the stream, in order. It is bounded: the oldest
// packets give way to new ones. Not safe for concurrent use; its Endpoint guards it.
type queue struct {
	blocks  []*block // oldest first
	payload int      // bytes of all packets
	packets int
}

// add copies a packet to the end of the queue. It is no longer than frame.MaxPacket.
func (q *queue) add(packet []byte, now time.Time) {
	n := len(q.blocks)
	if n == 0 || now.Sub(q.blocks[n-1].since) > blockSpan || !q.blocks[n-1].add(packet) {
		b := newBlock()
		b.since = now
		b.add(packet)
		q.blocks = append(q.blocks, b)
	}
	q.payload += len(packet)
	q.packets++
}

// trim drops oldest packets until at most limit payload bytes and maxPackets packets are left. It
// returns how many it dropped.
func (q *queue) trim(limit, maxPackets int) (dropped int) {
	for q.packets > 0 && (q.payload > limit || q.packets > maxPackets) {
		b := q.blocks[0]
		before := b.payload
		b.dropFirst()
		q.payload -= before - b.payload
		q.packets--
		dropped++
		if b.packets == 0 {
			q.shift().release()
		}
	}
	return dropped
}

// take removes and returns the oldest block, nil if there is none.
func (q *queue) take() *block {
	if len(q.blocks) == 0 {
		return nil
	}
	b := q.shift()
	q.payload -= b.payload
	q.packets -= b.packets
	return b
}

// expire drops the blocks begun before oldest and returns how many packets that were.
func (q *queue) expire(oldest time.Time) (dropped int) {
	for len(q.blocks) > 0 && q.blocks[0].since.Before(oldest) {
		b := q.take()
		dropped += b.packets
		b.release()
	}
	return dropped
}

// initiation reports whether a handshake initiation is in the queue.
func (q *queue) initiation() bool {
	return slices.ContainsFunc(q.blocks, func(b *block) bool { return b.initiation })
}

// clear drops everything.
func (q *queue) clear() (dropped int) { return q.trim(-1, 0) }

// shift removes the first block from the list, keeping the list's memory.
func (q *queue) shift() *block {
	b := q.blocks[0]
	n := copy(q.blocks, q.blocks[1:])
	q.blocks[n] = nil
	q.blocks = q.blocks[:n]
	return b
}
