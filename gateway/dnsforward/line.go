package dnsforward

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// errLineClosed says that a line ended before the answer came.
var errLineClosed = errors.New("the connection to the nameserver was closed")

// line is one socket towards one nameserver, shared by many questions at a time that are told apart
// by random ids.
//
//	open ──(age, silence or an error)──► retired: no new questions ──(last one done)──► closed
//
// UDP lines are retired after lineAge: a new source port spreads the questions over the cluster's
// resolvers, leaves a resolver that has gone, and makes forged answers harder to place. TCP lines are
// retired when idle, before the nameserver closes them (RFC 7766, section 6.2.3).
type line struct {
	conn   *dns.Conn
	stream bool
	born   time.Time
	done   chan struct{} // closed with the line

	mu      sync.Mutex // guards what follows
	retired bool
	calls   map[uint16]*call
	used    time.Time   // when the last question was added or answered
	expiry  *time.Timer // runs expire; stopped with the line
	err     error       // why the line ended

	write sync.Mutex // held while one message is written
}

// call is a question that waits for its answer.
type call struct {
	question question
	answer   chan []byte // buffered for one
}

const (
	lineAge      = 10 * time.Second // of a UDP line
	lineIdle     = 3 * time.Second  // of a TCP line
	maxCalls     = 4096             // on one line; ids stay hard to guess
	dialTimeout  = 1500 * time.Millisecond
	writeTimeout = time.Second
	udpBuffer    = 1 << 20 // bytes: many answers may come at once on one socket
)

// dialLine opens a line that ends with life at the latest, and starts its reader.
func dialLine(ctx, life context.Context, network string, server netip.AddrPort, readers *sync.WaitGroup) (*line, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	if udp, ok := conn.(*net.UDPConn); ok {
		_ = udp.SetReadBuffer(udpBuffer) // the system may give less, which is no reason to fail
	}
	now := time.Now()
	l := &line{conn: &dns.Conn{Conn: conn}, stream: network == "tcp", born: now, used: now,
		done: make(chan struct{}), calls: map[uint16]*call{}}
	l.expiry = time.AfterFunc(l.lifetime(), l.expire)
	readers.Go(func() {
		stop := context.AfterFunc(life, func() { l.close(errLineClosed) })
		defer stop()
		l.read()
	})
	return l, nil
}

// lifetime is how long the line stays open: from its beginning, or since it was used last.
func (l *line) lifetime() time.Duration {
	if l.stream {
		return lineIdle
	}
	return lineAge
}

// ask sends q and waits for its answer, whose id is not that of q.
func (l *line) ask(ctx context.Context, q question) ([]byte, error) {
	number, c, err := l.add(q)
	if err != nil {
		return nil, err
	}
	defer l.remove(number)
	if err := l.send(withID(q.raw, number)); err != nil {
		l.close(err)
		return nil, err
	}
	begin := time.Now()
	select {
	case answer := <-c.answer:
		return answer, nil
	case <-l.done:
		select { // it may have come just before the end
		case answer := <-c.answer:
			return answer, nil
		default:
			return nil, l.cause()
		}
	case <-ctx.Done():
		if time.Since(begin) >= resendAfter {
			l.retire() // whoever is behind this port may have gone
		}
		return nil, context.Cause(ctx)
	}
}

// add enters q under a free random id.
func (l *line) add(q question) (uint16, *call, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired || len(l.calls) >= maxCalls {
		return 0, nil, errLineClosed
	}
	c := &call{question: q, answer: make(chan []byte, 1)}
	for {
		number := uint16(rand.Uint32()) // ChaCha8, seeded by the system: not to be guessed
		if _, taken := l.calls[number]; !taken {
			l.calls[number], l.used = c, time.Now()
			return number, c, nil
		}
	}
}

func (l *line) remove(number uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, number)
	l.used = time.Now()
	if l.retired && len(l.calls) == 0 {
		l.closeLocked(errLineClosed)
	}
}

func (l *line) send(message []byte) error {
	l.write.Lock()
	defer l.write.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := l.conn.Write(message)
	return err
}

// read hands answers to those who wait for them until the line ends.
func (l *line) read() {
	buf := make([]byte, maxMessage)
	for {
		n, err := l.conn.Read(buf)
		if err != nil {
			l.close(err)
			return
		}
		l.deliver(buf[:n])
	}
}

// deliver gives a copy of raw to the question it answers; what answers none is dropped.
func (l *line) deliver(raw []byte) {
	if len(raw) < headerSize {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls[id(raw)]
	if c == nil || !answers(raw, c.question) {
		return
	}
	select {
	case c.answer <- append([]byte(nil), raw...):
	default: // answered already
	}
}

// expire retires the line when its time has come, and looks again later when it has not.
func (l *line) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if left := lineIdle - time.Since(l.used); l.stream && (len(l.calls) > 0 || left > 0) {
		l.expiry.Reset(max(left, lineIdle/4))
		return
	}
	if l.retired = true; len(l.calls) == 0 {
		l.closeLocked(errLineClosed)
	}
}

// retire lets no further question on the line.
func (l *line) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
}

// state reports whether a question may be added, and how many wait for an answer.
func (l *line) state() (usable bool, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.retired && len(l.calls) < maxCalls, len(l.calls)
}

// close ends the line for err; later calls do nothing.
func (l *line) close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeLocked(err)
}

func (l *line) closeLocked(err error) {
	l.retired = true
	if l.err == nil {
		l.err = err
		l.expiry.Stop()
		close(l.done)
		l.conn.Close()
	}
}

// cause returns why the line ended.
func (l *line) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
