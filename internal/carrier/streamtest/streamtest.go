// Package streamtest makes in-memory streams that behave like a bad network, for tests: they have a rate,
// a delay, a buffer, and can go silent. All waiting is on channels and timers, so that the streams work
// inside a testing/synctest bubble.
package streamtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Shape is how one direction of a stream behaves. The zero value is instant and unbounded.
type Shape struct {
	Rate   float64       // bytes per second; 0: infinite
	Delay  time.Duration // from the end of the bottleneck to the reader
	Buffer int           // bytes on the way before Write blocks; 0: unbounded
}

// Pipe returns the two ends of a stream whose directions both have that shape.
func Pipe(shape Shape) (a, b *Conn) {
	there, back := newWire(shape), newWire(shape)
	return &Conn{in: back, out: there, closed: make(chan struct{})}, &Conn{in: there, out: back, closed: make(chan struct{})}
}

// Conn is one end of a stream. It implements net.Conn; deadlines are not supported.
type Conn struct {
	in, out *wire
	once    sync.Once
	closed  chan struct{}
}

var _ net.Conn = (*Conn)(nil)

// Read implements io.Reader.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements io.Writer.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close ends both directions at once; what is on the way is lost to neither side's reader but ours.
func (c *Conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.in.abort()
		c.out.finish()
	})
	return nil
}

// Closed is closed once this end is.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Silence makes both directions hold back what they carry, as a network does that drops every packet of
// a TCP connection, until it is called with false.
func (c *Conn) Silence(on bool) {
	c.in.silence(on)
	c.out.silence(on)
}

// SetShape changes the way of what this end writes from now on.
func (c *Conn) SetShape(shape Shape) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.shape = shape
}

// OnTheWay returns the bytes this end has written and the other has not read.
func (c *Conn) OnTheWay() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.queued
}

// LocalAddr and the following complete net.Conn.
func (c *Conn) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "streamtest", Net: "unix"} }
func (c *Conn) RemoteAddr() net.Addr             { return c.LocalAddr() }
func (c *Conn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *Conn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *Conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// wire is one direction.
type wire struct {
	mu      sync.Mutex
	shape   Shape
	changed chan struct{} // closed and replaced at every change
	pieces  []piece
	queued  int       // bytes in pieces
	free    time.Time // when the bottleneck is done with the last piece
	silent  bool
	ended   bool // no more is written; the reader gets what is left
	aborted bool // the reader is gone
}

type piece struct {
	data  []byte
	ready time.Time
}

func newWire(s Shape) *wire { return &wire{shape: s, changed: make(chan struct{})} }

func (w *wire) changeLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *wire) write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.shape.Buffer > 0 && w.queued > 0 && w.queued+len(p) > w.shape.Buffer && !w.ended && !w.aborted {
		w.waitLocked(0)
	}
	if w.ended || w.aborted {
		return 0, io.ErrClosedPipe
	}
	now := time.Now()
	if w.free.Before(now) {
		w.free = now
	}
	if w.shape.Rate > 0 {
		w.free = w.free.Add(time.Duration(float64(len(p)) / w.shape.Rate * 1e9))
	}
	w.pieces = append(w.pieces, piece{append([]byte(nil), p...), w.free.Add(w.shape.Delay)})
	w.queued += len(p)
	w.changeLocked()
	return len(p), nil
}

func (w *wire) read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch wait := time.Duration(0); {
		case w.aborted:
			return 0, io.ErrClosedPipe
		case w.silent:
			w.waitLocked(0)
		case len(w.pieces) == 0 && w.ended:
			return 0, io.EOF
		case len(w.pieces) == 0:
			w.waitLocked(0)
		default:
			if wait = time.Until(w.pieces[0].ready); wait <= 0 {
				return w.takeLocked(p), nil
			}
			w.waitLocked(wait)
		}
	}
}

func (w *wire) takeLocked(p []byte) (n int) {
	now := time.Now()
	for n < len(p) && len(w.pieces) > 0 && !w.pieces[0].ready.After(now) {
		first := &w.pieces[0]
		m := copy(p[n:], first.data)
		n += m
		first.data = first.data[m:]
		if len(first.data) == 0 {
			w.pieces = w.pieces[1:]
		}
	}
	w.queued -= n
	w.changeLocked()
	return n
}

// waitLocked waits for a change, or for a time if that is not zero.
func (w *wire) waitLocked(d time.Duration) {
	changed := w.changed
	w.mu.Unlock()
	defer w.mu.Lock()
	if d == 0 {
		<-changed
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

func (w *wire) silence(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = on
	w.changeLocked()
}

func (w *wire) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.changeLocked()
}

func (w *wire) abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.aborted = true
	w.changeLocked()
}
