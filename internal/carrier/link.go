package carrier

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/culvert-dev/culvert/internal/frame"
)

// Acknowledgements go with whatever else is sent. By themselves they are sent ackDelay after the first
// byte; after ackBytes already, but at most every ackGap, because each is a message through all hops of
// a port-forward; after ackMost in any case. The window of a sender is never less than 25 ms of its rate.
const (
	ackDelay = 10 * time.Millisecond
	ackBytes = 32 << 10
	ackGap   = 2 * time.Millisecond
	ackMost  = 256 << 10
)

// Reasons why a link ended.
var (
	errClosed   = errors.New("stream closed")
	errReplaced = errors.New("stream replaced by another")
	errSilent   = errors.New("no answer")
	errHello    = errors.New("no hello")
)

// link is one stream. Its life:
//
//	start ──► (hello from the other side) ──► attached to its endpoint ──► close or error ──► wait
//
// A reader, a writer, a watcher and a closer goroutine each end when done is closed; closing done is
// the only way to end them.
type link struct {
	stream   io.ReadWriteCloser
	bind     *Bind
	endpoint *Endpoint
	timing   Timing

	done    chan struct{} // closed once the link has ended
	greeted chan struct{} // closed once the other side's hello is in peer
	changed chan struct{} // holds a token after suspect changed
	wake    chan struct{} // holds a token while the writer may have something to do
	tasks   sync.WaitGroup
	ackSoon *time.Timer // runs wakeForAck

	mu      sync.Mutex
	err     error // why it ended; set before done is closed
	peer    frame.Hello
	flow    flow
	control control
	health  health
}

// newLink starts a link over stream, says hello and waits for nothing. The caller closes it, and waits.
func newLink(stream io.ReadWriteCloser, bind *Bind, e *Endpoint, hello frame.Hello, timing Timing) (*link, error) {
	greeting, err := frame.AppendHello(nil, hello)
	if err != nil {
		return nil, err
	}
	l := &link{
		stream: stream, bind: bind, endpoint: e, timing: timing,
		done: make(chan struct{}), greeted: make(chan struct{}),
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
	l.ackSoon = time.AfterFunc(time.Hour, l.wakeForAck)
	l.ackSoon.Stop()
	l.control.greeting = greeting
	l.wakeWriter()
	l.tasks.Go(l.read)
	l.tasks.Go(l.write)
	l.tasks.Go(l.watch)
	l.tasks.Go(func() { // Close may take long on a dead connection: nobody else should wait for it
		<-l.done
		l.ackSoon.Stop()
		l.stream.Close()
	})
	return l, nil
}

// close ends the link for a reason; the first one counts. It does not wait.
func (l *link) close(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = reason
		close(l.done)
	}
}

// bye tells the other side why the link ends and then ends it, at the latest after timing.Bye.
func (l *link) bye(text string, reason error) {
	l.mu.Lock()
	l.control.bye, l.control.byeReason = text, reason
	l.mu.Unlock()
	l.wakeWriter()
	time.AfterFunc(l.timing.Bye, func() { l.close(reason) })
}

// wait returns, after close, once the stream is closed and all goroutines have ended.
func (l *link) wait() { l.tasks.Wait() }

// reason returns why the link has ended, nil while it has not.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// hello waits for the other side's hello, until cancel is closed or timing.Hello is over.
func (l *link) hello(cancel <-chan struct{}) (frame.Hello, error) {
	timeout := time.NewTimer(l.timing.Hello)
	defer timeout.Stop()
	select {
	case <-l.greeted:
		return l.peer, nil
	case <-l.done:
		return frame.Hello{}, l.reason()
	case <-cancel:
		return frame.Hello{}, errClosed
	case <-timeout.C:
		return frame.Hello{}, fmt.Errorf("%w from the other side within %v", errHello, l.timing.Hello)
	}
}

// rtt returns the shortest round trip seen lately, 0 when none was.
func (l *link) rtt() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flow.base
}

// suspect reports whether the link owes an answer for longer than timing.Miss.
func (l *link) suspect() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.health.suspect
}

func (l *link) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
