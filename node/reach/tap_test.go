package reach

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/internal/packet"
)

// batchTUN is a TUN device that reads one batch again and again and counts what is written.
type batchTUN struct {
	packets [][]byte
	written int
	err     error
}

var _ tun.Device = (*batchTUN)(nil)

func (b *batchTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, p := range b.packets {
		sizes[i] = copy(bufs[i][offset:], p)
	}
	return len(b.packets), b.err
}

func (b *batchTUN) Write(bufs [][]byte, _ int) (int, error) {
	b.written += len(bufs)
	for _, p := range bufs {
		clear(p) // a device may use the buffers as it likes
	}
	return len(bufs), b.err
}

func (b *batchTUN) File() *os.File           { return os.Stdin }
func (b *batchTUN) MTU() (int, error)        { return 1400, nil }
func (b *batchTUN) Name() (string, error)    { return "batch", nil }
func (b *batchTUN) Events() <-chan tun.Event { return nil }
func (b *batchTUN) BatchSize() int           { return 128 }
func (b *batchTUN) Close() error             { return b.err }

// probePacket is a probe as the kernel sends it.
func probePacket(from uint16, to netip.AddrPort) []byte {
	self := self6
	if to.Addr().Is4() {
		self = self4
	}
	return packet.AppendUDP(nil, netip.AddrPortFrom(self, from), to, []byte("culvert probe"))
}

// errorAbout is the ICMP error of a gateway about pkt.
func errorAbout(pkt []byte, why packet.Reason) []byte {
	h, err := packet.Parse(pkt)
	if err != nil {
		panic(err)
	}
	gateway := gateway6
	if h.Is4() {
		gateway = gateway4
	}
	return packet.AppendUnreachable(nil, pkt, h, why, gateway)
}

func TestTapSeesProbes(t *testing.T) {
	addr4, addr6 := netip.MustParseAddr("10.132.0.1"), netip.MustParseAddr("fd10:132::1")
	for _, a := range []netip.Addr{addr4, addr6} {
		probe := probePacket(5000, netip.AddrPortFrom(a, firstPort+1))
		for _, row := range []struct {
			name    string
			pkt     []byte
			out, in bool
		}{
			{"the probe", probe, true, false},
			{"another program's traceroute", probePacket(5001, netip.AddrPortFrom(a, firstPort)), false, false},
			{"to another port", probePacket(5000, netip.AddrPortFrom(a, firstPort+tries)), false, false},
			{"to another address", probePacket(5000, netip.AddrPortFrom(a.Next(), firstPort)), false, false},
			{"time exceeded", errorAbout(probe, packet.TimeExceeded), false, true},
			{"prohibited", errorAbout(probe, packet.Prohibited), false, true},
			{"time exceeded about another", errorAbout(probePacket(5001, netip.AddrPortFrom(a, firstPort)), packet.TimeExceeded), false, false},
			{"half a packet", probe[:25], false, false},
			{"half an error", errorAbout(probe, packet.TimeExceeded)[:30], false, false},
			{"nothing", nil, false, false},
		} {
			out := through(t, addr4, addr6, row.pkt, true)
			in := through(t, addr4, addr6, row.pkt, false)
			if out[a].out.Load() != row.out || out[a].in.Load() {
				t.Errorf("%v, %s, read: %v", a, row.name, out[a].out.Load())
			}
			if in[a].in.Load() != row.in || in[a].out.Load() {
				t.Errorf("%v, %s, written: %v", a, row.name, in[a].in.Load())
			}
		}
	}
}

// through passes pkt, in the midst of a batch, through an armed Tap and returns the marks it left.
func through(t *testing.T, addr4, addr6 netip.Addr, pkt []byte, read bool) map[netip.Addr]*marks {
	t.Helper()
	const offset = 16
	other := probePacket(9, netip.MustParseAddrPort("10.132.0.1:9"))
	dev := &batchTUN{packets: [][]byte{other, pkt, other}}
	tap := NewTap(dev)
	w := &watch{5000, 5000, map[netip.Addr]*marks{addr4: {}, addr6: {}}}
	tap.watch.Store(w)
	bufs, sizes := make([][]byte, 3), make([]int, 3)
	for i, p := range dev.packets {
		bufs[i] = make([]byte, offset+2048)
		if !read {
			bufs[i] = append(bufs[i][:offset], p...)
		}
	}
	if read {
		n, err := tap.Read(bufs, sizes, offset)
		if n != 3 || err != nil || !bytes.Equal(bufs[1][offset:offset+sizes[1]], pkt) {
			t.Fatalf("read %d packets: %v", n, err)
		}
	} else if n, err := tap.Write(bufs, offset); n != 3 || err != nil || dev.written != 3 {
		t.Fatalf("wrote %d of %d packets: %v", dev.written, n, err)
	}
	return w.marks
}

func TestTapIsTheDevice(t *testing.T) {
	dev := &batchTUN{packets: [][]byte{{1}}, err: errors.New("the device's own")}
	tap := NewTap(dev)
	n, err := tap.Read([][]byte{make([]byte, 9)}, make([]int, 1), 4)
	if n != 1 || err != dev.err {
		t.Errorf("read %d, %v", n, err)
	}
	if n, err := tap.Write([][]byte{{1}, {2}}, 0); n != 2 || err != dev.err {
		t.Errorf("wrote %d, %v", n, err)
	}
	name, _ := tap.Name()
	mtu, _ := tap.MTU()
	if name != "batch" || mtu != 1400 || tap.BatchSize() != 128 || tap.File() != os.Stdin || tap.Close() != dev.err {
		t.Error("something is not the device's own")
	}
}

// Whatever comes out of the tunnel, it marks nothing but what is armed, and an error about a probe is never missed.
func FuzzTap(f *testing.F) {
	probe := probePacket(5000, netip.MustParseAddrPort("10.132.0.1:33434"))
	f.Add(probe)
	f.Add(errorAbout(probe, packet.TimeExceeded))
	f.Add(errorAbout(probePacket(5000, netip.MustParseAddrPort("[fd10:132::1]:33435")), packet.Prohibited))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &watch{port4: 5000, marks: map[netip.Addr]*marks{netip.MustParseAddr("10.132.0.1"): {}}}
		w.sent(b)
		w.answered(b)
		for a, m := range w.marks {
			if (m.out.Load() || m.in.Load()) && !bytes.Contains(b, a.AsSlice()) {
				t.Errorf("% x is no probe to %v", b, a)
			}
			if m.out.Load() && m.in.Load() {
				t.Errorf("% x is both a probe and an answer", b)
			}
			if m.out.Load() && w.probe(b) != m {
				t.Errorf("% x changed on the way", b)
			}
		}
	})
}

// BenchmarkTap reads batches of 128 packets of 1,400 bytes, which the device only copies; bare is the device alone.
func BenchmarkTap(b *testing.B) {
	dev := &batchTUN{}
	big := packet.AppendUDP(nil, netip.AddrPortFrom(self4, 5001), netip.MustParseAddrPort("10.132.0.1:7"), make([]byte, 1372))
	for range 128 {
		dev.packets = append(dev.packets, big)
	}
	armed, idle := NewTap(dev), NewTap(dev)
	armed.watch.Store(&watch{port4: 5000, marks: map[netip.Addr]*marks{netip.MustParseAddr("10.132.0.1"): {}}})
	for _, row := range []struct {
		name string
		dev  tun.Device
	}{{"bare", dev}, {"idle", idle}, {"armed", armed}} {
		bufs, sizes := make([][]byte, 128), make([]int, 128)
		for i := range bufs {
			bufs[i] = make([]byte, 1500)
		}
		b.Run(row.name+"/read", func(b *testing.B) {
			for b.Loop() {
				row.dev.Read(bufs, sizes, 16)
			}
		})
	}
}
