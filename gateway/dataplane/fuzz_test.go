package dataplane

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"

	"github.com/culvert-dev/culvert/internal/packet"
)

// FuzzFromPeer throws packets at a plane that permits nothing but one documentation prefix which no
// socket is ever opened to: whatever comes in, nothing panics, Permit is asked for ordinary unicast
// addresses only and never for one that is a twin, every answer goes to the Peer that sent the packet and
// comes from where that was sent or from the gateway, and no flow is opened. The Peers' twins lead
// to each other, to loopback and to ordinary addresses.
func FuzzFromPeer(f *testing.F) {
	type question struct{ peer, dst netip.Addr }
	var asked sync.Map
	p, err := New(Config{Permit: func(peer netip.Addr, _ Proto, dst netip.AddrPort) Verdict {
		asked.Store(question{peer, dst.Addr()}, nil)
		return Deny
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { p.Close() })
	p.SetPeers([]PeerAddrs{
		withTwins(testPeer(), twin("245.0.0.0/8", "246.0.0.0/8"), twin("192.0.2.0/24", "247.0.2.0/24"), twin("fd00:245::/64", "fd7a:245::/64")),
		withTwins(otherPeer(), twin("127.0.0.0/24", "246.0.0.0/24"), twin("224.0.0.0/24", "246.1.0.0/24"), twin("::/120", "fd7a:245::/120")),
	})
	r := rawJoin(f, p)
	var sent sync.Map // destinations

	web := netip.MustParseAddrPort("192.0.2.1:80")
	web6 := netip.MustParseAddrPort("[2001:db8::1]:80")
	from, from6 := netip.AddrPortFrom(node4, 4000), netip.AddrPortFrom(node6, 4000)
	f.Add(synPacket(from, web))
	f.Add(synPacket(from6, web6))
	f.Add(synPacket(from, netip.AddrPortFrom(gateway4, 53)))
	f.Add(packet.AppendUDP(nil, from, web, []byte("x")))
	f.Add(packet.AppendUDP(nil, from6, netip.AddrPortFrom(gateway6, 53), []byte("x")))
	f.Add(echoPacket(node4, web.Addr(), 1, 2, []byte("x")))
	f.Add(echoPacket(node6, gateway6, 1, 2, []byte("x")))
	packet.Fragment(packet.AppendUDP(nil, from, web, make([]byte, 3000)), 1420, 9, nil, func(b []byte) { f.Add(append([]byte(nil), b...)) })
	packet.Fragment(packet.AppendUDP(nil, from6, web6, make([]byte, 3000)), 1420, 9, nil, func(b []byte) { f.Add(append([]byte(nil), b...)) })
	ack := synPacket(from, web)
	ack[33] = packet.FlagACK
	f.Add(ack)
	f.Add(ipPacket(node4, web.Addr(), 99, []byte("x")))
	for _, dst := range []string{"246.9.9.8:80", "247.0.2.1:80", "246.0.0.1:80", "[fd7a:245::8]:80", "[fd7a:245::1]:80"} {
		a := netip.MustParseAddrPort(dst)
		f.Add(synPacket(addrPort(nodeOf(a.Addr()), 4000), a))
		f.Add(packet.AppendUDP(nil, addrPort(nodeOf(a.Addr()), 4000), a, []byte("x")))
		f.Add(echoPacket(nodeOf(a.Addr()), a.Addr(), 1, 2, []byte("x")))
	}

	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) > 65535 {
			return
		}
		fromPeerTable := [][]byte{pkt, withSource(pkt, node4, node6), withSource(pkt, otherNode4, otherNode6)}
		for _, b := range fromPeerTable {
			r.t = t
			if h, err := packet.Parse(b); err == nil {
				sent.Store(h.Dst, nil)
			}
			r.send(b)
		}
		for _, got := range r.received() {
			h, err := packet.Parse(got)
			if err != nil {
				t.Fatalf("a broken answer % x: %v", got, err)
			}
			if p.peers.Load().byNode[h.Dst] == nil {
				t.Fatalf("an answer to %v, who is no Peer", h.Dst)
			}
			pr := p.peers.Load().byNode[h.Dst]
			if _, known := sent.Load(h.Src); !known && h.Src != pr.gateway(h.Dst) {
				t.Fatalf("an answer from %v, where nothing was sent", h.Src)
			}
		}
		asked.Range(func(a, _ any) bool {
			q := a.(question)
			addr := q.dst
			if neverUnicast(addr) || p.peers.Load().overlay[addr] != nil {
				t.Fatalf("asked whether %v is permitted", addr)
			}
			for _, w := range *p.peers.Load().byNode[q.peer].twins.Load() {
				if w.Virtual.Contains(addr) {
					t.Fatalf("asked whether %v may reach %v, which is its twin for %v", q.peer, addr, w.Real)
				}
			}
			asked.Delete(a)
			return true
		})
		if n := p.flows.Load(); n != 0 {
			t.Fatalf("%d flows are open although nothing is permitted", n)
		}
	})
}

// withSource returns pkt with a Peer's address as its source, so that the fuzzer need not guess it, and
// a correct IPv4 header checksum.
func withSource(pkt []byte, src4, src6 netip.Addr) []byte {
	b := append([]byte(nil), pkt...)
	switch {
	case len(b) >= 40 && b[0]>>4 == 6:
		copy(b[8:], src6.AsSlice())
	case len(b) >= 20 && b[0]>>4 == 4:
		copy(b[12:], src4.AsSlice())
		if header := int(b[0]&15) * 4; header >= 20 && header <= len(b) {
			binary.BigEndian.PutUint16(b[10:], 0)
			sum := uint32(0)
			for i := 0; i < header; i += 2 {
				sum += uint32(b[i])<<8 | uint32(b[i+1])
			}
			sum = sum>>16 + sum&0xffff
			binary.BigEndian.PutUint16(b[10:], ^uint16(sum>>16+sum))
		}
	}
	return b
}
