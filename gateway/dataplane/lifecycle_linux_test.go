package dataplane

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// deafAddr returns an address whose connections neither succeed nor fail: a listener with a full
// backlog, to which the kernel drops every further SYN.
func deafAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback4.As4()}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(loopback4, uint16(sa.(*syscall.SockaddrInet4).Port))
	for {
		c, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
}

func TestRemovedPeerIsCutOff(t *testing.T) {
	p := newPlane(t, Config{Timeouts: Timeouts{Dial: time.Hour}}) // nothing ends by itself
	w := join(t, p)
	cut := make(chan error, 1)
	c := w.mustDial(serve(t, loopback4, func(c *net.TCPConn) {
		defer c.Close()
		_, err := io.Copy(c, c)
		cut <- err
	}))
	io.WriteString(c, "alive")
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	u := w.dialUDP(echoUDP(t, loopback4))
	u.Write([]byte("alive"))
	if _, err := u.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	dialled := make(chan error, 1)
	ctx, giveUp := context.WithCancel(context.Background())
	deaf := deafAddr(t)
	go func() { _, err := w.dialContext(ctx, deaf); dialled <- err }()
	eventually(t, 10*time.Second, "three flows", func() bool { return p.flows.Load() == 3 })

	p.SetPeers([]PeerAddrs{otherPeer()})
	if err := <-cut; err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the server got %v, want a reset", err)
	}
	eventually(t, 10*time.Second, "no flow is left", func() bool { return p.flows.Load() == 0 })
	if _, err := u.Write([]byte("still there?")); err != nil {
		t.Fatal(err)
	}
	u.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := u.Read(make([]byte, 20)); err == nil {
		t.Errorf("a removed Peer got %d bytes", n)
	}
	p.SetPeers([]PeerAddrs{testPeer(), otherPeer()}) // it returns and works
	u.SetReadDeadline(time.Now().Add(5 * time.Second))
	u.Write([]byte("again"))
	if _, err := u.Read(make([]byte, 5)); err != nil {
		t.Errorf("after its return: %v", err)
	}
	giveUp()
	<-dialled
}

func TestSetPeersKeepsWhoStays(t *testing.T) {
	p := newPlane(t, Config{})
	w := join(t, p)
	c := w.mustDial(serve(t, loopback4, echoTCP))
	check := func(text string) error {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, len(text)))
		return err
	}
	p.SetPeers([]PeerAddrs{otherPeer(), testPeer()})
	p.SetPeers([]PeerAddrs{testPeer()})
	bad := PeerAddrs{ID: "bad", Node: []netip.Addr{node4}, Gateway: []netip.Addr{gateway6}}
	taken := PeerAddrs{ID: "taken", Node: []netip.Addr{node4}, Gateway: []netip.Addr{gateway4}}
	p.SetPeers([]PeerAddrs{testPeer(), bad, taken})
	if err := check("still here"); err != nil {
		t.Fatalf("a Peer that stayed lost its connection: %v", err)
	}
	again := testPeer()
	again.ID = "another object"
	p.SetPeers([]PeerAddrs{again})
	if err := check("gone"); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a connection outlived its Peer's ID: %v", err)
	}
}

func TestNothingIsSentUnasked(t *testing.T) {
	p := newPlane(t, Config{})
	r := rawJoin(t, p)
	time.Sleep(100 * time.Millisecond)
	if got := r.received(); len(got) > 0 {
		t.Errorf("%d packets came unasked: % x", len(got), got[0])
	}
}

func TestDialTimeoutIsHostUnreachable(t *testing.T) {
	p := newPlane(t, Config{Timeouts: Timeouts{Dial: 300 * time.Millisecond}})
	r := rawJoin(t, p)
	to := deafAddr(t)
	start := time.Now()
	r.send(synPacket(netip.AddrPortFrom(node4, 4000), to))
	h, payload := r.answer()
	if payload[0] != 3 || payload[1] != 1 || h.Src != gateway4 {
		t.Errorf("answered by type %d code %d from %v, want host unreachable", payload[0], payload[1], h.Src)
	}
	if d := time.Since(start); d < 300*time.Millisecond {
		t.Errorf("answered after %v", d)
	}
}

func TestRepeatedSYNsDialOnce(t *testing.T) {
	p := newPlane(t, Config{})
	r := rawJoin(t, p)
	to := deafAddr(t)
	for range 10 {
		r.send(synPacket(netip.AddrPortFrom(node4, 4000), to))
	}
	if n := p.flows.Load(); n != 1 {
		t.Errorf("%d flows for one connection", n)
	}
	pr := p.peers.Load().byNode[node4]
	pr.mu.Lock()
	dialing := pr.dialing
	pr.mu.Unlock()
	if dialing != 1 {
		t.Errorf("%d dials", dialing)
	}
	if got := r.received(); len(got) > 0 {
		t.Errorf("answered before the dial ended: % x", got[0])
	}
}

func TestLimits(t *testing.T) {
	p := newPlane(t, Config{Limits: Limits{FlowsPerPeer: 3, DialsPerPeer: 2}})
	r := rawJoin(t, p)
	to := deafAddr(t)
	for port := range uint16(2) {
		r.send(synPacket(netip.AddrPortFrom(node4, 4000+port), to))
	}
	r.send(synPacket(netip.AddrPortFrom(node4, 4002), to))
	_, payload := r.answer()
	if tcp, ok := packet.ParseTCP(payload); !ok || tcp.Flags&packet.FlagRST == 0 || tcp.DstPort != 4002 {
		t.Errorf("a third dial was answered by % x, want RST", payload)
	}
	udp := echoUDP(t, loopback4)
	r.send(packet.AppendUDP(nil, netip.AddrPortFrom(node4, 5000), udp, []byte("fits")))
	if _, payload := r.answer(); string(payload[8:]) != "fits" {
		t.Errorf("the third flow was answered by % x", payload)
	}
	r.send(packet.AppendUDP(nil, netip.AddrPortFrom(node4, 5001), udp, []byte("too many")))
	if _, payload := r.answer(); payload[0] != 3 || payload[1] != 13 {
		t.Errorf("the fourth flow was answered by % x, want prohibited", payload)
	}
	// Another Peer has limits of its own.
	r.send(packet.AppendUDP(nil, netip.AddrPortFrom(otherNode4, 5000), udp, []byte("other")))
	if h, payload := r.answer(); string(payload[8:]) != "other" || h.Dst != otherNode4 {
		t.Errorf("another Peer was answered by % x", payload)
	}
}

func TestHalfClosedConnectionEndsInSilence(t *testing.T) {
	p := newPlane(t, Config{Timeouts: Timeouts{Transitory: 150 * time.Millisecond, Dial: time.Second}})
	w := join(t, p)
	ended := make(chan error, 1)
	c := w.mustDial(serve(t, loopback4, func(c *net.TCPConn) {
		defer c.Close()
		io.ReadAll(c)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		for {
			if _, err := c.Write(nil); err != nil {
				ended <- err
				return
			}
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				ended <- err
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}))
	c.CloseWrite()
	eventually(t, 10*time.Second, "the flow ends", func() bool { return p.flows.Load() == 0 })
	<-ended
}

func TestCloseEndsEverything(t *testing.T) {
	p := newPlane(t, Config{ServeDNS: func(l net.Listener, pc net.PacketConn) {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}})
	w := join(t, p)
	c := w.mustDial(serve(t, loopback4, echoTCP))
	io.WriteString(c, "x")
	r := make([]byte, 1)
	c.Read(r)
	p.Close() // the connection would go on forever
	p.Close()
	if _, err := p.TUN().Write([][]byte{synPacket(netip.AddrPortFrom(node4, 1), netip.AddrPortFrom(loopback4, 1))}, 0); err != os.ErrClosed {
		t.Errorf("write after close: %v", err)
	}
	if _, err := p.TUN().Read([][]byte{make([]byte, 2000)}, make([]int, 1), 0); err != os.ErrClosed {
		t.Errorf("read after close: %v", err)
	}
	for range p.TUN().Events() { // ends because the channel is closed
	}
	p.SetPeers([]PeerAddrs{testPeer()})
	if len(p.peers.Load().peers) != 0 {
		t.Error("a closed plane took Peers")
	}
}
