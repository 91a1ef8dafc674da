package dataplane

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
)

// merger joins TCP segments of one batch that follow each other within a connection into longer ones,
// so that the stack handles one instead of dozens. What it holds reaches the stack with flush.
type merger struct {
	gro  gro.GRO
	link *link
}

// mergers are taken for one batch each: batches of different Peers come at the same time.
var mergers = sync.Pool{New: func() any {
	m := new(merger)
	m.gro.Init(true)
	return m
}}

// newMerger returns a merger for one batch. It is given back by release.
func newMerger(l *link) *merger {
	m := mergers.Get().(*merger)
	m.link = l
	return m
}

// inject hands a copy of the TCP packet b to the stack, now or with others.
func (m *merger) inject(b []byte) {
	d, proto := m.link.dispatch(b)
	if d == nil {
		return
	}
	m.gro.Dispatcher = d
	pkt := newPacket(b)
	pkt.NetworkProtocolNumber = proto
	pkt.RXChecksumValidated = true // see link.Capabilities
	m.gro.Enqueue(pkt)
	pkt.DecRef()
}

// bucketSize is how many connections gVisor's GRO holds segments of in one of its buckets.
const bucketSize = 8

// flush lets the stack have what is held. One Flush of gVisor's takes the first segment alone out of each
// bucket: it asks the entry it has just removed for the next one.
func (m *merger) flush() {
	if m.gro.Dispatcher == nil { // nothing came in
		return
	}
	for range bucketSize {
		m.gro.Flush()
	}
}

// release flushes and gives m back.
func (m *merger) release() {
	m.flush()
	m.gro.Dispatcher, m.link = nil, nil
	mergers.Put(m)
}
