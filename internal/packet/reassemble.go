package packet

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of a [Reassembler].
const (
	// reassemblyTimeout is how long parts wait for the rest; RFC 8200 says 60 s, Linux and most
	// others wait 30 s (RFC 1122 allows that for IPv4).
	reassemblyTimeout = 30 * time.Second
	// maxDatagrams and maxPending bound what one sender can make us keep.
	maxDatagrams = 64
	maxPending   = 2 << 20 // bytes
)

// Reassembler puts fragments of one sender together. It keeps at most 64 datagrams and 2 MiB, the
// oldest making room for the newest, each for at most 30 s. Datagrams with overlapping parts are
// thrown away whole (RFC 5722). The zero value is ready; it may be used from several goroutines.
type Reassembler struct {
	mu      sync.Mutex
	pending []*datagram // oldest first
	bytes   int
}

type datagramKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8 // of the fragment header in IPv6, so later extension headers do not matter
}

// datagram is one being put together. buf holds the headers in front (once the first part came) and
// the payload at its place behind room for the longest header.
type datagram struct {
	key     datagramKey
	since   time.Time
	header  []byte // of the first part, up to where the fragmentable part starts
	payload []byte
	have    []span // sorted, not touching
	total   int    // length of the payload, 0 until the last part came
	bad     bool   // overlapping parts were seen: swallow the rest
}

type span struct{ from, to int }

// Add takes one fragment and returns the whole packet when it was the last one missing. The packet
// is freshly allocated. ok is false while parts are missing, and for parts that were thrown away.
func (r *Reassembler) Add(pkt []byte, h Header, now time.Time) (whole []byte, ok bool) {
	f := fragmentOf(pkt, h)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire(now)
	d := r.find(f.key, now)
	grown := d.add(f)
	r.bytes += grown
	if d.bad || !d.complete() {
		r.shrink(d)
		return nil, false
	}
	r.drop(slices.Index(r.pending, d))
	return d.assemble()
}

// fragment is one part in a form both families share.
type fragment struct {
	key    datagramKey
	header []byte
	proto  uint8
	data   []byte
	offset int
	more   bool
}

func fragmentOf(pkt []byte, h Header) fragment {
	f := fragment{offset: h.FragmentOffset, more: h.MoreFragments}
	f.key = datagramKey{src: h.Src, dst: h.Dst, id: h.FragmentID}
	if h.Is4() {
		f.key.proto = h.Proto
		f.header, f.data = pkt[:h.PayloadOffset], pkt[h.PayloadOffset:h.Len]
		return f
	}
	f.proto = pkt[h.unfragmentable]
	f.key.proto = f.proto
	f.header, f.data = pkt[:h.unfragmentable], pkt[h.unfragmentable+fragmentHeaderLen:h.Len]
	if f.offset == 0 {
		f.header = slices.Clone(f.header)
		f.header[h.nextHeaderAt] = f.proto
	}
	return f
}

func (r *Reassembler) expire(now time.Time) {
	for len(r.pending) > 0 && now.Sub(r.pending[0].since) > reassemblyTimeout {
		r.drop(0)
	}
}

func (r *Reassembler) find(key datagramKey, now time.Time) *datagram {
	for _, d := range r.pending {
		if d.key == key {
			return d
		}
	}
	d := &datagram{key: key, since: now}
	r.pending = append(r.pending, d)
	return d
}

// shrink keeps the bounds, sparing keep.
func (r *Reassembler) shrink(keep *datagram) {
	for len(r.pending) > maxDatagrams || r.bytes > maxPending {
		i := 0
		if r.pending[0] == keep {
			i = 1
		}
		if i >= len(r.pending) {
			return
		}
		r.drop(i)
	}
}

func (r *Reassembler) drop(i int) {
	r.bytes -= cap(r.pending[i].payload)
	r.pending = slices.Delete(r.pending, i, i+1)
}

// add stores the part f and returns by how many bytes the datagram grew.
func (d *datagram) add(f fragment) int {
	end := f.offset + len(f.data)
	before := cap(d.payload)
	switch {
	case d.bad || d.covers(f.offset, end): // thrown away, or sent twice
		return 0
	case d.overlaps(f.offset, end), d.total > 0 && (end > d.total || !f.more), !f.more && d.end() > end:
		d.bad, d.payload, d.have = true, nil, nil
		return -before
	}
	if !f.more {
		d.total = end
	}
	if f.offset == 0 {
		d.header = slices.Clone(f.header)
	}
	if end > len(d.payload) {
		d.payload = slices.Grow(d.payload, end-len(d.payload))[:end]
	}
	copy(d.payload[f.offset:], f.data)
	d.insert(span{f.offset, end})
	return cap(d.payload) - before
}

func (d *datagram) covers(from, to int) bool {
	return slices.ContainsFunc(d.have, func(s span) bool { return s.from <= from && to <= s.to })
}

func (d *datagram) overlaps(from, to int) bool {
	return slices.ContainsFunc(d.have, func(s span) bool { return s.from < to && from < s.to })
}

func (d *datagram) end() int {
	if len(d.have) == 0 {
		return 0
	}
	return d.have[len(d.have)-1].to
}

// insert adds s, which overlaps nothing, and joins it with what it touches.
func (d *datagram) insert(s span) {
	i, _ := slices.BinarySearchFunc(d.have, s.from, func(h span, from int) int { return h.from - from })
	d.have = slices.Insert(d.have, i, s)
	if i+1 < len(d.have) && d.have[i].to == d.have[i+1].from {
		d.have[i].to = d.have[i+1].to
		d.have = slices.Delete(d.have, i+1, i+2)
	}
	if i > 0 && d.have[i-1].to == d.have[i].from {
		d.have[i-1].to = d.have[i].to
		d.have = slices.Delete(d.have, i, i+1)
	}
}

func (d *datagram) complete() bool {
	return d.total > 0 && len(d.have) == 1 && d.have[0] == span{0, d.total}
}

// assemble returns the packet as if it had never been cut.
func (d *datagram) assemble() ([]byte, bool) {
	is4 := d.key.src.Is4()
	counted := len(d.header) + len(d.payload) // what the length field says
	if !is4 {
		counted -= IPv6HeaderLen
	}
	if counted > maxPayload {
		return nil, false
	}
	b := append(slices.Clip(d.header), d.payload...)
	if is4 {
		binary.BigEndian.PutUint16(b[2:], uint16(counted))
		b[6], b[7] = 0, 0
		finish4(b)
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(counted))
	}
	return b, true
}
