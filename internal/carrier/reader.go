package carrier

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/culvert-dev/culvert/internal/frame"
	"golang.zx2c4.com/wireguard/device"
)

// read is the reader goroutine: it alone reads from the stream.
func (l *link) read() {
	var parser frame.Parser
	c := newChunk(l.endpoint)
	for have := 0; ; {
		n, err := l.stream.Read(c.buf[have:])
		if n > 0 {
			var bad error
			if c, have, bad = l.parse(&parser, c, have+n); bad != nil {
				err = bad
			}
		}
		if err != nil {
			c.release()
			l.close(readError(err))
			return
		}
	}
}

func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w by the other side", errClosed)
	}
	return fmt.Errorf("read from stream: %w", err)
}

// parse takes all whole frames out of the first n bytes of c. It returns the chunk to read on with, and
// how many bytes at its beginning belong to a frame not yet whole.
func (l *link) parse(parser *frame.Parser, c *chunk, n int) (next *chunk, have int, err error) {
	at, data := 0, 0
	for {
		f, used, err := parser.Next(c.buf[at:n])
		at += used
		if err != nil {
			return c, 0, err
		}
		if f.Type == frame.TypeData {
			c.packets = append(c.packets, span{at - len(f.Payload), at})
			data += len(f.Payload)
			l.notePacket(f.Payload)
			continue
		}
		if f.Type == 0 {
			break
		}
		if err := l.handle(f); err != nil {
			return c, 0, err
		}
	}
	if len(c.packets) == 0 {
		return c, copy(c.buf[:], c.buf[at:n]), nil
	}
	if !l.isGreeted() {
		return c, 0, fmt.Errorf("%w before the first packet", errHello)
	}
	next = newChunk(l.endpoint)
	have = copy(next.buf[:], c.buf[at:n])
	l.endpoint.received.Add(uint64(data))
	l.bind.deliver(c, l.done)
	l.took(data)
	return next, have, nil
}

// notePacket looks for the answer to a handshake initiation.
func (l *link) notePacket(p []byte) {
	if len(p) == device.MessageResponseSize && p[0] == device.MessageResponseType {
		l.endpoint.answered()
	}
}

func (l *link) isGreeted() bool {
	select {
	case <-l.greeted:
		return true
	default:
		return false
	}
}

// took counts data taken off the stream and sees that it is acknowledged in time.
func (l *link) took(n int) {
	l.mu.Lock()
	c := &l.control
	before := c.taken - c.ackedFor
	c.taken += uint64(n)
	wait := c.ackWait(before, time.Now())
	if wait == 0 {
		c.ackNow = true
	}
	l.mu.Unlock()
	switch {
	case wait == 0:
		l.wakeWriter()
	case wait > 0:
		l.ackSoon.Reset(wait)
	}
}

// wakeForAck sends the acknowledgement that waited for data to go with.
func (l *link) wakeForAck() {
	l.mu.Lock()
	c := &l.control
	due := c.taken != c.ackedFor
	c.ackNow = c.ackNow || due
	l.mu.Unlock()
	if due {
		l.wakeWriter()
	}
}

// handle takes a frame that is not data.
func (l *link) handle(f frame.Frame) error {
	if f.Type == frame.TypeHello {
		return l.greet(f.Payload)
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch f.Type {
	case frame.TypeEcho:
		l.control.reply(f.Number())
		defer l.wakeWriter()
	case frame.TypeEchoReply:
		if rtt, ok := l.health.answer(f.Number(), now); ok {
			l.flow.roundTrip(rtt, now)
			l.proven(now)
		}
	case frame.TypeAck:
		before := l.flow.acked
		if !l.flow.ack(f.Number(), now) {
			return fmt.Errorf("%w: acknowledged %d bytes of %d", frame.ErrMalformed, f.Number(), l.flow.sent)
		}
		if l.flow.acked != before {
			l.endpoint.limit.Store(int64(l.flow.queueLimit(now)))
			l.proven(now)
			defer l.wakeWriter()
		}
	case frame.TypeBye:
		return fmt.Errorf("%w by the other side: %s", errClosed, printable(f.Payload))
	}
	return nil
}

// greet takes the other side's hello.
func (l *link) greet(payload []byte) error {
	h, err := frame.ParseHello(payload)
	if err != nil {
		return err
	}
	if l.isGreeted() {
		return fmt.Errorf("%w: a second hello", frame.ErrMalformed)
	}
	l.peer = h
	close(l.greeted)
	return nil
}

// printable returns a stranger's text without control characters, at most 200 bytes of it.
func printable(p []byte) string {
	text := strings.ToValidUTF8(string(p[:min(len(p), 200)]), "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}
