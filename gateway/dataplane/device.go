package dataplane

import (
	"fmt"
	"os"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// device is the side of the plane that WireGuard sees.
type device struct {
	plane  *Plane
	events chan tun.Event
	// For Read, which WireGuard calls from one goroutine.
	scratch []outbound
	data    tcpip.SliceWriter
}

var _ tun.Device = (*device)(nil)

// batchSize is how many packets WireGuard moves at once; it is what its own Linux device uses.
const batchSize = 128

func newDevice(p *Plane) *device {
	d := &device{plane: p, events: make(chan tun.Event, 1), scratch: make([]outbound, batchSize)}
	d.events <- tun.EventUp
	return d
}

// Write takes decrypted packets. They are used only during the call. It is called from one goroutine
// per WireGuard peer and never waits for a network.
func (d *device) Write(bufs [][]byte, offset int) (int, error) {
	if d.plane.ctx.Err() != nil {
		return 0, os.ErrClosed
	}
	total := 0
	m := newMerger(d.plane.link)
	for _, b := range bufs {
		total += len(b) - offset
		d.plane.fromPeer(b[offset:], m)
	}
	m.release()
	d.plane.metrics.fromPeers.packets.Add(float64(len(bufs)))
	d.plane.metrics.fromPeers.bytes.Add(float64(total))
	return len(bufs), nil
}

// Read waits for packets to Peers and fills bufs with as many as there are. It may return zero
// packets when all it took were for Peers that are gone.
func (d *device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	taken, err := d.plane.out.pop(d.scratch[:min(len(bufs), len(d.scratch))])
	if err != nil {
		return 0, err
	}
	n, total := 0, 0
	for i, o := range d.scratch[:taken] {
		size, err := d.copyOut(bufs[n][offset:], o)
		o.release()
		d.scratch[i] = outbound{}
		if err != nil {
			return n, err
		}
		if d.plane.toPeer(bufs[n][offset : offset+size]) {
			sizes[n] = size
			total += size
			n++
		}
	}
	d.plane.metrics.toPeers.packets.Add(float64(n))
	d.plane.metrics.toPeers.bytes.Add(float64(total))
	return n, nil
}

// copyOut copies the packet o into b and returns its length.
func (d *device) copyOut(b []byte, o outbound) (int, error) {
	if o.size() > len(b) {
		return 0, fmt.Errorf("packet of %d bytes for a buffer of %d", o.size(), len(b))
	}
	if o.stack == nil {
		return copy(b, *o.made), nil
	}
	n := copy(b, o.stack.NetworkHeader().Slice())
	n += copy(b[n:], o.stack.TransportHeader().Slice())
	d.data = b[n:o.size()]
	if _, err := o.stack.Data().ReadTo(&d.data, true); err != nil {
		return 0, fmt.Errorf("packet of the stack: %w", err)
	}
	return o.size() - len(d.data), nil
}

// ended is called once, when nothing will be read or written any more.
func (d *device) ended() { close(d.events) }

func (d *device) File() *os.File           { return nil }
func (d *device) MTU() (int, error)        { return d.plane.cfg.MTU, nil }
func (d *device) Name() (string, error)    { return "userspace", nil }
func (d *device) Events() <-chan tun.Event { return d.events }
func (d *device) Close() error             { return d.plane.Close() }
func (d *device) BatchSize() int           { return batchSize }
