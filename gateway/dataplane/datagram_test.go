package dataplane

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// echoUDP starts a UDP echo server on a loopback address.
func echoUDP(t testing.TB, on netip.Addr) netip.AddrPort {
	t.Helper()
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
	if err != nil {
		t.Fatal(err)
	}
	u.SetReadBuffer(4 << 20)
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := make([]byte, 65536); ; {
			n, from, err := u.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			u.WriteToUDPAddrPort(b[:n], from)
		}
	})
	t.Cleanup(func() { u.Close(); wg.Wait() })
	return u.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestUDPSizes(t *testing.T) {
	w := join(t, newPlane(t, Config{}))
	for _, on := range []netip.Addr{loopback4, loopback6} {
		c := w.dialUDP(echoUDP(t, on))
		for _, size := range []int{0, 1, 1200, 1392, 1393, 9000, 25000, 65507} {
			t.Run(fmt.Sprintf("%v/%d", on, size), func(t *testing.T) {
				sent := make([]byte, size)
				rand.NewChaCha8([32]byte{byte(size)}).Read(sent)
				if _, err := c.Write(sent); err != nil {
					t.Fatal(err)
				}
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				got := make([]byte, 65536)
				n, err := c.Read(got)
				if err != nil || !bytes.Equal(got[:n], sent) {
					t.Fatalf("%d bytes came back: %v", n, err)
				}
			})
		}
	}
}

// 10,000 datagrams of 1,200 bytes with 64 on their way at any time all come back.
func TestUDPWithoutLoss(t *testing.T) {
	w := join(t, newPlane(t, Config{}))
	c := w.dialUDP(echoUDP(t, loopback4))
	const count, window = 10000, 64
	room := make(chan bool, window)
	got := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(room)
		for b := make([]byte, 2048); got < count; got++ {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(b); err != nil {
				return
			}
			room <- true
		}
	})
	for i, b := 0, make([]byte, 1200); i < count; i++ {
		if i >= window && !<-room {
			break
		}
		c.Write(b)
	}
	for range room {
	}
	wg.Wait()
	if got != count {
		t.Errorf("%d of %d datagrams came back", got, count)
	}
}

func TestUDPToClosedPortIsRefused(t *testing.T) {
	p := newPlane(t, Config{})
	r := rawJoin(t, p)
	for _, on := range []netip.Addr{loopback4, loopback6} {
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
		if err != nil {
			t.Fatal(err)
		}
		to := u.LocalAddr().(*net.UDPAddr).AddrPort()
		u.Close()
		src, wantType, wantCode := node6, byte(1), byte(4)
		if on.Is4() {
			src, wantType, wantCode = node4, 3, 3
		}
		sent := packet.AppendUDP(nil, netip.AddrPortFrom(src, 5000), to, []byte("anyone?"))
		r.send(sent)
		_, payload := r.answer()
		if payload[0] != wantType || payload[1] != wantCode || !bytes.Equal(payload[8:], sent) {
			t.Errorf("%v: answered by % x, want port unreachable quoting the datagram", on, payload)
		}
	}
}

func TestUDPFlowsEndInSilence(t *testing.T) {
	p := newPlane(t, Config{Timeouts: Timeouts{UDP: 80 * time.Millisecond}})
	r := rawJoin(t, p)
	to := echoUDP(t, loopback4)
	r.send(packet.AppendUDP(nil, netip.AddrPortFrom(node4, 5000), to, []byte("one")))
	r.answer()
	eventually(t, 10*time.Second, "the flow ends", func() bool { return p.flows.Load() == 0 })
	r.send(packet.AppendUDP(nil, netip.AddrPortFrom(node4, 5000), to, []byte("two")))
	if _, payload := r.answer(); string(payload[8:]) != "two" {
		t.Errorf("after the silence: %q", payload[8:])
	}
}

// pingAllowed skips nothing silently: without ping sockets the plane's own behaviour is tested.
func pingAllowed(t *testing.T) bool {
	s, err := openPing(loopback4)
	if err != nil {
		t.Logf("ping sockets are not permitted here (%v)", err)
		return false
	}
	s.close()
	return true
}

func TestEcho(t *testing.T) {
	p := newPlane(t, Config{})
	r := rawJoin(t, p)
	allowed := pingAllowed(t)
	for _, row := range []struct {
		name     string
		src, dst netip.Addr
		size     int
		own      bool // answered by the plane itself
	}{
		{name: "host", src: node4, dst: loopback4, size: 56},
		{name: "host v6", src: node6, dst: loopback6, size: 56},
		{name: "no data", src: node4, dst: loopback4, size: 0},
		{name: "larger than the MTU", src: node4, dst: loopback4, size: 5000},
		{name: "larger than the MTU v6", src: node6, dst: loopback6, size: 5000},
		{name: "gateway", src: node4, dst: gateway4, size: 56, own: true},
		{name: "gateway v6", src: node6, dst: gateway6, size: 3000, own: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			data := bytes.Repeat([]byte("e"), row.size)
			for seq := range uint16(3) {
				packet.Fragment(echoPacket(row.src, row.dst, 0x1234, seq, data), 1420, 77+uint32(seq), nil, r.send)
				if !allowed && !row.own {
					continue
				}
				h, message := r.whole()
				e, ok := packet.ParseEchoReply(message, row.src.Is4())
				if !ok || e.ID != 0x1234 || e.Seq != seq || !bytes.Equal(e.Data, data) || h.Src != row.dst || h.Dst != row.src {
					t.Fatalf("reply from %v to %v: id %x, seq %d, %d bytes", h.Src, h.Dst, e.ID, e.Seq, len(e.Data))
				}
			}
		})
	}
	if !allowed {
		time.Sleep(20 * time.Millisecond)
		if got := r.received(); len(got) > 0 {
			t.Errorf("without ping sockets: %d answers", len(got))
		}
	}
}

// whole waits for a packet and puts it together if it is cut.
func (r *rawPeer) whole() (packet.Header, []byte) {
	var frags packet.Reassembler
	for {
		h, payload := r.answer()
		if !h.IsFragment() {
			return h, payload
		}
		b, ok := frags.Add(r.last, h, time.Now())
		if !ok {
			continue
		}
		h, err := packet.Parse(b)
		if err != nil {
			r.t.Fatal(err)
		}
		return h, b[h.PayloadOffset:h.Len]
	}
}

func TestUnknownProtocolIsTold(t *testing.T) {
	r := rawJoin(t, newPlane(t, Config{}))
	r.send(ipPacket(node4, loopback4, 132, make([]byte, 16))) // SCTP
	if _, payload := r.answer(); payload[0] != 3 || payload[1] != 2 {
		t.Errorf("answered by type %d code %d, want protocol unreachable", payload[0], payload[1])
	}
}
