package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// forgeries are what a forger may aim at.
var forgeries = []struct {
	name   string
	dst    string
	silent bool // ICMP must not answer to these (RFC 1122)
	// nowhere are in the range of twins: unreachable, like a twin that does not exist
	nowhere bool
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
	{name: "another peer", dst: "245.9.9.8", nowhere: true},
	{name: "another peer v6", dst: "fd00:245::8", nowhere: true},
	{name: "another peer's gateway", dst: "245.9.9.9", nowhere: true},
	{name: "another peer's gateway v6", dst: "fd00:245::9", nowhere: true},
	{name: "itself", dst: "245.1.2.4", nowhere: true},
	{name: "itself v6", dst: "fd00:245::4", nowhere: true},
	{name: "multicast", dst: "224.0.0.251", silent: true},
	{name: "multicast v6", dst: "ff02::fb", silent: true},
	{name: "broadcast", dst: "255.255.255.255"},
	{name: "v4-mapped loopback", dst: "::ffff:127.0.0.1"},
	{name: "v4-mapped metadata", dst: "::ffff:169.254.169.254"},
	{name: "v4-compatible loopback", dst: "::127.0.0.1"},
	{name: "site-local v6", dst: "fec0::1"},
}

// Everything a forger may aim at, each by TCP, UDP and echo: nothing leaves, even when Permit allows
// all of it, and TCP is told so by RST, the rest by ICMP.
func TestForgedDestinationsAreRefused(t *testing.T) {
	f := newForger(t)
	for _, row := range forgeries {
		t.Run(row.name, func(t *testing.T) { f.aim(t, netip.MustParseAddr(row.dst), row.silent, row.nowhere) })
	}
	f.wantNothing()
}

// forger sends forged packets through a plane whose Permit allows everything.
type forger struct {
	*rawPeer
	seen, seen6 *watcher
}

func newForger(t *testing.T) *forger {
	p := newPlane(t, Config{Permit: func(netip.Addr, Proto, netip.AddrPort) Verdict { return Allow }})
	return &forger{rawPeer: rawJoin(t, p), seen: watch(t, loopback4), seen6: watch(t, loopback6)}
}

// aim sends what opens a flow of each protocol to dst and expects the answers to a refusal.
func (f *forger) aim(t *testing.T, dst netip.Addr, silent, nowhere bool) {
	src, port := node6, f.seen6.tcp.Port()
	if dst.Is4() {
		src, port = node4, f.seen.tcp.Port()
	}
	f.send(synPacket(addrPort(src, 4000), addrPort(dst, port)))
	if nowhere {
		wantNowhere(t, f.rawPeer)
	} else if h, payload := f.answer(); h.Proto != packet.ProtoTCP || payload[13]&packet.FlagRST == 0 || h.Src != dst {
		t.Errorf("SYN answered by % x from %v, want RST", payload, h.Src)
	} else if tcp, ok := packet.ParseTCP(payload); !ok || tcp.Ack != 1001 {
		t.Errorf("RST is % x", payload)
	}
	for _, pkt := range [][]byte{packet.AppendUDP(nil, addrPort(src, 4001), addrPort(dst, port), []byte("forged")), echoPacket(src, dst, 7, 1, []byte("forged"))} {
		f.send(pkt)
		if nowhere {
			wantNowhere(t, f.rawPeer)
		} else {
			wantProhibited(t, f.rawPeer, silent)
		}
	}
}

// wantNothing fails the test if a flow was opened, or anything came out.
func (f *forger) wantNothing() {
	if n := f.p.flows.Load(); n != 0 {
		f.t.Errorf("%d flows are open", n)
	}
	select {
	case what := <-f.seen.seen:
		f.t.Errorf("%s reached loopback", what)
	case what := <-f.seen6.seen:
		f.t.Errorf("%s reached loopback over IPv6", what)
	case <-time.After(50 * time.Millisecond):
	}
}

// wantNowhere expects "host unreachable" (IPv6: "address unreachable") from the gateway.
func wantNowhere(t *testing.T, r *rawPeer) {
	t.Helper()
	h, payload := r.answer()
	wantType, wantCode, from := byte(3), byte(1), gateway4
	if !h.Is4() {
		wantType, wantCode, from = 1, 3, gateway6
	}
	if payload[0] != wantType || payload[1] != wantCode || h.Src != from {
		t.Errorf("answered by type %d code %d from %v, want %d %d from %v", payload[0], payload[1], h.Src, wantType, wantCode, from)
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
		{"245.1.2.4", nowhere},
		{"245.9.9.8", nowhere},
		{"245.9.9.9", nowhere},
		{"0.0.0.0", refused},
		{"0.0.0.1", refused},
		{"239.1.1.1", refused},
		{"255.255.255.255", refused},
		{"::ffff:10.96.0.1", refused},
		{"::10.96.0.1", refused},
		{"fe80::1%eth0", refused},
		{"fd00:245::5", nowhere}, // its own gateway address, but of the other family
	} {
		dst := netip.AddrPortFrom(netip.MustParseAddr(row.dst), 80)
		if to, got := p.decide(pr, TCP, node4, dst); got != row.want || to != dst {
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
