package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// Everything a forger may aim at, each by TCP, UDP and echo: nothing leaves, even when Permit allows
// all of it, and TCP is told so by RST, the rest by ICMP.
func TestForgedDestinationsAreRefused(t *testing.T) {
	rows := []struct {
		name   string
		dst    string
		silent bool // ICMP must not answer to these (RFC 1122)
	}{
		{name: "loopback", dst: "127.0.0.1"},
		{name: "all of loopback", dst: "127.44.1.9"},
		{name: "loopback v6", dst: "::1"},
		{name: "link-local", dst: "169.254.1.1"},
		{name: "metadata", dst: "169.254.169.254"},
		{name: "link-local v6", dst: "fe80::1"},
		{name: "unspecified", dst: "0.0.0.0"},
		{name: "unspecified v6", dst: "::"},
		{name: "this network", dst: "0.1.2.3"},
		{name: "another peer", dst: "245.9.9.8"},
		{name: "another peer v6", dst: "fd00:245::8"},
		{name: "another peer's gateway", dst: "245.9.9.9"},
		{name: "another peer's gateway v6", dst: "fd00:245::9"},
		{name: "itself", dst: "245.1.2.4"},
		{name: "itself v6", dst: "fd00:245::4"},
		{name: "multicast", dst: "224.0.0.251", silent: true},
		{name: "multicast v6", dst: "ff02::fb", silent: true},
		{name: "broadcast", dst: "255.255.255.255"},
		{name: "v4-mapped loopback", dst: "::ffff:127.0.0.1"},
		{name: "v4-mapped metadata", dst: "::ffff:169.254.169.254"},
		{name: "v4-compatible loopback", dst: "::127.0.0.1"},
		{name: "site-local v6", dst: "fec0::1"},
	}
	p := newPlane(t, Config{Permit: func(netip.Addr, Proto, netip.AddrPort) Verdict { return Allow }})
	r := rawJoin(t, p)
	seen := watch(t, loopback4)
	seen6 := watch(t, loopback6)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dst, src, port := netip.MustParseAddr(row.dst), node6, seen6.tcp.Port()
			if dst.Is4() {
				src, port = node4, seen.tcp.Port()
			}
			r.send(synPacket(netip.AddrPortFrom(src, 4000), netip.AddrPortFrom(dst, port)))
			h, payload := r.answer()
			if tcp, ok := packet.ParseTCP(payload); !ok || tcp.Flags&packet.FlagRST == 0 || tcp.Ack != 1001 || h.Src != dst {
				t.Errorf("SYN answered by % x from %v, want RST", payload, h.Src)
			}
			from := netip.AddrPortFrom(src, 4001)
			r.send(packet.AppendUDP(nil, from, netip.AddrPortFrom(dst, port), []byte("forged")))
			wantProhibited(t, r, row.silent)
			r.send(echoPacket(src, dst, 7, 1, []byte("forged")))
			wantProhibited(t, r, row.silent)
		})
	}
	if n := p.flows.Load(); n != 0 {
		t.Errorf("%d flows are open", n)
	}
	select {
	case what := <-seen.seen:
		t.Errorf("%s reached loopback", what)
	case what := <-seen6.seen:
		t.Errorf("%s reached loopback over IPv6", what)
	case <-time.After(50 * time.Millisecond):
	}
}

// wantProhibited expects "administratively prohibited" from the gateway, or nothing.
func wantProhibited(t *testing.T, r *rawPeer, silent bool) {
	t.Helper()
	if silent {
		if got := r.received(); len(got) > 0 {
			t.Errorf("answered by % x, want silence", got)
		}
		return
	}
	h, payload := r.answer()
	wantType, wantCode, from := byte(3), byte(13), gateway4
	if !h.Is4() {
		wantType, wantCode, from = 1, 1, gateway6
	}
	if payload[0] != wantType || payload[1] != wantCode || h.Src != from {
		t.Errorf("answered by type %d code %d from %v, want %d %d from %v", payload[0], payload[1], h.Src, wantType, wantCode, from)
	}
}

// What is no host, or another Peer's, stays closed also where Permit opens what is reserved.
func TestAllowReservedOpensOnlyReserved(t *testing.T) {
	p := newPlane(t, Config{Permit: permitLoopback})
	pr := p.peers.Load().byNode[node4]
	for _, row := range []struct {
		dst  string
		want route
	}{
		{"127.0.0.1", toNetwork},
		{"169.254.20.10", toNetwork},
		{"10.96.0.1", toNetwork},
		{"::1", toNetwork},
		{"245.1.2.5", toGateway},
		{"245.1.2.4", refused},
		{"245.9.9.8", refused},
		{"245.9.9.9", refused},
		{"0.0.0.0", refused},
		{"0.0.0.1", refused},
		{"239.1.1.1", refused},
		{"255.255.255.255", refused},
		{"::ffff:10.96.0.1", refused},
		{"::10.96.0.1", refused},
		{"fe80::1%eth0", refused},
		{"fd00:245::5", refused}, // its own gateway address, but of the other family
	} {
		if got := p.decide(pr, TCP, node4, netip.AddrPortFrom(netip.MustParseAddr(row.dst), 80)); got != row.want {
			t.Errorf("%s: %d, want %d", row.dst, got, row.want)
		}
	}
}

func TestForgedSourcesAreDropped(t *testing.T) {
	reg := NewMetrics(nil)
	p := newPlane(t, Config{Metrics: reg})
	r := rawJoin(t, p)
	seen := watch(t, loopback4)
	for _, src := range []string{"245.1.2.6", "245.1.2.5", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.0.0.1"} {
		from := netip.MustParseAddr(src)
		before := metric(t, reg.drops.WithLabelValues(dropSource))
		r.send(synPacket(netip.AddrPortFrom(from, 4000), seen.tcp))
		r.send(packet.AppendUDP(nil, netip.AddrPortFrom(from, 4000), seen.udp, []byte("x")))
		r.send(echoPacket(from, loopback4, 1, 1, nil))
		if got := metric(t, reg.drops.WithLabelValues(dropSource)) - before; got != 3 {
			t.Errorf("from %s: %v packets dropped, want 3", src, got)
		}
	}
	time.Sleep(20 * time.Millisecond)
	if got := r.received(); len(got) > 0 || len(seen.seen) > 0 {
		t.Errorf("answers %x, seen %d", got, len(seen.seen))
	}
}

func TestPermitIsAskedOncePerFlow(t *testing.T) {
	asked := make(chan netip.AddrPort, 16)
	p := newPlane(t, Config{Permit: func(peer netip.Addr, proto Proto, dst netip.AddrPort) Verdict {
		if peer != node4 || proto != UDP {
			t.Errorf("asked for %v %v", peer, proto)
		}
		asked <- dst
		return AllowReserved
	}})
	r := rawJoin(t, p)
	seen := watch(t, loopback4)
	for range 5 {
		r.send(packet.AppendUDP(nil, netip.AddrPortFrom(node4, 999), seen.udp, []byte("x")))
		<-seen.seen
	}
	if len(asked) != 1 || <-asked != seen.udp {
		t.Errorf("asked %d times", len(asked)+1)
	}
}
