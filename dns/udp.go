package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// readBufferBytes is room for a burst of a few thousand questions.
const readBufferBytes = 2 << 20

// udpClient is the sender of one datagram.
type udpClient struct {
	conn *net.UDPConn
	addr netip.AddrPort
}

func (c udpClient) send(msg []byte) { c.conn.WriteToUDPAddrPort(msg, c.addr) }

// serveUDP answers datagrams with a few readers, each of which replies at once to what it can.
func (s *Server) serveUDP(pc net.PacketConn) error {
	conn, err := asUDP(pc)
	if err != nil {
		return err
	}
	conn.SetReadBuffer(readBufferBytes) // as far as the kernel allows
	readers := max(2, runtime.GOMAXPROCS(0))
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() { errs[i] = s.readUDP(conn) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// readUDP reads until the socket is closed.
func (s *Server) readUDP(conn *net.UDPConn) error {
	in, out := make([]byte, maxQueryBytes), make([]byte, 0, maxUDPReply)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(in)
		if err != nil {
			if s.life.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("serve DNS on %s: %w", conn.LocalAddr(), err)
			}
			s.pause()
			continue
		}
		s.datagram(conn, in[:n], out, netip.AddrPortFrom(from.Addr(), from.Port()))
	}
}

func (s *Server) datagram(conn *net.UDPConn, msg, out []byte, from netip.AddrPort) {
	now := time.Now()
	if !s.opts.AllowedSource(from.Addr().Unmap()) {
		s.counters.refused.Add(1)
		return
	}
	reply, q, ask := s.quick(out, msg, false, now)
	if reply != nil {
		conn.WriteToUDPAddrPort(reply, from)
		return
	}
	if ask {
		s.flight(waiter{query: q.clone(), client: udpClient{conn, from}, since: now})
	}
}

// pause keeps a persistent error of a socket from spinning.
func (s *Server) pause() {
	select {
	case <-s.life.Done():
	case <-time.After(10 * time.Millisecond):
	}
}
