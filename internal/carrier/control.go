package carrier

import (
	"time"

	"github.com/culvert-dev/culvert/internal/frame"
)

// maxReplies is how many echoes may wait for their reply; of more, the oldest get none.
const maxReplies = 4

// control is what a link has to say besides data. link.mu guards it.
type control struct {
	greeting  []byte // the hello frame; nil once sent
	bye       string // sent last
	byeReason error  // non-nil: bye is to be sent

	echo    uint64 // identifier to be sent; 0: none
	replies [maxReplies]uint64
	waiting int // replies to be sent

	taken    uint64    // data payload bytes taken off the stream
	ackedFor uint64    // of them, those acknowledged
	ackedAt  time.Time // when the last acknowledgement was sent
	ackNow   bool      // an acknowledgement may not wait for data
}

// reply queues the reply to an echo.
func (c *control) reply(id uint64) {
	if c.waiting == maxReplies {
		copy(c.replies[:], c.replies[1:])
		c.waiting--
	}
	c.replies[c.waiting] = id
	c.waiting++
}

// ackWait returns how long an acknowledgement may wait: 0 not at all, negative as long as it was to wait
// before, when only the first so many bytes had been taken.
func (c *control) ackWait(before uint64, now time.Time) time.Duration {
	owed := c.taken - c.ackedFor
	switch gap := ackGap - now.Sub(c.ackedAt); {
	case c.ackNow:
		return -1
	case owed >= ackMost, owed >= ackBytes && gap <= 0:
		return 0
	case owed >= ackBytes && before < ackBytes:
		return gap
	case before == 0:
		return ackDelay
	default:
		return -1
	}
}

// due reports whether something waits that may not wait for data.
func (c *control) due() bool { return c.echo != 0 || c.waiting > 0 || c.ackNow }

// appendTo appends everything there is, except hello and bye, and marks it as sent. That is at most
// headroom bytes.
func (c *control) appendTo(b []byte, now time.Time) []byte {
	if c.taken != c.ackedFor {
		b = frame.AppendNumber(b, frame.TypeAck, c.taken)
		c.ackedFor, c.ackedAt = c.taken, now
	}
	c.ackNow = false
	for _, id := range c.replies[:c.waiting] {
		b = frame.AppendNumber(b, frame.TypeEchoReply, id)
	}
	c.waiting = 0
	if c.echo != 0 {
		b = frame.AppendNumber(b, frame.TypeEcho, c.echo)
		c.echo = 0
	}
	return b
}
