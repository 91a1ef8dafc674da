package dataplane

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/culvert-dev/culvert/internal/packet"
)

// rawPeer exchanges single packets with a plane, as a forger would.
type rawPeer struct {
	t    testing.TB
	p    *Plane
	mu   sync.Mutex
	got  [][]byte
	last []byte // what answer returned, as it came
	done sync.WaitGroup
}

func rawJoin(t testing.TB, p *Plane) *rawPeer {
	r := &rawPeer{t: t, p: p}
	r.done.Go(func() {
		bufs, sizes := make([][]byte, batchSize), make([]int, batchSize)
		for i := range bufs {
			bufs[i] = make([]byte, 65536)
		}
		for {
			n, err := p.TUN().Read(bufs, sizes, 0)
			if err != nil {
				return
			}
			r.mu.Lock()
			for i := range n {
				r.got = append(r.got, bytes.Clone(bufs[i][:sizes[i]]))
			}
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() { p.Close(); r.done.Wait() })
	return r
}

func (r *rawPeer) send(pkt []byte) {
	r.t.Helper()
	if _, err := r.p.TUN().Write([][]byte{bytes.Clone(pkt)}, 0); err != nil {
		r.t.Fatal(err)
	}
}

// received returns and forgets what came.
func (r *rawPeer) received() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// answer waits for one packet.
func (r *rawPeer) answer() (packet.Header, []byte) {
	r.t.Helper()
	var pkt []byte
	eventually(r.t, 10*time.Second, "an answer", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.got) == 0 {
			return false
		}
		pkt, r.got = r.got[0], r.got[1:]
		return true
	})
	r.last = pkt
	h, err := packet.Parse(pkt)
	if err != nil {
		r.t.Fatalf("answer % x: %v", pkt, err)
	}
	return h, pkt[h.PayloadOffset:h.Len]
}

// ipPacket builds a packet with the payload of an upper-layer protocol.
func ipPacket(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	var b []byte
	if src.Is4() {
		b = []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0}
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	} else {
		b = []byte{0x60, 0, 0, 0, 0, 0, proto, 64}
		binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	}
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	return append(b, payload...)
}

func synPacket(src, dst netip.AddrPort) []byte {
	s := make([]byte, 20)
	binary.BigEndian.PutUint16(s, src.Port())
	binary.BigEndian.PutUint16(s[2:], dst.Port())
	binary.BigEndian.PutUint32(s[4:], 1000)
	s[12], s[13] = 5<<4, packet.FlagSYN
	binary.BigEndian.PutUint16(s[14:], 65535)
	return ipPacket(src.Addr(), dst.Addr(), packet.ProtoTCP, s)
}

func echoPacket(src, dst netip.Addr, id, seq uint16, data []byte) []byte {
	proto := uint8(packet.ProtoICMPv6)
	if src.Is4() {
		proto = packet.ProtoICMP
	}
	m := packet.AppendEchoRequest(nil, src.Is4(), packet.EchoMessage{ID: id, Seq: seq, Data: data})
	return ipPacket(src, dst, proto, m)
}

// metric returns the value of a counter or gauge with these label values.
func metric(t testing.TB, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// watcher listens on every way that a forged packet could come out: the test's loopback.
type watcher struct {
	tcp  netip.AddrPort
	udp  netip.AddrPort
	seen chan string
}

func watch(t testing.TB, on netip.Addr) *watcher {
	w := &watcher{seen: make(chan string, 64)}
	w.tcp = serve(t, on, func(c *net.TCPConn) { w.seen <- "TCP connection"; c.Close() })
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
	if err != nil {
		t.Fatal(err)
	}
	w.udp = u.LocalAddr().(*net.UDPAddr).AddrPort()
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := make([]byte, 2048); ; {
			if _, _, err := u.ReadFrom(b); err != nil {
				return
			}
			w.seen <- "UDP datagram"
		}
	})
	t.Cleanup(func() { u.Close(); wg.Wait() })
	return w
}
