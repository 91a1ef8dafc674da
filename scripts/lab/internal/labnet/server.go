package labnet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// Ports of the server.
const (
	portHTTP     = "8080"
	portEcho     = "7000" // TCP and UDP
	portCloser   = "7001"
	portReached  = "7002" // TCP and UDP
	portDiscard  = "7010"
	portSource   = "7011"
	portLoopback = "9999"
)

// LoopbackText is what the loopback-only listener answers.
const LoopbackText = "only this pod can read this\n"

func setupServer(f *flag.FlagSet) func(context.Context, []string) (any, error) {
	loopback := f.Bool("loopback", true, "also listen on port 9999 of the loopback addresses")
	return func(ctx context.Context, _ []string) (any, error) {
		return nil, serve(ctx, *loopback)
	}
}

// serve opens every listener before it serves any, and returns when ctx ends or
// one of them fails.
func serve(ctx context.Context, loopback bool) error {
	s := &server{conns: map[net.Conn]bool{}, failed: make(chan error, 16)}
	defer s.close()
	for port, handle := range map[string]func(net.Conn){
		portEcho: echoTCP, portCloser: closeFirst, portReached: reached, portDiscard: discard, portSource: source,
	} {
		if err := s.listen("tcp", ":"+port, handle); err != nil {
			return err
		}
	}
	if loopback {
		if err := s.listenLoopback(); err != nil {
			return err
		}
	}
	for port, answer := range map[string]answer{portEcho: echoUDP, portReached: reachedUDP} {
		if err := s.serveUDP(port, answer); err != nil {
			return err
		}
	}
	if err := s.serveHTTP(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// server owns the listeners and connections; close ends all of them and waits.
type server struct {
	wait   sync.WaitGroup
	failed chan error

	mu      sync.Mutex // guards the rest
	closed  bool
	closers []io.Closer
	conns   map[net.Conn]bool
}

func (s *server) close() {
	s.mu.Lock()
	s.closed = true
	for _, c := range s.closers {
		c.Close()
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
}

func (s *server) own(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, c)
}

func (s *server) fail(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		select {
		case s.failed <- err:
		default:
		}
	}
}

func (s *server) listen(network, addr string, handle func(net.Conn)) error {
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	s.own(l)
	s.wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				s.fail(err)
				return
			}
			s.wait.Go(func() { s.handle(conn, handle) })
		}
	})
	return nil
}

func (s *server) handle(conn net.Conn, handle func(net.Conn)) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		conn.Close()
		return
	}
	s.conns[conn] = true
	s.mu.Unlock()
	handle(conn)
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
}

// listenLoopback answers a fixed text on the loopback addresses alone. A pod
// without IPv6 has no ::1.
func (s *server) listenLoopback() error {
	answer := func(c net.Conn) { _, _ = io.WriteString(c, LoopbackText) }
	if err := s.listen("tcp4", net.JoinHostPort("127.0.0.1", portLoopback), answer); err != nil {
		return err
	}
	if err := s.listen("tcp6", net.JoinHostPort("::1", portLoopback), answer); err != nil {
		fmt.Fprintf(os.Stderr, "labnet server: no listener on [::1]: %v\n", err)
	}
	return nil
}

func echoTCP(c net.Conn) { _, _ = io.Copy(c, c) }

// closeFirst writes a line and closes without waiting for the client, which
// leaves TIME_WAIT on this side.
func closeFirst(c net.Conn) { _, _ = io.WriteString(c, "bye\n") }

// reached tells the address at which it was reached, in a line, and closes.
func reached(c net.Conn) {
	if addr, ok := c.LocalAddr().(*net.TCPAddr); ok {
		_, _ = fmt.Fprintln(c, addr.AddrPort().Addr().Unmap())
	}
}

func discard(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func source(c net.Conn) {
	block := make([]byte, 256<<10)
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

func (s *server) serveHTTP() error {
	l, err := net.Listen("tcp", ":"+portHTTP)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: Handler(), ReadHeaderTimeout: 10 * time.Second}
	s.own(srv)
	s.wait.Go(func() { s.fail(srv.Serve(l)) })
	return nil
}

// queryInt reads a whole number between 0 and limit from the query.
func queryInt(r *http.Request, key string, absent, limit int64) (int64, error) {
	text := r.URL.Query().Get(key)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%s=%s: want a number up to %d", key, text, limit)
	}
	return n, nil
}
