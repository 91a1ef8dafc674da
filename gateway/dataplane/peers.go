package dataplane

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/culvert-dev/culvert/gateway/twins"
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
	// Twins are prefixes that this Peer reaches under others; none may hold one of the addresses above.
	// They may change while the Peer stays: flows whose destination then means something else end.
	Twins []twins.Twin
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

// translation returns the checked map of a's twins.
func (a PeerAddrs) translation() (twins.Map, error) {
	m, err := twins.New(a.Twins)
	if err != nil {
		return nil, fmt.Errorf("twins: %w", err)
	}
	for _, t := range m {
		if slices.ContainsFunc(slices.Concat(a.Node, a.Gateway), t.Virtual.Contains) {
			return nil, fmt.Errorf("twins: %v holds an address of the Peer's own", t.Virtual)
		}
	}
	return m, nil
}

// equal reports whether a and b are the same Peer, whatever its twins.
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
	// twins is what destinations stand for; it is replaced under mu, by translate alone.
	twins atomic.Pointer[twins.Map]

	// mu guards the fields below. Nothing that may block happens under it.
	mu      sync.Mutex
	gone    bool // removed: no flow may be added
	tcp     map[flowKey]*tcpFlow
	dgrams  map[flowKey]*datagramFlow
	dialing int
	echoes  int
}

// flowKey is a flow as the Peer sees it: the destination may be one of its twins. For echo the source port
// is the identifier and the destination port is 0.
type flowKey struct {
	proto    Proto
	src, dst netip.AddrPort
}

// ICMP errors per Peer and second (RFC 4443, section 2.4 (f), asks for a limit).
const (
	errorRate  = 1000
	errorBurst = 2000
)

func newPeer(ctx context.Context, a PeerAddrs, m twins.Map) *peer {
	p := &peer{
		addrs:  PeerAddrs{ID: a.ID, Node: slices.Clone(a.Node), Gateway: slices.Clone(a.Gateway)},
		errors: rate.NewLimiter(errorRate, errorBurst),
		tcp:    make(map[flowKey]*tcpFlow),
		dgrams: make(map[flowKey]*datagramFlow),
	}
	p.twins.Store(&m)
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// real returns where packets to dst go: dst itself where it is in no twin.
func (p *peer) real(dst netip.AddrPort) netip.AddrPort {
	return addrPort(p.twins.Load().Real(dst.Addr()), dst.Port())
}

// translate replaces the twins of p by m and ends the flows whose destination now stands for something else.
func (p *peer) translate(m twins.Map) {
	p.mu.Lock()
	p.twins.Store(&m)
	var streams []*tcpFlow
	var datagrams []*datagramFlow
	for key, f := range p.tcp {
		if p.real(key.dst) != f.to {
			streams = append(streams, f)
		}
	}
	for key, f := range p.dgrams {
		if p.real(key.dst) != f.to {
			datagrams = append(datagrams, f)
		}
	}
	p.mu.Unlock()
	end(streams, datagrams)
}

// end ends flows at once. Nothing may be locked.
func end(streams []*tcpFlow, datagrams []*datagramFlow) {
	for _, f := range streams {
		f.abort()
	}
	for _, f := range datagrams {
		f.close()
	}
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
	end(slices.Collect(maps.Values(streams)), slices.Collect(maps.Values(datagrams)))
}

// peerTable is an immutable snapshot of who is connected.
type peerTable struct {
	peers []*peer
	// byNode finds the Peer by one of its node addresses.
	byNode map[netip.Addr]*peer
	// overlay has every node and gateway address of every Peer.
	overlay map[netip.Addr]*peer
}

// with returns the table for the wanted Peers, keeping those that stay, what is to become of the twins of
// those, and those of t that go.
func (t *peerTable) with(ctx context.Context, wanted []PeerAddrs, warn func(PeerAddrs, error)) (next *peerTable, moved map[*peer]twins.Map, gone []*peer) {
	next = &peerTable{byNode: make(map[netip.Addr]*peer), overlay: make(map[netip.Addr]*peer)}
	moved = make(map[*peer]twins.Map)
	for _, w := range wanted {
		m, err := next.accept(w)
		if err != nil {
			warn(w, err)
			continue
		}
		p := t.byNode[w.Node[0]]
		if p == nil || !p.addrs.equal(w) {
			p = newPeer(ctx, w, m)
		} else if !slices.Equal(*p.twins.Load(), m) {
			moved[p] = m
		}
		next.add(p)
	}
	for _, p := range t.peers {
		if next.byNode[p.addrs.Node[0]] != p {
			gone = append(gone, p)
		}
	}
	return next, moved, gone
}

// accept returns the map of w's twins, or why w cannot be served beside those in t.
func (t *peerTable) accept(w PeerAddrs) (twins.Map, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	if err := t.free(w); err != nil {
		return nil, err
	}
	return w.translation()
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
