package carrier

import "time"

// Bounds of the window: the data bytes that may be on their way without an acknowledgement.
const (
	minWindow   = 64 << 10
	firstWindow = 256 << 10
	maxWindow   = 4 << 20
)

const (
	// minSlack and maxSlack bound the queueing delay the window allows beyond the round trip.
	minSlack = 25 * time.Millisecond
	maxSlack = 100 * time.Millisecond
	// minQueueing is the least queueing delay allowed in front of a full window.
	minQueueing = 50 * time.Millisecond
	// rateAge is how long a measured rate counts, baseAge how long a shortest round trip does, busyAge how
	// long the path is taken to be as slow as when its window was last full.
	rateAge = time.Second
	baseAge = 30 * time.Second
	busyAge = 10 * time.Second
	// probeTime is how long the window stays at its minimum to see the shortest round trip anew.
	probeTime = 200 * time.Millisecond
	// maxMarks bounds the memory of what is on its way.
	maxMarks = 256
)

// flow decides how many bytes may be on their way. The hops of a port-forward buffer megabytes, so the
// window follows what really arrives, as BBR does:
//
//	window = delivery rate x (shortest round trip + half of it, at least 25 ms, at most 100 ms)
//
// Waiting in foreign buffers is bounded by that slack: the rest waits in the endpoint's queue, where the
// oldest can still be dropped. While the window is full the slack lets the rate grow by half each round
// trip. Once in 30 s of full use the window goes to its minimum for a moment, because the
// shortest round trip cannot be seen through buffers we keep full ourselves.
//
// A value type over time passed in; not safe for concurrent use. The zero value is ready.
type flow struct {
	sent, acked uint64 // data payload bytes since the stream began
	ackedAt     time.Time
	window      int
	limited     bool // the window was full since the last mark

	marks      [maxMarks]mark // ring: what was sent and is not acknowledged
	head, size int

	rates  [2]float64 // bytes per second, highest in this period and the one before
	rateAt time.Time  // when this period began
	busyAt time.Time  // when something sent right after a full window was last acknowledged

	base    time.Duration // shortest round trip; 0: not known
	baseAt  time.Time     // when it was seen
	probing time.Time     // end of the probe; zero: none
}

// mark remembers how things stood when some bytes were sent.
type mark struct {
	end     uint64 // flow.sent after them
	at      time.Time
	acked   uint64
	ackedAt time.Time
	limited bool
}

// inFlight returns the bytes sent and not acknowledged.
func (f *flow) inFlight() int { return int(f.sent - f.acked) }

// open reports whether more may be sent now. A block may exceed the window: it counts when it is sent.
func (f *flow) open() bool {
	if f.inFlight() < f.limit() {
		return true
	}
	f.limited = true
	return false
}

func (f *flow) limit() int {
	if f.window == 0 {
		return firstWindow
	}
	return f.window
}

// send records that n bytes are being written.
func (f *flow) send(n int, now time.Time) {
	if f.inFlight() == 0 {
		f.ackedAt = now // the rate is measured over time in use
	}
	f.sent += uint64(n)
	if f.size == maxMarks { // the newest mark then stands for more bytes
		f.marks[(f.head+f.size-1)%maxMarks].end = f.sent
		return
	}
	f.marks[(f.head+f.size)%maxMarks] = mark{f.sent, now, f.acked, f.ackedAt, f.limited}
	f.size++
	f.limited = false
}

// ack takes the receiver's count and reports whether it is possible: not beyond what was sent.
func (f *flow) ack(total uint64, now time.Time) bool {
	if total > f.sent {
		return false
	}
	if total <= f.acked {
		return true
	}
	f.acked, f.ackedAt = total, now
	var last mark
	for ; f.size > 0 && f.marks[f.head].end <= total; f.size-- {
		last = f.marks[f.head]
		f.head = (f.head + 1) % maxMarks
	}
	if last.end != 0 {
		f.roundTrip(now.Sub(last.at), now)
		f.measure(last, now)
		f.resize(now)
	}
	return true
}

// measure takes the rate between the acknowledgement before a mark was sent and now.
func (f *flow) measure(m mark, now time.Time) {
	elapsed := max(now.Sub(m.ackedAt), now.Sub(m.at), time.Microsecond)
	rate := float64(f.acked-m.acked) / elapsed.Seconds()
	if m.limited {
		f.busyAt = now
	}
	if now.Sub(f.rateAt) > rateAge && (m.limited || !f.busy(now)) {
		f.rates = [2]float64{0, f.rates[0]}
		f.rateAt = now
	}
	f.rates[0] = max(f.rates[0], rate)
}

// roundTrip takes a measured round trip, of data or of an echo.
func (f *flow) roundTrip(rtt time.Duration, now time.Time) {
	rtt = max(rtt, time.Microsecond)
	switch {
	case !f.probing.IsZero():
		f.base = min(f.base, rtt)
		if now.After(f.probing) {
			f.probing, f.baseAt = time.Time{}, now
		}
	case f.base == 0 || rtt <= f.base:
		f.base, f.baseAt = rtt, now
	case now.Sub(f.baseAt) > baseAge:
		f.base, f.probing = rtt, now.Add(max(probeTime, 2*rtt))
	}
}

// rate returns the highest rate of the last seconds in bytes per second, 0 when none was measured.
func (f *flow) rate() float64 { return max(f.rates[0], f.rates[1]) }

// busy reports whether the window was full lately. Else the rate says what was wanted, not what the path
// can do.
func (f *flow) busy(now time.Time) bool { return now.Sub(f.busyAt) < busyAge }

func (f *flow) resize(now time.Time) {
	low := minWindow
	if !f.busy(now) {
		low = firstWindow
	}
	f.window = low
	if f.probing.IsZero() {
		slack := min(max(f.base/2, minSlack), maxSlack)
		f.window = clamp(f.rate()*(f.base+slack).Seconds(), low, maxWindow)
	}
}

// queueLimit returns how many bytes may wait in the endpoint's queue: a round trip's worth, as TCP needs to
// keep a path full over a loss, but at least 50 ms.
func (f *flow) queueLimit(now time.Time) int {
	if !f.busy(now) {
		return maxQueue
	}
	return clamp(f.rate()*max(f.base, minQueueing).Seconds(), minQueue, maxQueue)
}

func clamp(v float64, low, high int) int {
	return int(min(max(v, float64(low)), float64(high)))
}
