package dns

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

const (
	socketUses     = 32 // questions asked from one source port before it is given up
	socketIdle     = 5 * time.Second
	socketsIdle    = 16  // kept per server
	strayResponses = 100 // responses to other questions read on one socket before it is given up
)

// server is one resolver to ask. Its sockets are connected, so the kernel drops what others send, and belong to one
// question at a time; a response must repeat the random id and the question (RFC 5452 section 9).
type server struct {
	addr   netip.AddrPort
	health health

	mu     sync.Mutex
	idle   []*socket // most recently used last
	closed bool
}

type socket struct {
	*net.UDPConn
	uses int
	last time.Time
}

// socket returns an idle socket, or a new one from a port the kernel chooses at random.
func (s *server) socket(now time.Time) (*socket, error) {
	s.mu.Lock()
	for len(s.idle) > 0 {
		sock := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if now.Sub(sock.last) < socketIdle {
			s.mu.Unlock()
			return sock, nil
		}
		sock.Close()
	}
	s.mu.Unlock()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		return nil, err
	}
	return &socket{UDPConn: conn}, nil
}

// release takes back a socket whose question was answered.
func (s *server) release(sock *socket, now time.Time) {
	sock.uses++
	sock.last = now
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || sock.uses >= socketUses || len(s.idle) >= socketsIdle {
		sock.Close()
		return
	}
	s.idle = append(s.idle, sock)
}

// forget gives up the idle sockets.
func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sock := range s.idle {
		sock.Close()
	}
	s.idle = nil
}

// close gives up the idle sockets; those in use follow when their questions end.
func (s *server) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.forget()
}

// trial is one question sent to one server from one socket. It ends with finish.
type trial struct {
	server   *server
	sock     *socket
	msg      []byte
	size     int // of the response, at most
	answered bool
	unwatch  func() bool
}

// ask sends msg, with an id chosen here, to the server. Waiting for the response ends with ctx.
func (s *server) ask(ctx context.Context, msg []byte, size int) (*trial, error) {
	sock, err := s.socket(time.Now())
	if err != nil {
		return nil, err
	}
	t := &trial{server: s, sock: sock, msg: slices.Clone(msg), size: size}
	rand.Read(t.msg[:2])
	t.watch(ctx)
	if err := t.send(); err != nil {
		t.finish()
		return nil, err
	}
	return t, nil
}

// watch makes the end of ctx the end of waiting, instead of the context watched before.
func (t *trial) watch(ctx context.Context) {
	if t.unwatch != nil {
		t.unwatch()
	}
	t.unwatch = context.AfterFunc(ctx, func() { t.sock.SetReadDeadline(time.Unix(1, 0)) })
}

// await waits for the response until the given time or the end of ctx, which is watched; either is
// os.ErrDeadlineExceeded.
func (t *trial) await(ctx context.Context, until time.Time) ([]byte, error) {
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	t.sock.SetReadDeadline(until)
	// If ctx ended before this deadline replaced the watcher's, ctx shows it.
	if ctx.Err() != nil {
		return nil, os.ErrDeadlineExceeded
	}
	return t.receive()
}

func (t *trial) send() error {
	_, err := t.sock.Write(t.msg)
	return err
}

var errStray = errors.New("too many responses to other questions")

// receive waits for the response until the socket's read deadline.
func (t *trial) receive() ([]byte, error) {
	buf := readBuffer(t.size)
	defer buf.release()
	for range strayResponses {
		n, err := t.sock.Read(buf.bytes)
		if err != nil {
			return nil, err
		}
		if responds(buf.bytes[:n], t.msg) {
			t.answered = true
			return bytes.Clone(buf.bytes[:n]), nil
		}
	}
	return nil, errStray
}

// finish gives the socket back. One whose question was not answered is closed: the response may still come.
func (t *trial) finish() {
	// A watcher already on its way would disturb the socket's next user.
	if t.unwatch() && t.answered {
		t.server.release(t.sock, time.Now())
		return
	}
	t.sock.Close()
}

// responds reports whether msg is a response to query. A server that cannot read the question may leave it out.
func responds(msg, query []byte) bool {
	if len(msg) < headerBytes || msg[0] != query[0] || msg[1] != query[1] {
		return false
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR == 0 || flags&maskOpcode != 0 {
		return false
	}
	if binary.BigEndian.Uint16(msg[4:]) == 0 {
		rcode := flags & maskRcode
		return len(msg) == headerBytes && (rcode == wire.RcodeFormatError || rcode == wire.RcodeNotImplemented)
	}
	end, ok := questionEnd(msg)
	return ok && end <= len(query) && equalFold(msg[headerBytes:end], query[headerBytes:end])
}

// equalFold compares two question sections without regard to case. The type and class at their end cannot be
// mistaken for letters in a way that matters: they are compared again by value.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) || !bytes.Equal(a[len(a)-4:], b[len(b)-4:]) {
		return false
	}
	for i := range a[:len(a)-4] {
		if a[i] != b[i] && lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

// buffer is a pooled read buffer. Its usual size serves nearly every response by UDP.
type buffer struct{ bytes []byte }

const usualBuffer = 4096

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, usualBuffer)} }}

func readBuffer(size int) *buffer {
	if size <= usualBuffer {
		return buffers.Get().(*buffer)
	}
	return &buffer{make([]byte, size)}
}

func (b *buffer) release() {
	if len(b.bytes) == usualBuffer {
		buffers.Put(b)
	}
}
