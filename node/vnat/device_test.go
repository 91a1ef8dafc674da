package vnat

import (
	"bytes"
	"errors"
	"maps"
	"net/netip"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/internal/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// offset is where wireguard-go has packets in its buffers.
const offset = 16

// Addresses of the tests, in the form the product uses. Of each host of the cluster there is a real address, one
// on the wire and a VIP; those of gone have no lease, those of astray a lease but no twin.
var (
	self4, self6 = netip.MustParseAddr("245.1.2.10"), netip.MustParseAddr("fd00:c0de::10")
	gateway4     = netip.MustParseAddr("245.1.2.11")

	vip4, wire4 = netip.MustParseAddr("246.255.0.7"), netip.MustParseAddr("241.130.4.7")
	vip6, wire6 = netip.MustParseAddr("fd11:1:2:ffff::7"), netip.MustParseAddr("fd11:1:2:130::4:7")
	vipNested   = netip.MustParseAddr("246.255.0.8") // of 10.130.9.1, whose /24 has a twin of its own
	wireNested  = netip.MustParseAddr("242.0.0.1")

	gone4, wireGone4 = netip.MustParseAddr("246.255.9.9"), netip.MustParseAddr("241.130.99.9")
	gone6, wireGone6 = netip.MustParseAddr("fd11:1:2:ffff::9"), netip.MustParseAddr("fd11:1:2:130::9")
	astray4          = netip.MustParseAddr("246.255.0.99")
	native4, native6 = netip.MustParseAddr("10.140.0.1"), netip.MustParseAddr("fd10:140::1")
)

// leases are fixed.
type leases map[netip.Addr]netip.Addr

func (l leases) Real(vip netip.Addr) (netip.Addr, bool) { r, ok := l[vip]; return r, ok }

func (l leases) VIP(real netip.Addr) (netip.Addr, bool) {
	for v, r := range maps.All(l) {
		if r == real {
			return v, true
		}
	}
	return netip.Addr{}, false
}

func testTable() Table {
	prefixes := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	twin := func(real, virtual string) Twin {
		return Twin{netip.MustParsePrefix(real), netip.MustParsePrefix(virtual)}
	}
	return Table{
		Pools: prefixes("246.255.0.0/16", "fd11:1:2:ffff::/64"),
		Twins: []Twin{twin("10.130.0.0/16", "241.130.0.0/16"), twin("10.130.9.0/24", "242.0.0.0/24"), twin("fd10:130::/112", "fd11:1:2:130::/112"),
			twin("fd10:130::4:0/112", "fd11:1:2:130::4:0/112")},
		Leases: leases{
			vip4: netip.MustParseAddr("10.130.4.7"), vip6: netip.MustParseAddr("fd10:130::4:7"),
			vipNested: netip.MustParseAddr("10.130.9.1"), astray4: native4,
		},
	}
}

// fakeTUN is a TUN device that reads one batch and keeps what is written.
type fakeTUN struct {
	packets [][]byte
	mu      sync.Mutex
	written [][]byte
	err     error
}

func (f *fakeTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, p := range f.packets {
		sizes[i] = copy(bufs[i][offset:], p)
	}
	return len(f.packets), f.err
}

func (f *fakeTUN) Write(bufs [][]byte, offset int) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range bufs {
		f.written = append(f.written, bytes.Clone(p[offset:]))
		clear(p) // a device may use the buffers as it likes
	}
	return len(bufs), f.err
}

func (f *fakeTUN) File() *os.File           { return os.Stdin }
func (f *fakeTUN) MTU() (int, error)        { return 1400, nil }
func (f *fakeTUN) Name() (string, error)    { return "fake", nil }
func (f *fakeTUN) Events() <-chan tun.Event { return nil }
func (f *fakeTUN) BatchSize() int           { return 128 }
func (f *fakeTUN) Close() error             { return f.err }

// newDevice returns a Device with the table of the tests, around a fake.
func newDevice(t testing.TB) (*Device, *fakeTUN) {
	t.Helper()
	under := &fakeTUN{}
	d := New(under)
	if err := d.Set(testTable()); err != nil {
		t.Fatal(err)
	}
	return d, under
}

// read passes packets of this host through d, and returns those that go on and what is written back.
func read(t testing.TB, d *Device, under *fakeTUN, packets ...[]byte) (on, back [][]byte) {
	t.Helper()
	under.packets, under.written = packets, nil
	bufs, sizes := make([][]byte, len(packets)), make([]int, len(packets))
	for i := range bufs {
		bufs[i] = make([]byte, offset+2048)
	}
	n, err := d.Read(bufs, sizes, offset)
	if n != len(packets) || err != nil {
		t.Fatalf("read %d packets: %v", n, err)
	}
	for i := range n {
		if sizes[i] > 0 {
			on = append(on, bufs[i][offset:offset+sizes[i]])
		}
	}
	return on, under.written
}

// write passes packets out of the tunnel through d, and returns those that reach the host.
func write(t testing.TB, d *Device, under *fakeTUN, packets ...[]byte) [][]byte {
	t.Helper()
	under.written = nil
	bufs := make([][]byte, len(packets))
	for i, p := range packets {
		bufs[i] = append(make([]byte, offset), p...)
	}
	n, err := d.Write(bufs, offset)
	if n != len(under.written) || err != nil {
		t.Fatalf("wrote %d packets: %v", n, err)
	}
	return under.written
}

func udp(src, dst netip.Addr, payload string) []byte {
	return packet.AppendUDP(nil, netip.AddrPortFrom(src, 4000), netip.AddrPortFrom(dst, 53), []byte(payload))
}

func tcp(src, dst netip.Addr) []byte {
	return packet.AppendReset(nil, packet.Header{Src: dst, Dst: src}, packet.TCPHeader{SrcPort: 80, DstPort: 4000, Seq: 7, Flags: packet.FlagSYN})
}

func echo(src, dst netip.Addr) []byte {
	return packet.AppendEchoReply(nil, src, dst, packet.EchoMessage{ID: 1, Seq: 2, Data: []byte("ping")})
}

// errorAbout is the ICMP error of a host about pkt.
func errorAbout(pkt []byte, why packet.Reason, from netip.Addr) []byte {
	h, err := packet.Parse(pkt)
	if err != nil {
		panic(err)
	}
	return packet.AppendUnreachable(nil, pkt, h, why, from)
}

// errorTo is an ICMP error of this host that goes to another host than the one that sent pkt.
func errorTo(to netip.Addr, pkt []byte) []byte {
	e := errorAbout(pkt, packet.PortUnreachable, self4)
	h, err := packet.Parse(e)
	if err != nil {
		panic(err)
	}
	packet.RewriteDst(e, &h, to)
	return e
}

// fragments cuts a datagram in parts.
func fragments(src, dst netip.Addr) (parts [][]byte) {
	packet.Fragment(udp(src, dst, string(make([]byte, 4000))), 1400, 5, nil, func(b []byte) { parts = append(parts, bytes.Clone(b)) })
	return parts
}

// Each row says how one packet looks to programs, and how on the wire.
func TestTranslates(t *testing.T) {
	later4, later6 := fragments(self4, vip4), fragments(self6, vip6)
	wireLater4, wireLater6 := fragments(self4, wire4), fragments(self6, wire6)
	back4, wireBack4 := fragments(vip4, self4), fragments(wire4, self4)
	for _, row := range []struct {
		name             string
		out              bool
		programs, onWire []byte
	}{
		{"UDP", true, udp(self4, vip4, "query"), udp(self4, wire4, "query")},
		{"UDP over IPv6", true, udp(self6, vip6, "query"), udp(self6, wire6, "query")},
		{"TCP", true, tcp(self4, vip4), tcp(self4, wire4)},
		{"TCP over IPv6", true, tcp(self6, vip6), tcp(self6, wire6)},
		{"ping", true, echo(self4, vip4), echo(self4, wire4)},
		{"ping over IPv6", true, echo(self6, vip6), echo(self6, wire6)},
		{"a twin within a twin", true, udp(self4, vipNested, "query"), udp(self4, wireNested, "query")},
		{"first fragment", true, later4[0], wireLater4[0]},
		{"later fragment", true, later4[2], wireLater4[2]},
		{"first fragment over IPv6", true, later6[0], wireLater6[0]},
		{"later fragment over IPv6", true, later6[1], wireLater6[1]},
		{"port unreachable about an answer", true, errorAbout(udp(vip4, self4, "answer"), packet.PortUnreachable, self4), errorAbout(udp(wire4, self4, "answer"), packet.PortUnreachable, self4)},
		{"the same over IPv6", true, errorAbout(udp(vip6, self6, "answer"), packet.PortUnreachable, self6), errorAbout(udp(wire6, self6, "answer"), packet.PortUnreachable, self6)},
		{"an error about another host", true, errorTo(vip4, udp(native4, self4, "answer")), errorTo(wire4, udp(native4, self4, "answer"))},
		{"to the cluster itself", true, udp(self4, native4, "query"), udp(self4, native4, "query")},
		{"half a packet", true, udp(self4, vip4, "query")[:25], udp(self4, vip4, "query")[:25]},

		{"answer", false, udp(vip4, self4, "answer"), udp(wire4, self4, "answer")},
		{"answer over IPv6", false, udp(vip6, self6, "answer"), udp(wire6, self6, "answer")},
		{"answer by TCP", false, tcp(vip4, self4), tcp(wire4, self4)},
		{"answer to a ping", false, echo(vip6, self6), echo(wire6, self6)},
		{"answer from a twin within a twin", false, udp(vipNested, self4, "answer"), udp(wireNested, self4, "answer")},
		{"fragment of an answer", false, back4[1], wireBack4[1]},
		{"refused by the host asked", false, errorAbout(udp(self4, vip4, "query"), packet.PortUnreachable, vip4), errorAbout(udp(self4, wire4, "query"), packet.PortUnreachable, wire4)},
		{"refused by the host asked, over IPv6", false, errorAbout(tcp(self6, vip6), packet.PortUnreachable, vip6), errorAbout(tcp(self6, wire6), packet.PortUnreachable, wire6)},
		{"hop limit exceeded at the gateway", false, errorAbout(udp(self4, vip4, "query"), packet.TimeExceeded, gateway4), errorAbout(udp(self4, wire4, "query"), packet.TimeExceeded, gateway4)},
		{"about a part of a datagram", false, errorAbout(later4[0], packet.HostUnreachable, gateway4), errorAbout(wireLater4[0], packet.HostUnreachable, gateway4)},
		{"from the cluster itself", false, udp(native6, self6, "answer"), udp(native6, self6, "answer")},
		{"about the cluster itself", false, errorAbout(udp(self4, native4, "query"), packet.PortUnreachable, native4), errorAbout(udp(self4, native4, "query"), packet.PortUnreachable, native4)},
		{"nothing", false, nil, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			d, under := newDevice(t)
			got, want := [][]byte(nil), row.onWire
			if row.out {
				got, _ = read(t, d, under, row.programs)
			} else {
				got, want = write(t, d, under, row.onWire), row.programs
			}
			if len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Errorf("\n got %x\nwant %x", got, want)
			}
			if s := d.Stats(); s != (Stats{}) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// What cannot go on is answered at once where an answer is allowed, and its neighbours in the batch go on.
func TestRefuses(t *testing.T) {
	other := udp(self4, native4, "other")
	for _, row := range []struct {
		name    string
		pkt     []byte
		answers bool
	}{
		{"no lease", udp(self4, gone4, "query"), true},
		{"no lease over IPv6", tcp(self6, gone6), true},
		{"no twin", echo(self4, astray4), false}, // an echo reply: not one that is answered
		{"no twin, TCP", tcp(self4, astray4), true},
		{"a wire address", udp(self4, wire4, "query"), true},
		{"a wire address over IPv6", udp(self6, wire6, "query"), true},
		{"first fragment", fragments(self4, gone4)[0], true},
		{"later fragment", fragments(self4, gone4)[1], false},
		{"an error", errorAbout(udp(gone4, self4, "answer"), packet.PortUnreachable, self4), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			d, under := newDevice(t)
			on, back := read(t, d, under, other, row.pkt, other)
			if len(on) != 2 || !bytes.Equal(on[0], other) || !bytes.Equal(on[1], other) {
				t.Errorf("went on: %x", on)
			}
			h, _ := packet.Parse(row.pkt)
			want := packet.AppendUnreachable(nil, row.pkt, h, packet.HostUnreachable, h.Dst)
			if (len(want) > 0) != row.answers {
				t.Fatalf("the row is wrong: %x", want)
			}
			if row.answers && (len(back) != 1 || !bytes.Equal(back[0], want)) || !row.answers && len(back) > 0 {
				t.Errorf("answered by %x", back)
			}
			if s := d.Stats(); s != (Stats{Refused: 1}) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Answers whose lease is gone are dropped out of their batch; the others keep their order, the caller its buffers.
func TestDropsStaleAnswers(t *testing.T) {
	d, under := newDevice(t)
	a, b := udp(native4, self4, "a"), udp(wire4, self4, "b")
	stale := [][]byte{udp(wireGone4, self4, "x"), udp(wireGone6, self6, "x"),
		errorAbout(udp(self4, wireGone4, "x"), packet.TimeExceeded, gateway4),
		errorAbout(udp(self6, wireGone6, "x"), packet.PortUnreachable, wireGone6)}
	got := write(t, d, under, stale[0], a, stale[1], stale[2], b, stale[3])
	if len(got) != 2 || !bytes.Equal(got[0], a) || !bytes.Equal(got[1], udp(vip4, self4, "b")) {
		t.Errorf("%x", got)
	}
	if got := write(t, d, under, stale...); len(got) != 0 {
		t.Errorf("%x", got)
	}
	if s := d.Stats(); s != (Stats{Stale: 8}) {
		t.Errorf("%+v", s)
	}
	bufs := [][]byte{make([]byte, 100), make([]byte, 101), make([]byte, 102)}
	copy(bufs[0][offset:], stale[0])
	if _, err := d.Write(bufs, offset); err != nil || len(bufs[0])+len(bufs[1])+len(bufs[2]) != 303 || &bufs[0][0] == &bufs[2][0] {
		t.Errorf("the caller's buffers are %d, %d and %d bytes: %v", len(bufs[0]), len(bufs[1]), len(bufs[2]), err)
	}
}

func TestErrorsAreLimited(t *testing.T) {
	d, under := newDevice(t)
	batch := make([][]byte, 128)
	for i := range batch {
		batch[i] = udp(self4, gone4, "query")
	}
	told, sent := 0, 0
	for sent < 4*errorBurst {
		_, back := read(t, d, under, batch...)
		told, sent = told+len(back), sent+len(batch)
	}
	if told < errorBurst || told == sent || d.Stats().Refused != uint64(sent) {
		t.Errorf("%d of %d are answered, %+v", told, sent, d.Stats())
	}
}

func TestSet(t *testing.T) {
	d, under := newDevice(t)
	good := testTable()
	without := good
	without.Leases = nil
	mapped := netip.MustParsePrefix("10.130.0.0/16")
	for name, bad := range map[string]Table{
		"no leases":             without,
		"a pool that is none":   {Pools: []netip.Prefix{{}}, Leases: good.Leases},
		"a twin that is longer": {Twins: []Twin{{mapped, netip.MustParsePrefix("241.0.0.0/17")}}, Leases: good.Leases},
		"of another family":     {Twins: []Twin{{mapped, netip.MustParsePrefix("fd00::/16")}}, Leases: good.Leases},
		"a twin in a pool":      {Pools: good.Pools, Twins: []Twin{{mapped, netip.MustParsePrefix("246.255.0.0/16")}}, Leases: good.Leases},
		"a twin without prefix": {Twins: []Twin{{}}, Leases: good.Leases},
	} {
		if err := d.Set(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if on, _ := read(t, d, under, udp(self4, vip4, "x")); len(on) != 1 || !bytes.Equal(on[0], udp(self4, wire4, "x")) {
		t.Errorf("after wrong tables: %x", on)
	}
	if err := d.Set(Table{Leases: good.Leases}); err != nil {
		t.Error(err)
	}
	if on, back := read(t, d, under, udp(self4, vip4, "x"), udp(self4, gone4, "y")); len(on) != 2 || len(back) != 0 || !bytes.Equal(on[0], udp(self4, vip4, "x")) {
		t.Errorf("without a table: %x, answered by %x", on, back)
	}
	if got := write(t, d, under, udp(wireGone4, self4, "x")); len(got) != 1 {
		t.Errorf("without a table: %x", got)
	}
}

func TestDeviceIsTheDevice(t *testing.T) {
	d, under := newDevice(t)
	under.packets, under.err = [][]byte{udp(self4, vip4, "x")}, errors.New("the device's own")
	bufs, sizes := [][]byte{make([]byte, 100)}, make([]int, 1)
	if n, err := d.Read(bufs, sizes, offset); n != 1 || err != under.err || !bytes.Equal(bufs[0][offset:offset+sizes[0]], udp(self4, wire4, "x")) {
		t.Errorf("read %d, %v", n, err) // a device may return both packets and an error
	}
	if n, err := d.Write([][]byte{make([]byte, 20), make([]byte, 20)}, offset); n != 2 || err != under.err {
		t.Errorf("wrote %d, %v", n, err)
	}
	name, _ := d.Name()
	mtu, _ := d.MTU()
	if name != "fake" || mtu != 1400 || d.BatchSize() != 128 || d.File() != os.Stdin || d.Close() != under.err {
		t.Error("something is not the device's own")
	}
}

// Tables may change while packets are on their way; each packet meets one or the other.
func TestSetBesidePackets(t *testing.T) {
	under := &fakeTUN{packets: [][]byte{udp(self4, vip4, "x")}}
	d := New(under)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for i := range 2000 {
			table := testTable()
			if i%2 == 0 {
				table = Table{}
			}
			if err := d.Set(table); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 {
		tasks.Go(func() {
			for range 2000 {
				if _, err := d.Write([][]byte{append(make([]byte, offset), udp(wire4, self4, "x")...)}, offset); err != nil {
					t.Error(err)
				}
			}
		})
	}
	bufs, sizes := [][]byte{make([]byte, 100)}, make([]int, 1)
	for range 2000 {
		_, _ = d.Read(bufs, sizes, offset)
		if got := bufs[0][offset : offset+sizes[0]]; !bytes.Equal(got, udp(self4, vip4, "x")) && !bytes.Equal(got, udp(self4, wire4, "x")) {
			t.Fatalf("%x", got)
		}
	}
	tasks.Wait()
	for _, got := range under.written {
		if !bytes.Equal(got, udp(vip4, self4, "x")) && !bytes.Equal(got, udp(wire4, self4, "x")) {
			t.Fatalf("%x", got)
		}
	}
}
