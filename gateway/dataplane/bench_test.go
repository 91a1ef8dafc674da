package dataplane

import (
	"io"
	"net"
	"net/netip"
	"testing"
)

// The workstation's stack runs in the same process and shares the processors, so a figure here is what
// plane and workstation reach together. "bare" is the same transfer over plain loopback.

func BenchmarkTCPUp(b *testing.B) {
	sink := func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(io.Discard, c)
		c.Write([]byte("done"))
	}
	push := func(b *testing.B, c halfCloser) {
		defer c.Close()
		buf := make([]byte, 64<<10)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		c.CloseWrite()
		io.ReadAll(c)
	}
	both(b, sink, push)
}

func BenchmarkTCPDown(b *testing.B) {
	source := func(c *net.TCPConn) {
		defer c.Close()
		for buf := make([]byte, 64<<10); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}
	pull := func(b *testing.B, c halfCloser) {
		defer c.Close()
		buf := make([]byte, 64<<10)
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	both(b, source, pull)
}

// BenchmarkTCPRoundTrip is a 64-byte question and answer on an open connection.
func BenchmarkTCPRoundTrip(b *testing.B) {
	ask := func(b *testing.B, c halfCloser) {
		defer c.Close()
		buf := make([]byte, 64)
		for b.Loop() {
			c.Write(buf)
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	both(b, echoTCP, ask)
}

// BenchmarkTCPConnect opens a connection, exchanges a byte and closes it.
func BenchmarkTCPConnect(b *testing.B) {
	nativeAndTwin(b, func(b *testing.B, w *workstation, through via) {
		to := through(serve(b, loopback4, echoTCP))
		for b.Loop() {
			c, err := w.dial(to)
			if err != nil {
				b.Fatal(err)
			}
			touchAndClose(b, c)
		}
	})
	b.Run("bare", func(b *testing.B) {
		to := serve(b, loopback4, echoTCP)
		for b.Loop() {
			c, err := net.Dial("tcp", to.String())
			if err != nil {
				b.Fatal(err)
			}
			touchAndClose(b, c)
		}
	})
}

func touchAndClose(b *testing.B, c net.Conn) {
	defer c.Close()
	c.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkUDPRoundTrip is a datagram of 1,200 bytes and its echo.
func BenchmarkUDPRoundTrip(b *testing.B) {
	nativeAndTwin(b, func(b *testing.B, w *workstation, through via) {
		c := w.dialUDP(through(echoUDP(b, loopback4)))
		buf := make([]byte, 1200)
		b.SetBytes(1200)
		for b.Loop() {
			c.Write(buf)
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// via is the address that a workstation uses for a server: its own, or its twin's.
type via func(netip.AddrPort) netip.AddrPort

// nativeAndTwin runs a benchmark through the plane by the server's own address ("plane") and by its twin.
func nativeAndTwin(b *testing.B, do func(*testing.B, *workstation, via)) {
	b.Run("plane", func(b *testing.B) {
		do(b, join(b, newPlane(b, Config{})), func(a netip.AddrPort) netip.AddrPort { return a })
	})
	b.Run("twin", func(b *testing.B) { do(b, join(b, newTwinPlane(b, Config{})), twinOf) })
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// both runs a benchmark through the plane, natively and by a twin, and over bare loopback.
func both(b *testing.B, server func(*net.TCPConn), client func(*testing.B, halfCloser)) {
	nativeAndTwin(b, func(b *testing.B, w *workstation, through via) {
		client(b, w.mustDial(through(serve(b, loopback4, server))))
	})
	b.Run("bare", func(b *testing.B) {
		c, err := net.Dial("tcp", serve(b, loopback4, server).String())
		if err != nil {
			b.Fatal(err)
		}
		client(b, c.(*net.TCPConn))
	})
}
