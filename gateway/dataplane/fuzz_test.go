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
// addresses only, every answer goes to the Peer that sent the packet, and no flow is opened.
func FuzzFromPeer(f *testing.F) {
	var asked sync.Map
	p, err := New(Config{Permit: func(_ netip.Addr, _ Proto, dst netip.AddrPort) Verdict {
		asked.Store(dst.Addr(), nil)
		return Deny
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { p.Close() })
	p.SetPeers([]PeerAddrs{testPeer(), otherPeer()})
	r := rawJoin(f, p)

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

	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) > 65535 {
			return
		}
		fromPeerTable := [][]byte{pkt, withSource(pkt, node4, node6), withSource(pkt, otherNode4, otherNode6)}
		for _, b := range fromPeerTable {
			r.t = t
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
		}
		asked.Range(func(a, _ any) bool {
			addr := a.(netip.Addr)
			if neverUnicast(addr) || p.peers.Load().overlay[addr] != nil {
				t.Fatalf("asked whether %v is permitted", addr)
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
