package carrier

import (
	"sync"
	"time"

	"github.com/culvert-dev/culvert/internal/frame"
	"golang.zx2c4.com/wireguard/device"
)

// headroom is the space, in bytes, kept in front of a block's first data frame for control frames.
const headroom = 96

// block is a run of whole frames that leaves in one Write. 32 KiB is what the hops of a port-forward
// copy at a time.
type block struct {
	buf        [frame.MaxPacket + frame.HeaderLen + headroom]byte
	start, end int       // frames are buf[start:end]
	packets    int       // data frames
	payload    int       // bytes of their payloads
	since      time.Time // when the oldest of them was queued
	initiation bool      // one of them is a handshake initiation
}

var blocks = sync.Pool{New: func() any { return new(block) }}

func newBlock() *block {
	b := blocks.Get().(*block)
	b.start, b.end, b.packets, b.payload, b.initiation = headroom, headroom, 0, 0, false
	return b
}

func (b *block) release() { blocks.Put(b) }

// add appends a data frame and reports whether there was room.
func (b *block) add(packet []byte) bool {
	if b.end+frame.HeaderLen+len(packet) > len(b.buf) {
		return false
	}
	frame.PutHeader(b.buf[b.end:], frame.TypeData, len(packet))
	copy(b.buf[b.end+frame.HeaderLen:], packet)
	b.end += frame.HeaderLen + len(packet)
	b.packets++
	b.payload += len(packet)
	b.initiation = b.initiation || isInitiation(packet)
	return true
}

// dropFirst removes the oldest packet of a block that has one.
func (b *block) dropFirst() {
	n := int(b.buf[b.start])<<8 | int(b.buf[b.start+1])
	packet := b.buf[b.start+frame.HeaderLen:][:n]
	b.initiation = b.initiation && !isInitiation(packet)
	b.start += frame.HeaderLen + n
	b.packets--
	b.payload -= n
}

// prepend puts control frames, at most headroom bytes, in front.
func (b *block) prepend(control []byte) {
	b.start -= len(control)
	copy(b.buf[b.start:], control)
}

// isInitiation reports whether a packet is WireGuard's first message of a handshake.
func isInitiation(p []byte) bool {
	return len(p) == device.MessageInitiationSize && p[0] == device.MessageInitiationType
}

func (b *block) bytes() []byte { return b.buf[b.start:b.end] }
