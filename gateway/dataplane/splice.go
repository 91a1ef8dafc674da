package dataplane

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// chunks are what one read takes from a connection. They are held only while data moves: an idle flow
// costs none.
var chunks = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}

const chunkSize = 64 << 10

// splice moves data both ways until both sides have ended, or one was reset. It takes the calling
// goroutine and one more.
func (f *tcpFlow) splice(wq *waiter.Queue) {
	dead := waiter.NewFunctionEntry(waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) { f.noticeReset() })
	wq.EventRegister(&dead)
	defer wq.EventUnregister(&dead)
	var down error
	done := make(chan struct{})
	f.plane.wg.Go(func() {
		defer close(done)
		if down = f.toClient(wq); down != nil {
			f.settle()
			f.abort()
		}
	})
	up := f.toServer(wq)
	if errors.Is(up, errServer) {
		// The destination takes no more, but what it said before may still be on its way.
		<-done
		f.settle()
	} else if up != nil {
		f.abort()
	}
	<-done
	f.end(up != nil || down != nil)
}

var (
	errServer = errors.New("the destination's connection failed")
	errClient = errors.New("the client's connection failed")
)

// toServer moves data from the client to the destination. It returns nil after the client's FIN.
func (f *tcpFlow) toServer(wq *waiter.Queue) error {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	for {
		err := f.moveUp()
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-readable
		case *tcpip.ErrClosedForReceive:
			f.halfClosed.Store(true)
			f.touch()
			_ = f.server.CloseWrite() // if this fails, so does reading from it
			return nil
		case *errSocket:
			return errServer
		default:
			return errClient
		}
	}
}

// errSocket stands among the stack's errors for a failure of the destination's socket.
type errSocket struct{ tcpip.ErrConnectionReset }

// moveUp moves what one read yields.
func (f *tcpFlow) moveUp() tcpip.Error {
	b := chunks.Get().(*[]byte)
	defer chunks.Put(b)
	f.into = *b
	r, err := f.client.Read(&f.into, tcpip.ReadOptions{})
	if err != nil {
		return err
	}
	f.touch()
	if _, err := f.server.Write((*b)[:r.Count]); err != nil {
		return &errSocket{}
	}
	if m, ok := f.client.(interface{ ModerateRecvBuf(int) }); ok {
		m.ModerateRecvBuf(r.Count)
	}
	return nil
}

// toClient moves data from the destination to the client. It returns nil after the destination's FIN.
func (f *tcpFlow) toClient(wq *waiter.Queue) error {
	entry, writable := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	raw, err := f.server.SyscallConn()
	if err != nil {
		return errServer
	}
	var out bytes.Reader
	for {
		b, n, err := readChunk(raw)
		if err == nil && n > 0 {
			out.Reset((*b)[:n])
			err = f.write(&out, writable)
		}
		if b != nil {
			chunks.Put(b)
		}
		switch {
		case errors.Is(err, io.EOF):
			f.halfClosed.Store(true)
			f.serverEnded.Store(true)
			f.touch()
			_ = f.client.Shutdown(tcpip.ShutdownWrite) // fails only when it has ended already
			return nil
		case err != nil:
			return err
		}
		f.touch()
	}
}

// write gives all of out to the client's connection.
func (f *tcpFlow) write(out *bytes.Reader, writable <-chan struct{}) error {
	for out.Len() > 0 {
		_, err := f.client.Write(out, tcpip.WriteOptions{})
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-writable
		default:
			return errClient
		}
	}
	return nil
}

// noticeReset resets the destination's connection when the client's is gone, which also wakes whoever
// waits for the destination. It is called by the stack and must not call it.
func (f *tcpFlow) noticeReset() {
	if f.clientGone() {
		resetServer(f.server)
	}
}

// clientGone reports whether the client reset its connection, or answers no more.
func (f *tcpFlow) clientGone() bool {
	switch tcp.EndpointState(f.client.State()) {
	case tcp.StateError:
		return true
	case tcp.StateClose: // the ordinary end, unless our FIN was never sent
		return !f.serverEnded.Load()
	}
	return false
}

// settleTime is how long data that the destination sent before it reset its connection may take to
// reach the client. The reset of the stack's endpoint would throw it away.
const settleTime = 250 * time.Millisecond

func (f *tcpFlow) settle() {
	wait := settleTime - time.Since(time.Unix(0, f.active.Load()))
	if wait <= 0 || f.clientGone() {
		return
	}
	select {
	case <-time.After(wait):
	case <-f.peer.ctx.Done():
	}
}
