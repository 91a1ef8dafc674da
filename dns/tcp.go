package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

const (
	tcpConnections = 128 // at once; more are closed unread
	tcpPipeline    = 64  // questions being asked at once for one connection; more are not read yet
	tcpIdle        = 10 * time.Second
	tcpWrite       = 5 * time.Second
)

// serveTCP accepts connections until the listener is closed and waits for their ends.
func (s *Server) serveTCP(l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
		case s.life.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve DNS on %s: %w", l.Addr(), err)
		default:
			s.pause()
			continue
		}
		if !s.opts.AllowedSource(localAddr(conn.RemoteAddr()).Addr()) {
			s.counters.refused.Add(1)
			conn.Close()
			continue
		}
		if !s.tcpSlots.take() {
			s.counters.dropped.Add(1)
			conn.Close()
			continue
		}
		wg.Go(func() {
			defer s.tcpSlots.give()
			s.counters.tcp.Add(1)
			defer s.counters.tcp.Add(-1)
			s.serveStream(conn)
		})
	}
}

// stream is one TCP client. Questions are read one by one and answered as the answers come (RFC 7766 section 6.2.1.1).
type stream struct {
	conn    net.Conn
	pending slots // one per question being asked

	mu sync.Mutex // held while writing
}

// send replies to one question being asked.
func (c *stream) send(msg []byte) {
	c.write(msg)
	c.pending.give()
}

// write writes msg whole, or closes the connection: after a part of a message nothing can follow.
func (c *stream) write(msg []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(tcpWrite))
	buf := readBuffer(2 + len(msg))
	defer buf.release()
	if _, err := c.conn.Write(frame(buf.bytes[:0], msg)); err != nil {
		c.conn.Close()
	}
}

// drain waits until every question being asked is answered.
func (c *stream) drain() {
	for range cap(c.pending) {
		c.pending <- struct{}{}
	}
}

// serveStream answers the questions of one connection until the client ends it or is silent for too long.
func (s *Server) serveStream(conn net.Conn) {
	c := &stream{conn: conn, pending: make(slots, tcpPipeline)}
	stop := context.AfterFunc(s.life, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	defer c.drain()
	in, out := bufio.NewReaderSize(conn, 2+maxQueryBytes), make([]byte, 0, usualBuffer)
	for {
		conn.SetReadDeadline(time.Now().Add(tcpIdle))
		msg, err := nextMessage(in)
		if errors.Is(err, os.ErrDeadlineExceeded) && len(c.pending) > 0 {
			continue
		}
		if err != nil {
			return
		}
		s.message(c, msg, out)
	}
}

// nextMessage returns the next message on a stream, in memory that is reused after. An error may come in the midst of a
// message; the next call then goes on with it. A message longer than any query is an error.
func nextMessage(r *bufio.Reader) ([]byte, error) {
	length, err := r.Peek(2)
	if err != nil {
		return nil, err
	}
	msg, err := r.Peek(2 + int(binary.BigEndian.Uint16(length)))
	if err != nil {
		return nil, err
	}
	r.Discard(len(msg))
	return msg[2:], nil
}

func (s *Server) message(c *stream, msg, out []byte) {
	now := time.Now()
	reply, q, ask := s.quick(out, msg, true, now)
	if reply != nil {
		c.write(reply)
		return
	}
	if ask {
		c.pending <- struct{}{}
		s.flight(waiter{query: q.clone(), client: c, tcp: true, since: now})
	}
}
