package vnat

import (
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/internal/packet"
)

// ICMP errors to this host per second (RFC 4443, section 2.4 (f), asks for a limit).
const (
	errorRate  = 1000
	errorBurst = 2000
)

// Space for an ICMP error, in bytes: in front of it what a TUN device puts there (its virtio header has 10; WireGuard
// leaves 16), and more than the longest that [packet.AppendUnreachable] makes.
const (
	headroom   = 16
	errorSpace = 1280
)

// Device is a TUN device on whose way VIPs are translated. It blocks no longer than the device it wraps, and
// allocates nothing for a packet. Events, MTU, batch size, file and Close are those of that device.
//
// Read gives size 0 to a packet that may not go on; wireguard-go leaves such out. Write changes packets in place
// and may bring the buffers into another order, as the TUN device does when it joins packets.
// Safe for concurrent use as far as the wrapped device is.
type Device struct {
	tun.Device
	table          atomic.Pointer[table] // nil if there is nothing to translate
	refused, stale atomic.Uint64
	limit          *rate.Limiter // of ICMP errors

	mu     sync.Mutex // guards what follows: one error at a time
	space  [headroom + errorSpace]byte
	answer [1][]byte
}

var _ tun.Device = (*Device)(nil)

// New returns dev with a Device around it that translates nothing yet.
func New(dev tun.Device) *Device {
	return &Device{Device: dev, limit: rate.NewLimiter(errorRate, errorBurst)}
}

// Set puts t in force for all packets after those just on their way. The zero value ends all translation. A table
// that is in itself wrong is refused with an error, and the one in force stays.
func (d *Device) Set(t Table) error {
	compiled, err := compile(t)
	if err != nil {
		return err
	}
	d.table.Store(compiled)
	return nil
}

// Stats are numbers of packets since the Device was made.
type Stats struct {
	// Refused were sent by this host to an address of a pool without a lease or twin, or to a wire address.
	Refused uint64 `json:"refused"`
	// Stale came out of the tunnel for a VIP whose lease is gone.
	Stale uint64 `json:"stale"`
}

// Stats returns the numbers so far.
func (d *Device) Stats() Stats { return Stats{d.refused.Load(), d.stale.Load()} }

// Read reads packets that this host sends into the tunnel.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := d.Device.Read(bufs, sizes, offset)
	if t := d.table.Load(); t != nil {
		for i := range n {
			pkt := bufs[i][offset : offset+sizes[i]]
			if h, ok := t.outward(pkt); !ok {
				d.refuse(pkt, h)
				sizes[i] = 0
			}
		}
	}
	return n, err
}

// Write writes packets that come out of the tunnel.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	t := d.table.Load()
	if t == nil {
		return d.Device.Write(bufs, offset)
	}
	kept := 0
	for i := range bufs {
		if t.inward(bufs[i][offset:]) {
			bufs[kept], bufs[i] = bufs[i], bufs[kept] // the buffers stay the caller's
			kept++
		}
	}
	if kept < len(bufs) {
		d.stale.Add(uint64(len(bufs) - kept))
	}
	if kept == 0 {
		return 0, nil
	}
	return d.Device.Write(bufs[:kept], offset)
}

// refuse tells this host that nobody can be reached at the address that pkt, whose header is h, goes to. The error
// comes from that address itself: routes and filters of this host that let answers from there in take it, too.
func (d *Device) refuse(pkt []byte, h packet.Header) {
	d.refused.Add(1)
	if !d.limit.Allow() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer[0] = packet.AppendUnreachable(d.space[:headroom], pkt, h, packet.HostUnreachable, h.Dst)
	if len(d.answer[0]) > headroom {
		_, _ = d.Device.Write(d.answer[:], headroom) // if the device is gone, so is the program's wait
	}
}
