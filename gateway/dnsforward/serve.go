package dnsforward

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// streamIdle is how long a TCP connection may stay without a question (RFC 7766, section 6.2.3).
	streamIdle = 30 * time.Second
	// streamPending is how many questions of one connection are answered at a time.
	streamPending = 64
)

// Serve answers what comes by streams and datagrams until both are closed, and returns when all
// answers under way are finished. The remote addresses are the Peers' node addresses. It has the form
// of the data plane's LocalService.
func (f *Forwarder) Serve(streams net.Listener, datagrams net.PacketConn) {
	var serving sync.WaitGroup
	serving.Go(func() { f.serveDatagrams(datagrams, &serving) })
	serving.Go(func() { f.serveStreams(streams, &serving) })
	serving.Wait()
}

func (f *Forwarder) serveDatagrams(conn net.PacketConn, serving *sync.WaitGroup) {
	buf := make([]byte, maxMessage)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			f.ended("read a question", err)
			return
		}
		peer := addrOf(from)
		if n < headerSize || !peer.IsValid() || !f.clients.begin(peer, time.Now()) {
			f.metrics.dropped.WithLabelValues("udp").Inc()
			continue
		}
		message := append([]byte(nil), buf[:n]...)
		serving.Go(func() {
			defer f.clients.done(peer)
			if answer := f.answer(f.udp, message); answer != nil {
				// A Peer that has gone in the meantime needs no answer.
				_, _ = conn.WriteTo(answer, from)
			}
		})
	}
}

func (f *Forwarder) serveStreams(listener net.Listener, serving *sync.WaitGroup) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			f.ended("accept a connection", err)
			return
		}
		peer := addrOf(conn.RemoteAddr())
		if !peer.IsValid() || !f.clients.connect(peer) {
			f.metrics.dropped.WithLabelValues("tcp").Inc()
			conn.Close()
			continue
		}
		serving.Go(func() {
			defer f.clients.disconnect(peer)
			f.serveStream(conn, peer)
		})
	}
}

// ended says why a listener is no longer served, unless it was closed. Both listeners are the data
// plane's and hold no resource that could run out, so any error is their end.
func (f *Forwarder) ended(what string, err error) {
	if !errors.Is(err, net.ErrClosed) && f.ctx.Err() == nil {
		f.log.Error("DNS forwarder: cannot "+what, "err", err)
	}
}

// serveStream answers the questions of one connection, out of order where answers come so (RFC 7766,
// section 6.2.1.1).
func (f *Forwarder) serveStream(conn net.Conn, peer netip.Addr) {
	var answering sync.WaitGroup
	defer conn.Close()
	defer answering.Wait()
	var write sync.Mutex
	slots := make(chan struct{}, streamPending)
	for {
		message, err := readMessage(conn)
		if err != nil {
			return
		}
		if !f.admit(peer) {
			return
		}
		slots <- struct{}{}
		answering.Go(func() {
			defer func() { f.clients.done(peer); <-slots }()
			if answer := f.answer(f.tcp, message); answer != nil {
				write.Lock()
				defer write.Unlock()
				if err := writeMessage(conn, answer); err != nil {
					conn.Close() // the reader sees it
				}
			}
		})
	}
}

// admit waits until peer may ask; false means that it asked too much for too long or that the
// forwarder ends.
func (f *Forwarder) admit(peer netip.Addr) bool {
	for range 100 {
		if f.clients.begin(peer, time.Now()) {
			return true
		}
		select {
		case <-f.ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false
}

// readMessage reads one message with its length in front (RFC 1035, section 4.2.2). It reads no
// further than the message, so it needs no buffer between calls.
func readMessage(conn net.Conn) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(streamIdle)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint16(length[:])
	if size < headerSize {
		return nil, errNotQuery
	}
	// What a Peer announces is allocated as it arrives, not before.
	message, err := io.ReadAll(io.LimitReader(conn, int64(size)))
	if err == nil && len(message) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	return message, err
}

func writeMessage(conn net.Conn, message []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message)))
	_, err := conn.Write(append(framed, message...))
	return err
}

// addrOf returns the address alone; the zero Addr for what is not an internet address.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
