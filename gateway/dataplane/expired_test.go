package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// withHopLimit sets the hop limit of a packet. IPv4's header checksum is not looked at.
func withHopLimit(pkt []byte, limit byte) []byte {
	if pkt[0]>>4 == 4 {
		pkt[8] = limit
	} else {
		pkt[7] = limit
	}
	return pkt
}

// timeExceeded is what a packet at the end of its hop limit is answered by.
func timeExceeded(dst netip.Addr) (kind byte, from netip.Addr) {
	if dst.Is4() {
		return 11, gateway4
	}
	return 3, gateway6
}

// Whatever would be forwarded is told that its time is over, and nothing of it arrives.
func TestHopLimitEndsAtTheGateway(t *testing.T) {
	p := newPlane(t, Config{})
	r := rawJoin(t, p)
	for _, end := range []struct{ node, on netip.Addr }{{node4, loopback4}, {node6, loopback6}} {
		seen := watch(t, end.on)
		before := p.flows.Load()
		wantKind, wantFrom := timeExceeded(end.on)
		for name, pkt := range map[string][]byte{
			"UDP":                  packet.AppendUDP(nil, addrPort(end.node, 5000), seen.udp, []byte("probe")),
			"SYN":                  synPacket(addrPort(end.node, 5001), seen.tcp),
			"echo":                 echoPacket(end.node, end.on, 7, 1, []byte("probe")),
			"a segment of no flow": withFlags(synPacket(addrPort(end.node, 5002), seen.tcp), packet.FlagACK),
		} {
			for _, limit := range []byte{0, 1} {
				r.send(withHopLimit(pkt, limit))
				h, payload := r.answer()
				if payload[0] != wantKind || payload[1] != 0 || h.Src != wantFrom {
					t.Errorf("%s to %v with hop limit %d: type %d code %d from %v", name, end.on, limit, payload[0], payload[1], h.Src)
				}
			}
		}
		if n := p.flows.Load() - before; n != 0 {
			t.Errorf("%d flows to %v are open", n, end.on)
		}
		r.send(withHopLimit(packet.AppendUDP(nil, addrPort(end.node, 5000), seen.udp, []byte("probe")), 2))
		select {
		case what := <-seen.seen: // the only one: the others would have come first
			if what != "UDP datagram" {
				t.Errorf("a %s came through", what)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("a datagram with hop limit 2 did not reach %v", end.on)
		}
		if len(seen.seen) > 0 {
			t.Errorf("a %s came through to %v", <-seen.seen, end.on)
		}
	}
}

// withFlags sets the flags of a TCP segment without IP options.
func withFlags(pkt []byte, flags byte) []byte {
	h, err := packet.Parse(pkt)
	if err != nil {
		panic(err)
	}
	pkt[h.PayloadOffset+13] = flags
	return pkt
}

// A flow that is open lends its way to no packet that may not be forwarded.
func TestHopLimitEndsWithinAFlow(t *testing.T) {
	r := rawJoin(t, newPlane(t, Config{}))
	seen := watch(t, loopback4)
	datagram := packet.AppendUDP(nil, addrPort(node4, 5000), seen.udp, []byte("x"))
	r.send(datagram)
	<-seen.seen
	r.send(withHopLimit(datagram, 1))
	if _, payload := r.answer(); payload[0] != 11 {
		t.Errorf("answered by type %d", payload[0])
	}
	select {
	case <-seen.seen:
		t.Error("the datagram went through")
	case <-time.After(20 * time.Millisecond):
	}
}

// Where egress is refused that is what a packet is told, whatever its hop limit.
func TestRefusalComesBeforeHopLimit(t *testing.T) {
	p := newPlane(t, Config{Permit: func(netip.Addr, Proto, netip.AddrPort) Verdict { return Deny }})
	r := rawJoin(t, p)
	for _, end := range []struct{ node, dst netip.Addr }{
		{node4, netip.MustParseAddr("10.96.0.1")}, {node6, netip.MustParseAddr("fd00:96::1")}, {node4, otherNode4},
	} {
		syn := withHopLimit(synPacket(addrPort(end.node, 4000), addrPort(end.dst, 80)), 1)
		r.send(syn)
		if _, payload := r.answer(); payload[13]&packet.FlagRST == 0 {
			t.Errorf("a SYN to %v is answered by % x", end.dst, payload)
		}
		r.send(withHopLimit(packet.AppendUDP(nil, addrPort(end.node, 4000), addrPort(end.dst, 80), nil), 1))
		wantProhibited(t, r, false)
		r.send(withHopLimit(echoPacket(end.node, end.dst, 7, 1, nil), 1))
		wantProhibited(t, r, false)
		r.send(withFlags(syn, packet.FlagRST))
		if h, payload := r.answer(); h.Proto == packet.ProtoTCP {
			t.Errorf("a reset to %v is answered by a segment % x", end.dst, payload)
		}
	}
}

// The gateway's own address is the end of the way, where no hop limit matters.
func TestHopLimitReachesTheGateway(t *testing.T) {
	r := rawJoin(t, newPlane(t, Config{}))
	for _, end := range []struct{ node, gateway netip.Addr }{{node4, gateway4}, {node6, gateway6}} {
		r.send(withHopLimit(echoPacket(end.node, end.gateway, 7, 1, []byte("there?")), 1))
		h, payload := r.answer()
		if e, ok := packet.ParseEchoReply(payload, end.node.Is4()); !ok || h.Src != end.gateway || string(e.Data) != "there?" {
			t.Errorf("ping of %v is answered by % x", end.gateway, payload)
		}
	}
}

// Errors about expired packets are limited like all others.
func TestTimeExceededIsLimited(t *testing.T) {
	reg := NewMetrics(nil)
	p := newPlane(t, Config{Metrics: reg})
	r := rawJoin(t, p)
	pkt := withHopLimit(packet.AppendUDP(nil, addrPort(node4, 5000), addrPort(loopback4, 33434), nil), 1)
	for range 2 * errorBurst {
		r.send(pkt)
	}
	if n := metric(t, reg.drops.WithLabelValues(dropLimited)); n == 0 {
		t.Error("no answer was withheld")
	}
}
