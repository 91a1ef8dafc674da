package dataplane

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// echoTCP sends everything back and closes when the client has ended.
func echoTCP(c *net.TCPConn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

func TestTCPEcho(t *testing.T) {
	w := join(t, newPlane(t, Config{}))
	for _, on := range []netip.Addr{loopback4, loopback6} {
		t.Run(on.String(), func(t *testing.T) {
			c := w.mustDial(serve(t, on, echoTCP))
			for _, text := range []string{"hello", strings.Repeat("x", 70000), "bye"} {
				go io.WriteString(c, text)
				got := make([]byte, len(text))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
					t.Fatalf("echo of %d bytes: %v", len(text), err)
				}
			}
		})
	}
}

func TestLargeTransfers(t *testing.T) {
	const size = 20 << 20
	body := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(body)
	want := sha256.Sum256(body)
	w := join(t, newPlane(t, Config{}))

	t.Run("up", func(t *testing.T) {
		got := make(chan [32]byte, 1)
		to := serve(t, loopback4, func(c *net.TCPConn) {
			defer c.Close()
			h := sha256.New()
			io.Copy(h, c)
			got <- [32]byte(h.Sum(nil))
		})
		c := w.mustDial(to)
		if _, err := io.Copy(c, bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		if g := <-got; g != want {
			t.Fatalf("got %x, want %x", g, want)
		}
	})
	t.Run("down", func(t *testing.T) {
		c := w.mustDial(serve(t, loopback4, func(c *net.TCPConn) {
			defer c.Close()
			c.Write(body)
		}))
		h := sha256.New()
		if n, err := io.Copy(h, c); err != nil || n != size {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if [32]byte(h.Sum(nil)) != want {
			t.Fatal("content differs")
		}
	})
	t.Run("13 both ways at once", func(t *testing.T) {
		to := serve(t, loopback4, echoTCP)
		var wg sync.WaitGroup
		for range 13 {
			wg.Go(func() {
				c, err := w.dial(to)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				wg.Go(func() {
					io.Copy(c, bytes.NewReader(body[:4<<20]))
					c.CloseWrite()
				})
				h := sha256.New()
				if n, err := io.Copy(h, c); err != nil || n != 4<<20 || [32]byte(h.Sum(nil)) != sha256.Sum256(body[:4<<20]) {
					t.Errorf("echo came back different: %d bytes, %v", n, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestHalfClose(t *testing.T) {
	w := join(t, newPlane(t, Config{}))
	t.Run("client ends first and still reads", func(t *testing.T) {
		c := w.mustDial(serve(t, loopback4, func(c *net.TCPConn) {
			defer c.Close()
			request, _ := io.ReadAll(c)
			fmt.Fprintf(c, "%d bytes read", len(request))
		}))
		io.WriteString(c, "request")
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "7 bytes read" {
			t.Fatalf("%q, %v", got, err)
		}
	})
	t.Run("server ends first and still reads", func(t *testing.T) {
		got := make(chan string, 1)
		c := w.mustDial(serve(t, loopback4, func(c *net.TCPConn) {
			defer c.Close()
			io.WriteString(c, "banner")
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			got <- string(b)
		}))
		if b, err := io.ReadAll(c); err != nil || string(b) != "banner" {
			t.Fatalf("%q, %v", b, err)
		}
		io.WriteString(c, "late answer")
		c.CloseWrite()
		if g := <-got; g != "late answer" {
			t.Fatalf("server read %q", g)
		}
	})
}

func TestRefusedPort(t *testing.T) {
	p := newPlane(t, Config{})
	w := join(t, p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	_, err = w.dial(to)
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("dial of a closed port: %v, want refused", err)
	}
	eventually(t, 10*time.Second, "no flow is left", func() bool { return p.flows.Load() == 0 })
	r := rawJoin(t, newPlane(t, Config{}))
	r.send(synPacket(netip.AddrPortFrom(node4, 4000), to)) // once: that the client repeats its SYN is not needed
	if _, payload := r.answer(); payload[13]&packet.FlagRST == 0 {
		t.Errorf("SYN to a closed port answered by % x, want RST", payload)
	}
}

func TestResetsArePassedOn(t *testing.T) {
	p := newPlane(t, Config{})
	w := join(t, p)
	t.Run("server resets", func(t *testing.T) {
		c := w.mustDial(serve(t, loopback4, func(c *net.TCPConn) {
			c.Read(make([]byte, 1))
			c.SetLinger(0)
			c.Close()
		}))
		c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Fatalf("read: %v, want reset", err)
		}
	})
	t.Run("what the server said before its reset arrives", func(t *testing.T) {
		c := w.mustDial(serve(t, loopback4, func(c *net.TCPConn) {
			c.Read(make([]byte, 1)) // more is on its way: closing with unread data resets
			c.Write(bytes.Repeat([]byte("z"), 100000))
			time.Sleep(20 * time.Millisecond)
			c.Close()
		}))
		c.Write(make([]byte, 1000))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if got, _ := io.ReadAll(c); len(got) != 100000 {
			t.Fatalf("%d bytes arrived", len(got))
		}
	})
	t.Run("client resets, before its end and after", func(t *testing.T) {
		for _, halfClosed := range []bool{false, true} {
			got := make(chan error, 1)
			c := w.mustDial(serve(t, loopback4, func(c *net.TCPConn) {
				defer c.Close()
				c.Write([]byte("unread")) // closing with unread data resets
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				_, err := io.ReadAll(c)
				if halfClosed && err == nil { // its FIN; the reset shows when writing
					for range 100 {
						if _, err = c.Write([]byte("x")); err != nil {
							break
						}
						time.Sleep(10 * time.Millisecond)
					}
				}
				got <- err
			}))
			if _, err := c.Read(make([]byte, 1)); err != nil { // the rest is there, and unread
				t.Fatal(err)
			}
			if halfClosed {
				c.CloseWrite()
			}
			c.Close()
			if err := <-got; err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("half-closed %v: server got %v, want a reset", halfClosed, err)
			}
		}
	})
	eventually(t, 10*time.Second, "no flow is left", func() bool { return p.flows.Load() == 0 })
}

// synRepeat is a little less than the time after which a client repeats a SYN (RFC 6298).
const synRepeat = 900 * time.Millisecond

// A port pair used again must not wait for TIME_WAIT of the stack: 5,000 connections from 8 ports.
func TestShortConnectionsNeverStall(t *testing.T) {
	rows := []struct {
		name   string
		server func(*net.TCPConn)
		client func(net.Conn) error
	}{
		{"closed first by the server", func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 4))
			io.WriteString(c, "pong")
			c.Close()
		}, func(c net.Conn) error {
			io.WriteString(c, "ping")
			_, err := io.ReadAll(c)
			return err
		}},
		{"closed first by the client", echoTCP, func(c net.Conn) error {
			io.WriteString(c, "ping")
			_, err := io.ReadFull(c, make([]byte, 4))
			return err
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := join(t, newPlane(t, Config{}))
			to := serve(t, loopback4, row.server)
			var wg sync.WaitGroup
			var slowest, stalled atomic.Int64
			for port := range 8 {
				wg.Go(func() {
					for i := range 625 {
						start := time.Now()
						c, err := w.redial(uint16(20000+port), to)
						if err != nil {
							t.Errorf("connection %d: %v", i, err)
							return
						}
						err = row.client(c)
						c.Close()
						if err != nil {
							t.Errorf("connection %d: %v", i, err)
							return
						}
						took := time.Since(start)
						slowest.Store(max(slowest.Load(), int64(took)))
						if took > synRepeat {
							stalled.Add(1)
						}
					}
				})
			}
			wg.Wait()
			// A machine that is busy with something else may hold up one or the other; a port pair whose
			// SYN is dropped holds up nearly every connection after the first on it.
			if n := stalled.Load(); n > 50 {
				t.Errorf("%d of 5000 took as long as a SYN that is dropped and repeated, the slowest %v", n, time.Duration(slowest.Load()))
			}
			t.Logf("slowest %v", time.Duration(slowest.Load()))
		})
	}
}

// redial dials from a port as soon as the workstation's own stack has let go of it.
func (w *workstation) redial(port uint16, to netip.AddrPort) (net.Conn, error) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		c, err := w.dialFrom(port, to)
		if err == nil {
			return c, nil
		}
		if !strings.Contains(err.Error(), "in use") || time.Now().After(end) {
			return nil, err
		}
	}
}

func TestThousandAtOnce(t *testing.T) {
	p := newPlane(t, Config{})
	w := join(t, p)
	to := serve(t, loopback4, echoTCP)
	var wg sync.WaitGroup
	start := time.Now()
	hold := make(chan struct{})
	var open atomic.Int64
	for i := range 1000 {
		wg.Go(func() {
			c, err := w.dial(to)
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
				return
			}
			defer c.Close()
			text := fmt.Sprintf("connection %d", i)
			io.WriteString(c, text)
			got := make([]byte, len(text))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
				t.Errorf("echo %d: %q, %v", i, got, err)
			}
			open.Add(1)
			<-hold
		})
	}
	eventually(t, 20*time.Second, "1,000 connections echo", func() bool { return open.Load() == 1000 || t.Failed() })
	t.Logf("1,000 connections echoed in %v", time.Since(start))
	if n := p.flows.Load(); n != 1000 {
		t.Errorf("%d flows are open, want 1000", n)
	}
	close(hold)
	wg.Wait()
	eventually(t, 10*time.Second, "all flows end", func() bool { return p.flows.Load() == 0 })
}
