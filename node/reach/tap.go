package reach

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/internal/packet"
)

// Tap is a TUN device that also sees the packets of probes. It changes no packet, and everything else, batches and
// offloads included, is the device's own. Safe for concurrent use as far as the device is.
type Tap struct {
	tun.Device
	watch atomic.Pointer[watch] // nil while no probe is on its way
	turn  chan struct{}         // holds a token while somebody probes
}

var _ tun.Device = (*Tap)(nil)

// NewTap returns dev with a Tap around it.
func NewTap(dev tun.Device) *Tap { return &Tap{Device: dev, turn: make(chan struct{}, 1)} }

// Read reads packets that this host sends into the tunnel.
func (t *Tap) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := t.Device.Read(bufs, sizes, offset)
	if w := t.watch.Load(); w != nil {
		for i := range n {
			w.sent(bufs[i][offset : offset+sizes[i]])
		}
	}
	return n, err
}

// Write writes packets that come out of the tunnel.
func (t *Tap) Write(bufs [][]byte, offset int) (int, error) {
	if w := t.watch.Load(); w != nil { // before the device joins packets to larger ones
		for _, b := range bufs {
			w.answered(b[offset:])
		}
	}
	return t.Device.Write(bufs, offset)
}

// acquire waits for the right to probe; release gives it back.
func (t *Tap) acquire(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for an earlier probe: %w", ctx.Err())
	}
}

func (t *Tap) release() { <-t.turn }

// watch is what to look for. Its fields do not change while it is in force.
type watch struct {
	port4, port6 uint16 // source ports of the probes; 0 for none
	marks        map[netip.Addr]*marks
}

// marks say what was seen of the probes to one address.
type marks struct{ out, in atomic.Bool }

// sent notes a packet that goes into the tunnel.
func (w *watch) sent(b []byte) {
	if m := w.probe(b); m != nil {
		m.out.Store(true)
	}
}

// answered notes a packet that comes out of the tunnel, if it is an ICMP error about a probe. One that repeats too
// little of the probe is not recognised; those of our gateway repeat all of it.
func (w *watch) answered(b []byte) {
	h, err := packet.Parse(b)
	if err != nil || h.IsFragment() || !isICMP(h) || h.Len < h.PayloadOffset+packet.ICMPHeaderLen {
		return
	}
	message := b[h.PayloadOffset:h.Len]
	if kindOf(h.Is4(), message[0], message[1]) == noAnswer {
		return
	}
	if m := w.probe(message[packet.ICMPHeaderLen:]); m != nil {
		m.in.Store(true)
	}
}

// probe returns the marks of the probe that the packet at the start of b is, nil when it is none.
func (w *watch) probe(b []byte) *marks {
	h, err := packet.Parse(b)
	if err != nil || h.IsFragment() || h.Proto != packet.ProtoUDP {
		return nil
	}
	from, to, _, ok := packet.ParseUDP(b[h.PayloadOffset:h.Len])
	want := w.port6
	if h.Is4() {
		want = w.port4
	}
	if !ok || from != want || to < firstPort || to >= firstPort+tries {
		return nil
	}
	return w.marks[h.Dst]
}

// isICMP reports whether the packet carries ICMP of its own family.
func isICMP(h packet.Header) bool {
	if h.Is4() {
		return h.Proto == packet.ProtoICMP
	}
	return h.Proto == packet.ProtoICMPv6
}
