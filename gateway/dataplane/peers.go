package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/time/rate"

	"github.com/culvert-dev/culvert/internal/packet"
)

// PeerAddrs are one Peer's overlay addresses.
type PeerAddrs struct {
	// ID tells Peers apart that had the same addresses one after the other, for instance by the UID of
	// the object: a new ID under old addresses ends the old flows. May be empty.
	ID string
	// Node are the workstation's addresses, the only sources its packets may have.
	Node []netip.Addr
	// Gateway[i] is the gateway's own address as seen from Node[i], of the same family.
	Gateway []netip.Addr
}

// check returns what is wrong with a.
func (a PeerAddrs) check() error {
	if len(a.Node) == 0 || len(a.Node) != len(a.Gateway) {
		return fmt.Errorf("%d node and %d gateway addresses: want as many of each, and at least one", len(a.Node), len(a.Gateway))
	}
	for i, n := range a.Node {
		g := a.Gateway[i]
		if !n.IsValid() || n.Is4In6() || n.Zone() != "" || n.IsMulticast() || n.IsUnspecified() || n.Is4() != g.Is4() || g.Is4In6() {
			return fmt.Errorf("node address %v with gateway address %v: want plain unicast addresses of one family", n, g)
		}
	}
	return nil
}

func (a PeerAddrs) equal(b PeerAddrs) bool {
	return a.ID == b.ID && slices.Equal(a.Node, b.Node) && slices.Equal(a.Gateway, b.Gateway)
}

// peer is a Peer while it is known to the plane. Its ctx ends with it.
type peer struct {
	addrs  PeerAddrs
	ctx    context.Context
	cancel context.CancelFunc
	frags  packet.Reassembler
	errors *rate.Limiter // of ICMP errors

	// mu guards the fields below. Nothing that may block happens under it.
	mu      sync.Mutex
	gone    bool // removed: no flow may be added
	tcp     map[flowKey]*tcpFlow
	dgrams  map[flowKey]*datagramFlow
	dialing int
	echoes  int
}

// flowKey is a flow as the Peer sees it. For echo the source port is the identifier and the
// destination port is 0.
type flowKey struct {
	proto    Proto
	src, dst netip.AddrPort
}

// ICMP errors per Peer and second (RFC 4443, section 2.4 (f), asks for a limit).
const (
	errorRate  = 1000
	errorBurst = 2000
)

func newPeer(ctx context.Context, a PeerAddrs) *peer {
	p := &peer{
		addrs:  PeerAddrs{ID: a.ID, Node: slices.Clone(a.Node), Gateway: slices.Clone(a.Gateway)},
		errors: rate.NewLimiter(errorRate, errorBurst),
		tcp:    make(map[flowKey]*tcpFlow),
		dgrams: make(map[flowKey]*datagramFlow),
	}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// gateway returns the gateway's address as seen from the node address src.
func (p *peer) gateway(src netip.Addr) netip.Addr {
	return p.addrs.Gateway[slices.Index(p.addrs.Node, src)]
}

// remove ends all flows of p and lets no new ones start.
func (p *peer) remove() {
	p.mu.Lock()
	p.gone = true
	streams, datagrams := p.tcp, p.dgrams
	p.tcp, p.dgrams = nil, nil
	p.mu.Unlock()
	p.cancel()
	for _, f := range streams {
		f.abort()
	}
	for _, f := range datagrams {
		f.close()
	}
}

// peerTable is an immutable snapshot of who is connected.
type peerTable struct {
	peers []*peer
	// byNode finds the Peer by one of its node addresses.
	byNode map[netip.Addr]*peer
	// overlay has every node and gateway address of every Peer.
	overlay map[netip.Addr]*peer
}

// with returns the table for the wanted Peers, keeping those that stay, and those of t that go.
func (t *peerTable) with(ctx context.Context, wanted []PeerAddrs, warn func(PeerAddrs, error)) (*peerTable, []*peer) {
	next := &peerTable{byNode: make(map[netip.Addr]*peer), overlay: make(map[netip.Addr]*peer)}
	for _, w := range wanted {
		err := w.check()
		if err == nil {
			err = next.free(w)
		}
		if err != nil {
			warn(w, err)
			continue
		}
		if p := t.byNode[w.Node[0]]; p != nil && p.addrs.equal(w) {
			next.add(p)
		} else {
			next.add(newPeer(ctx, w))
		}
	}
	var gone []*peer
	for _, p := range t.peers {
		if next.byNode[p.addrs.Node[0]] != p {
			gone = append(gone, p)
		}
	}
	return next, gone
}

// free returns an error when another Peer of t has one of the addresses.
func (t *peerTable) free(w PeerAddrs) error {
	for _, a := range slices.Concat(w.Node, w.Gateway) {
		if t.overlay[a] != nil {
			return fmt.Errorf("address %v belongs to another Peer", a)
		}
	}
	return nil
}

func (t *peerTable) add(p *peer) {
	t.peers = append(t.peers, p)
	for _, a := range p.addrs.Node {
		t.byNode[a], t.overlay[a] = p, p
	}
	for _, a := range p.addrs.Gateway {
		t.overlay[a] = p
	}
}
