package dataplane

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
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
	b.Run("plane", func(b *testing.B) {
		w := join(b, newPlane(b, Config{}))
		to := serve(b, loopback4, echoTCP)
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
	w := join(b, newPlane(b, Config{}))
	c := w.dialUDP(echoUDP(b, loopback4))
	buf := make([]byte, 1200)
	b.SetBytes(1200)
	for b.Loop() {
		c.Write(buf)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// both runs a benchmark through the plane and over bare loopback.
func both(b *testing.B, server func(*net.TCPConn), client func(*testing.B, halfCloser)) {
	b.Run("plane", func(b *testing.B) {
		w := join(b, newPlane(b, Config{}))
		client(b, w.mustDial(serve(b, loopback4, server)))
	})
	b.Run("bare", func(b *testing.B) {
		c, err := net.Dial("tcp", serve(b, loopback4, server).String())
		if err != nil {
			b.Fatal(err)
		}
		client(b, c.(*net.TCPConn))
	})
}

// BenchmarkTwinAgainstNative does the same by a server's own address and by its twin in turns, so that
// whatever else the machine does befalls both, and reports the ratio of the median times.
func BenchmarkTwinAgainstNative(b *testing.B) {
	read := func(b *testing.B, c net.Conn, n int) {
		if _, err := io.CopyN(io.Discard, c, int64(n)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("download 128 KiB", func(b *testing.B) {
		conns := inTurns(b, func(c *net.TCPConn) {
			for buf := make([]byte, 128<<10); ; {
				if _, err := io.ReadFull(c, buf[:1]); err != nil {
					return
				}
				c.Write(buf)
			}
		})
		turns(b, func(i int) { conns[i].Write([]byte("x")); read(b, conns[i], 128<<10) })
	})
	b.Run("round trip", func(b *testing.B) {
		conns := inTurns(b, echoTCP)
		turns(b, func(i int) { conns[i].Write(make([]byte, 64)); read(b, conns[i], 64) })
	})
	b.Run("connect", func(b *testing.B) {
		w := join(b, newTwinPlane(b, Config{}))
		to := serve(b, loopback4, echoTCP)
		dst := [2]netip.AddrPort{to, twinOf(to)}
		turns(b, func(i int) {
			c, err := w.dial(dst[i])
			if err != nil {
				b.Fatal(err)
			}
			touchAndClose(b, c)
		})
	})
	b.Run("datagram", func(b *testing.B) {
		w := join(b, newTwinPlane(b, Config{}))
		to := echoUDP(b, loopback4)
		conns := [2]net.Conn{w.dialUDP(to), w.dialUDP(twinOf(to))}
		buf := make([]byte, 1200)
		turns(b, func(i int) {
			conns[i].Write(buf)
			if _, err := conns[i].Read(buf); err != nil {
				b.Fatal(err)
			}
		})
	})
}

// inTurns returns connections to a server by its own address and by its twin.
func inTurns(b *testing.B, server func(*net.TCPConn)) [2]net.Conn {
	w := join(b, newTwinPlane(b, Config{}))
	to := serve(b, loopback4, server)
	return [2]net.Conn{w.mustDial(to), w.mustDial(twinOf(to))}
}

// turns calls do with 0 (native) and 1 (twin), either first every other time, and reports the ratio of the
// median times, twin to native.
func turns(b *testing.B, do func(int)) {
	var took [2][]time.Duration
	first := 0
	for b.Loop() {
		for _, i := range [2]int{first, 1 - first} {
			begin := time.Now()
			do(i)
			took[i] = append(took[i], time.Since(begin))
		}
		first = 1 - first
	}
	for i := range took {
		slices.Sort(took[i])
	}
	middle := len(took[0]) / 2
	b.ReportMetric(float64(took[1][middle])/float64(took[0][middle]), "twin/native")
}
