package vnat

import (
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/internal/packet"
)

// constLeases always answer the same, in no time.
type constLeases struct{ real4, vip4, real6, vip6 netip.Addr }

func (l constLeases) Real(vip netip.Addr) (netip.Addr, bool) {
	if vip.Is4() {
		return l.real4, vip == l.vip4
	}
	return l.real6, vip == l.vip6
}

func (l constLeases) VIP(real netip.Addr) (netip.Addr, bool) {
	if real.Is4() {
		return l.vip4, real == l.real4
	}
	return l.vip6, real == l.real6
}

// quietTUN reads one batch and takes what is written without keeping it.
type quietTUN struct {
	tun.Device
	packets [][]byte
}

func (q *quietTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, p := range q.packets {
		sizes[i] = copy(bufs[i][offset:], p)
	}
	return len(q.packets), nil
}

func (q *quietTUN) Write(bufs [][]byte, offset int) (int, error) {
	for i, p := range q.packets {
		copy(bufs[i%len(bufs)][offset:], p)
	}
	return len(bufs), nil
}

// batch is a Device in whose way 128 equal packets of 1,400 bytes are, and the buffers for them.
type batch struct {
	dev   *Device
	under *quietTUN
	bufs  [][]byte
	sizes []int
}

func newBatch(t testing.TB, table Table, pkt []byte) *batch {
	b := &batch{under: &quietTUN{}, bufs: make([][]byte, 128), sizes: make([]int, 128)}
	for i := range b.bufs {
		b.under.packets = append(b.under.packets, pkt)
		b.bufs[i] = append(make([]byte, offset, 2048), pkt...)
	}
	b.dev = New(b.under)
	if err := b.dev.Set(table); err != nil {
		t.Fatal(err)
	}
	return b
}

func benchTable() Table {
	table := testTable()
	table.Leases = constLeases{netip.MustParseAddr("10.130.4.7"), vip4, netip.MustParseAddr("fd10:130::4:7"), vip6}
	return table
}

func bulk(src, dst netip.Addr) []byte {
	size := 1400 - packet.UDPHeaderLen - packet.IPv6HeaderLen
	if src.Is4() {
		size = 1400 - packet.UDPHeaderLen - packet.IPv4HeaderLen
	}
	return udp(src, dst, string(make([]byte, size)))
}

func TestPacketsAllocateNothing(t *testing.T) {
	for name, pkt := range map[string][]byte{
		"out": bulk(self4, vip4), "out over IPv6": bulk(self6, vip6), "refused": bulk(self4, gone4), "refused over IPv6": bulk(self6, gone6),
		"in": bulk(wire4, self4), "in over IPv6": bulk(wire6, self6), "dropped": bulk(wireGone4, self4), "others": bulk(self4, native4),
		"an error": errorAbout(bulk(self4, wire4), packet.PortUnreachable, wire4),
	} {
		b := newBatch(t, benchTable(), pkt)
		n := testing.AllocsPerRun(50, func() {
			_, _ = b.dev.Read(b.bufs, b.sizes, offset)
			_, _ = b.dev.Write(b.bufs, offset)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations per batch", name, n)
		}
	}
}

// BenchmarkDevice passes batches of 128 packets of 1,400 bytes, which the device beneath copies; bare is that alone.
func BenchmarkDevice(b *testing.B) {
	for _, row := range []struct {
		name    string
		table   Table
		out, in []byte
	}{
		{"idle", Table{}, bulk(self4, vip4), bulk(wire4, self4)},
		{"others", benchTable(), bulk(self4, native4), bulk(native4, self4)},
		{"vip", benchTable(), bulk(self4, vip4), bulk(wire4, self4)},
		{"vip6", benchTable(), bulk(self6, vip6), bulk(wire6, self6)},
	} {
		out, in := newBatch(b, row.table, row.out), newBatch(b, row.table, row.in)
		if row.name == "idle" {
			b.Run("bare/read", func(b *testing.B) { out.read(b, out.under) })
			b.Run("bare/write", func(b *testing.B) { in.write(b, in.under) })
		}
		b.Run(row.name+"/read", func(b *testing.B) { out.read(b, out.dev) })
		b.Run(row.name+"/write", func(b *testing.B) { in.write(b, in.dev) })
	}
}

func (x *batch) read(b *testing.B, dev tun.Device) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = dev.Read(x.bufs, x.sizes, offset)
	}
}

func (x *batch) write(b *testing.B, dev tun.Device) {
	b.ReportAllocs()
	for b.Loop() { // the device beneath puts the packets back as they came
		_, _ = dev.Write(x.bufs, offset)
	}
}
