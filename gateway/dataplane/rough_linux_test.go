package dataplane

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// endless is a reader without end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestWhoNeverReadsDelaysNobody(t *testing.T) {
	w := join(t, newPlane(t, Config{}))
	flood := serve(t, loopback4, func(c *net.TCPConn) {
		defer c.Close()
		io.Copy(c, endless{})
	})
	ended := make(chan struct{})
	swallow := serve(t, loopback4, func(c *net.TCPConn) {
		defer c.Close()
		<-ended
	})
	t.Cleanup(func() { close(ended) })
	for range 4 {
		w.mustDial(flood) // this client never reads
		deaf := w.mustDial(swallow)
		go io.Copy(deaf, endless{}) // this server never reads; ends when the test closes deaf
	}
	c := w.mustDial(serve(t, loopback4, echoTCP))
	for range 50 {
		c.SetDeadline(time.Now().Add(20 * time.Second)) // the others wait forever
		c.Write([]byte("quick"))
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
}

// A black-out of the tunnel in the middle of a transfer, nothing closed: the connection lives.
func TestConnectionOutlivesBlackout(t *testing.T) {
	w := join(t, newPlane(t, Config{}))
	c := w.mustDial(serve(t, loopback4, echoTCP))
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		c.Write(body[:len(body)/2])
		w.dark.Store(true)
		time.AfterFunc(1500*time.Millisecond, func() { w.dark.Store(false) })
		c.Write(body[len(body)/2:])
	}()
	c.SetReadDeadline(time.Now().Add(15 * time.Second))
	got := make([]byte, len(body))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("%d of %d bytes came back: %v", n, len(body), err)
	}
}

// A client that vanished without a word is found out by probes; one that lives and is silent is kept.
func TestSilentClientsAreProbed(t *testing.T) {
	p := newPlane(t, Config{Timeouts: Timeouts{TCP: 200 * time.Millisecond, Transitory: 1200 * time.Millisecond}})
	w := join(t, p)
	var bare atomic.Int64 // segments without data; when nothing moves, probes
	w.tap = func(b []byte) {
		if h := header.IPv4(b); h.TransportProtocol() == header.TCPProtocolNumber && len(header.TCP(h.Payload()).Payload()) == 0 {
			bare.Add(1)
		}
	}
	c := w.mustDial(serve(t, loopback4, echoTCP))
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	before := bare.Load()
	eventually(t, 20*time.Second, "twice the probes that a dead client gets", func() bool {
		return bare.Load() >= before+2*clientProbes || p.flows.Load() == 0
	})
	if n := p.flows.Load(); n != 1 {
		t.Fatalf("%d flows: a living client was cut off for its silence", n)
	}
	w.dark.Store(true)
	eventually(t, 10*time.Second, "the dead client's flow ends", func() bool { return p.flows.Load() == 0 })
}

// When a port pair in TIME_WAIT is used again, the old endpoint's reset must not be seen: a connection
// tracker on the way would end the new connection with it.
func TestReusedPortSeesNoReset(t *testing.T) {
	w := join(t, newPlane(t, Config{}))
	var resets atomic.Int64
	w.tap = func(b []byte) {
		if h := header.IPv4(b); h.TransportProtocol() == header.TCPProtocolNumber && header.TCP(h.Payload()).Flags()&header.TCPFlagRst != 0 {
			resets.Add(1)
		}
	}
	to := serve(t, loopback4, func(c *net.TCPConn) { c.Write([]byte("bye")); c.Close() })
	for i := range 50 {
		c, err := w.redial(33333, netip.AddrPortFrom(loopback4, to.Port()))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
		c.Close()
	}
	if n := resets.Load(); n > 0 {
		t.Errorf("%d resets were seen", n)
	}
}
