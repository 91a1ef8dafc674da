package dataplane

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/culvert-dev/culvert/gateway/twins"
	"github.com/culvert-dev/culvert/internal/packet"
)

// loopback4b is another address of this host, which Linux answers without being told to.
var loopback4b = netip.MustParseAddr("127.0.0.2")

// Two Peers use one virtual prefix for two real ones, at the same time and from the same ports.
func TestTwinsOfTwoPeersDoNotMeet(t *testing.T) {
	p := newPlane(t, Config{})
	p.SetPeers([]PeerAddrs{withTwins(testPeer(), twin("127.0.0.1/32", "246.5.5.5/32")), withTwins(otherPeer(), twin("127.0.0.2/32", "246.5.5.5/32"))})
	r := rawJoin(t, p)
	one := watch(t, loopback4)
	virtual := addrPort(netip.MustParseAddr("246.5.5.5"), one.udp.Port())
	two := watch(t, loopback4b)
	for _, peer := range []struct {
		node     netip.Addr
		own, its *watcher
	}{{node4, one, two}, {otherNode4, two, one}} {
		from := addrPort(peer.node, 7000)
		r.send(packet.AppendUDP(nil, from, addrPort(virtual.Addr(), peer.own.udp.Port()), []byte("x")))
		if what := <-peer.own.seen; what != "UDP datagram" {
			t.Error(what)
		}
		// The other's server listens on the other's address alone: this one is refused there.
		r.send(packet.AppendUDP(nil, from, addrPort(virtual.Addr(), peer.its.udp.Port()), []byte("x")))
		if h, payload := r.answer(); h.Dst != peer.node || payload[0] != 3 || payload[1] != 3 {
			t.Errorf("%v is answered by % x", h.Dst, payload)
		}
		r.send(synPacket(from, addrPort(virtual.Addr(), peer.own.tcp.Port())))
		if h, payload := r.answer(); h.Dst != peer.node || h.Src != virtual.Addr() || payload[13] != packet.FlagSYN|packet.FlagACK {
			t.Errorf("the SYN of %v is answered by % x from %v", peer.node, payload, h.Src)
		}
		if what := <-peer.own.seen; what != "TCP connection" {
			t.Error(what)
		}
		if len(peer.its.seen) > 0 {
			t.Errorf("%v reached the other's server: %s", peer.node, <-peer.its.seen)
		}
		r.received()
	}
}

// A Peer's twin may lie over another's overlay addresses: it is translated all the same, and the other is
// not reached. Else one could take twins from another by its choice of addresses.
func TestTwinOverAnothersOverlay(t *testing.T) {
	p := newPlane(t, Config{})
	p.SetPeers([]PeerAddrs{withTwins(testPeer(), twin("127.0.0.0/24", "245.9.9.0/24")), otherPeer()})
	r := rawJoin(t, p)
	u := echoUDP(t, netip.MustParseAddr("127.0.0.8"))
	r.send(packet.AppendUDP(nil, addrPort(node4, 7000), addrPort(otherNode4, u.Port()), []byte("x")))
	if h, payload := r.answer(); h.Src != otherNode4 || h.Dst != node4 || h.Proto != packet.ProtoUDP || string(payload[8:]) != "x" {
		t.Errorf("answered by % x from %v to %v", payload, h.Src, h.Dst)
	}
}

// Twins change while flows are opened: whatever the order, no flow leads elsewhere than its twin says.
func TestTwinsChangeUnderLoad(t *testing.T) {
	p := newPlane(t, Config{Limits: Limits{FlowsPerPeer: 64}})
	to := [2]twins.Twin{twin("127.0.0.1/32", "246.5.5.5/32"), twin("127.0.0.2/32", "246.5.5.5/32")}
	w, virtual := rawJoin(t, p), netip.MustParseAddr("246.5.5.5")
	one, two := watch(t, loopback4), watch(t, loopback4b)
	stop := make(chan struct{})
	var heard sync.WaitGroup
	heard.Go(func() {
		for {
			select {
			case <-one.seen:
			case <-two.seen:
			case <-stop:
				return
			}
		}
	})
	var senders sync.WaitGroup
	for port := range 4 {
		senders.Go(func() {
			for i := range 1500 {
				from := addrPort(node4, uint16(10000+4*i+port))
				w.send(packet.AppendUDP(nil, from, addrPort(virtual, one.udp.Port()), []byte("x")))
				w.send(synPacket(from, addrPort(virtual, one.tcp.Port())))
			}
		})
	}
	senders.Go(func() {
		for i := range 1001 {
			p.SetPeers([]PeerAddrs{withTwins(testPeer(), to[i%2]), otherPeer()})
		}
	})
	senders.Wait()
	pr := p.peers.Load().byNode[node4]
	if err := misled(pr); err != nil {
		t.Error(err)
	}
	p.SetPeers([]PeerAddrs{testPeer(), otherPeer()})
	if err := misled(pr); err != nil {
		t.Error(err)
	}
	p.Close()
	close(stop)
	heard.Wait()
}

// misled returns an error if a flow of pr goes elsewhere than its destination stands for.
func misled(pr *peer) error {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	for key, f := range pr.tcp {
		if pr.real(key.dst) != f.to {
			return fmt.Errorf("%v leads to %v", key, f.to)
		}
	}
	for key, f := range pr.dgrams {
		if pr.real(key.dst) != f.to {
			return fmt.Errorf("%v leads to %v", key, f.to)
		}
	}
	return nil
}
