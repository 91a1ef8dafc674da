package carrier

import (
	"fmt"
	"time"

	"github.com/culvert-dev/culvert/internal/frame"
)

// write is the writer goroutine: it alone writes to the stream.
func (l *link) write() {
	l.mu.Lock()
	greeting := l.control.greeting
	l.control.greeting = nil
	l.mu.Unlock()
	if !l.writeAll(greeting) {
		return
	}
	for {
		select {
		case <-l.done:
			return
		default:
		}
		b := l.next(time.Now())
		if b != nil {
			ok := l.writeAll(b.bytes())
			b.release()
			if !ok {
				return
			}
			continue
		}
		if l.sayBye() {
			return
		}
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
	}
}

// writeAll reports whether p was written; if not, the link ends, but not at once: the other side's goodbye,
// which the reader may be about to find, says more.
func (l *link) writeAll(p []byte) bool {
	_, err := l.stream.Write(p)
	if err != nil {
		time.AfterFunc(l.timing.Bye, func() { l.close(fmt.Errorf("write to stream: %w", err)) })
	}
	return err == nil
}

// next returns what is to be written now: control frames and, when the window is open, data. It
// returns nil when there is nothing.
func (l *link) next(now time.Time) *block {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b *block
	if l.control.byeReason == nil && l.flow.open() {
		b = l.endpoint.take(l, now)
	}
	if b == nil {
		if !l.control.due() {
			return nil
		}
		b = newBlock()
	}
	var space [headroom]byte
	b.prepend(l.control.appendTo(space[:0], now))
	if b.packets > 0 {
		l.flow.send(b.payload, now)
		l.health.expect(now)
	}
	return b
}

// sayBye reports whether goodbye was to be said; the link then has ended.
func (l *link) sayBye() bool {
	l.mu.Lock()
	text, reason := l.control.bye, l.control.byeReason
	l.mu.Unlock()
	if reason == nil {
		return false
	}
	if l.writeAll(frame.Append(nil, frame.TypeBye, []byte(text))) {
		l.close(reason)
	}
	return true
}
