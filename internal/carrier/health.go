package carrier

import (
	"fmt"
	"time"
)

// health is what a link knows about whether its bytes arrive. Only an answer proves that: an echo reply
// or an acknowledgement. link.mu guards it. The zero value is ready.
type health struct {
	waiting bool      // an answer is owed
	since   time.Time // since when
	suspect bool      // for longer than timing.Miss

	id       uint64    // of the last echo
	echoAt   time.Time // when it was asked for
	echoOpen bool      // it has not been answered
}

// expect notes that something was sent that will be answered.
func (h *health) expect(now time.Time) {
	if !h.waiting {
		h.waiting, h.since = true, now
	}
}

// echo begins an echo, unless the last is not answered yet, and returns its identifier, else 0.
func (h *health) echo(now time.Time) uint64 {
	if h.echoOpen {
		return 0
	}
	h.id++
	h.echoAt, h.echoOpen = now, true
	h.expect(now)
	return h.id
}

// answer takes an echo reply and returns its round trip; false if it is not the answer to the last echo.
func (h *health) answer(id uint64, now time.Time) (time.Duration, bool) {
	if !h.echoOpen || id != h.id {
		return 0, false
	}
	h.echoOpen = false
	return now.Sub(h.echoAt), true
}

// proven notes that the other side has answered something.
func (l *link) proven(now time.Time) {
	h := &l.health
	h.since = now
	h.waiting = h.echoOpen || l.flow.inFlight() > 0
	if h.suspect {
		h.suspect = false
		l.noteChange()
	}
}

func (l *link) noteChange() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// watch is the goroutine that sends echoes and notices their absence.
func (l *link) watch() {
	select {
	case <-l.greeted:
	case <-l.done:
		return
	}
	var lastEcho time.Time
	tick := time.NewTicker(min(l.timing.Echo, l.timing.Miss) / 2)
	defer tick.Stop()
	for {
		now := time.Now()
		if now.Sub(lastEcho) >= l.timing.Echo {
			lastEcho = now
			l.sendEcho(now)
		}
		l.check(now)
		select {
		case <-tick.C:
		case <-l.done:
			return
		}
	}
}

func (l *link) sendEcho(now time.Time) {
	l.mu.Lock()
	if id := l.health.echo(now); id != 0 {
		l.control.echo = id
	}
	l.mu.Unlock()
	l.wakeWriter()
}

// check draws the conclusions from a silence.
func (l *link) check(now time.Time) {
	l.mu.Lock()
	h := &l.health
	silence := now.Sub(h.since)
	if h.waiting && !h.suspect && silence >= l.timing.Miss {
		h.suspect = true
		l.noteChange()
	}
	dead := h.waiting && silence >= l.timing.Dead
	l.mu.Unlock()
	if dead {
		l.close(fmt.Errorf("%w for %v", errSilent, silence.Round(time.Second)))
	}
}
