package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/gateway/twins"
	"github.com/culvert-dev/culvert/internal/packet"
)

// twin is a Twin of two prefixes.
func twin(real, virtual string) twins.Twin {
	return twins.Twin{Real: netip.MustParsePrefix(real), Virtual: netip.MustParsePrefix(virtual)}
}

// withTwins returns a with the twins list.
func withTwins(a PeerAddrs, list ...twins.Twin) PeerAddrs {
	a.Twins = list
	return a
}

// twinned is testPeer with twins for the loopback prefixes of both families; twinOf and twinAddr return what
// stands for an address there.
func twinned() PeerAddrs {
	return withTwins(testPeer(), twin("127.0.0.0/24", "246.127.0.0/24"), twin("::/120", "fd7a:127::/120"))
}

func twinAddr(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{246, 127, 0, a.As4()[3]})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x7a, 2: 0x01, 3: 0x27, 15: a.As16()[15]})
}

func twinOf(a netip.AddrPort) netip.AddrPort { return addrPort(twinAddr(a.Addr()), a.Port()) }

// nodeOf returns the workstation's address of a's family.
func nodeOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return node4
	}
	return node6
}

// newTwinPlane is newPlane with a testPeer that has twins.
func newTwinPlane(t testing.TB, cfg Config) *Plane {
	p := newPlane(t, cfg)
	p.SetPeers([]PeerAddrs{twinned(), otherPeer()})
	return p
}

// One server by its own address and by its twin, at the same time.
func TestTwinBesideNative(t *testing.T) {
	w := join(t, newTwinPlane(t, Config{}))
	for _, on := range []netip.Addr{loopback4, loopback6} {
		to := serve(t, on, echoTCP)
		var wg sync.WaitGroup
		for i, dst := range []netip.AddrPort{to, twinOf(to), to, twinOf(to)} {
			c := w.mustDial(dst)
			if got := c.RemoteAddr().String(); got != dst.String() {
				t.Errorf("%v is answered from %v", dst, got)
			}
			sent, got := make([]byte, 300000), make([]byte, 300000)
			rand.NewChaCha8([32]byte{byte(i)}).Read(sent)
			wg.Go(func() { c.Write(sent); c.CloseWrite() })
			wg.Go(func() {
				c.SetReadDeadline(time.Now().Add(20 * time.Second))
				if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("%v: %d bytes came back: %v", dst, n, err)
				}
				if n, err := c.Read(got); err != io.EOF {
					t.Errorf("%v: after the end %d bytes, %v", dst, n, err)
				}
			})
		}
		wg.Wait()
	}
}

// Datagrams of any size, larger than the MTU too, both ways.
func TestTwinDatagramSizes(t *testing.T) {
	w := join(t, newTwinPlane(t, Config{}))
	for _, on := range []netip.Addr{loopback4, loopback6} {
		to := echoUDP(t, on)
		native, byTwin := w.dialUDP(to), w.dialUDP(twinOf(to))
		for _, size := range []int{0, 1200, 1392, 1393, 9000, 65507} {
			sent := make([]byte, size)
			rand.NewChaCha8([32]byte{byte(size)}).Read(sent)
			for _, c := range []net.Conn{native, byTwin} { // which drop what comes from elsewhere
				if _, err := c.Write(sent); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range []net.Conn{native, byTwin} {
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				got := make([]byte, 65536)
				if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], sent) {
					t.Errorf("%v, %d bytes: %d came back: %v", c.RemoteAddr(), size, n, err)
				}
			}
		}
	}
}

// The same ports on both sides, so that nothing but the address tells native and twin flows apart.
func TestTwinAnswersCarryTheTwin(t *testing.T) {
	r := rawJoin(t, newTwinPlane(t, Config{}))
	waiting := map[netip.AddrPort]bool{}
	for _, on := range []netip.Addr{loopback4, loopback6} {
		from, u := addrPort(nodeOf(on), 6000), echoUDP(t, on)
		for _, dst := range []netip.Addr{on, twinAddr(on)} {
			r.send(packet.AppendUDP(nil, from, addrPort(dst, u.Port()), []byte(dst.String())))
			if h, payload := r.answer(); h.Src != dst || string(payload[8:]) != dst.String() {
				t.Errorf("a datagram to %v is answered by %q from %v", dst, payload[8:], h.Src)
			}
		}
		to := serve(t, on, echoTCP)
		waiting[to], waiting[twinOf(to)] = true, true
	}
	for dst := range waiting {
		r.send(synPacket(addrPort(nodeOf(dst.Addr()), 6000), dst))
	}
	for len(waiting) > 0 {
		h, payload := r.answer()
		s, ok := packet.ParseTCP(payload)
		if !ok || s.Flags != packet.FlagSYN|packet.FlagACK || s.DstPort != 6000 {
			t.Fatalf("a SYN is answered by % x from %v", payload, h.Src)
		}
		delete(waiting, addrPort(h.Src, s.SrcPort))
	}
}

func TestTwinEcho(t *testing.T) {
	r := rawJoin(t, newTwinPlane(t, Config{}))
	if !pingAllowed(t) {
		return // TestNamespaceTwinEcho has a kernel that permits it
	}
	for _, on := range []netip.Addr{loopback4, loopback6} {
		for _, size := range []int{8, 9000} {
			for _, dst := range []netip.Addr{on, twinAddr(on)} {
				data := bytes.Repeat([]byte{byte(size)}, size)
				packet.Fragment(echoPacket(nodeOf(on), dst, 77, 3, data), 1420, uint32(size), nil, r.send)
				h, payload := r.whole()
				if e, ok := packet.ParseEchoReply(payload, on.Is4()); !ok || h.Src != dst || e.ID != 77 || e.Seq != 3 || !bytes.Equal(e.Data, data) {
					t.Errorf("ping of %v with %d bytes is answered from %v", dst, size, h.Src)
				}
			}
		}
	}
}

// What a destination refuses, and what a router would say, is told as of the twin.
func TestTwinErrorsQuoteTheTwin(t *testing.T) {
	r := rawJoin(t, newTwinPlane(t, Config{}))
	for _, on := range []netip.Addr{loopback4, loopback6} {
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
		if err != nil {
			t.Fatal(err)
		}
		closed := twinOf(u.LocalAddr().(*net.UDPAddr).AddrPort())
		u.Close()
		from := addrPort(nodeOf(on), 6001)
		r.send(synPacket(from, closed))
		if h, payload := r.answer(); h.Proto != packet.ProtoTCP || payload[13]&packet.FlagRST == 0 || h.Src != closed.Addr() {
			t.Errorf("a SYN to a closed port of %v is answered by % x from %v", closed, payload, h.Src)
		}
		unreachable, port, exceeded := byte(1), byte(4), byte(3)
		if on.Is4() {
			unreachable, port, exceeded = 3, 3, 11
		}
		sent := packet.AppendUDP(nil, from, closed, []byte("anyone?"))
		r.send(sent)
		if _, payload := r.answer(); payload[0] != unreachable || payload[1] != port || !bytes.Equal(payload[8:], sent) {
			t.Errorf("a datagram to a closed port of %v is answered by % x", closed, payload)
		}
		r.send(withHopLimit(sent, 1))
		if _, payload := r.answer(); payload[0] != exceeded || payload[1] != 0 || !bytes.Equal(payload[8:], withHopLimit(sent, 1)) {
			t.Errorf("a probe of %v is answered by % x", closed, payload)
		}
	}
}

// Egress is asked about what the twin stands for, once per flow.
func TestPermitJudgesTheRealAddress(t *testing.T) {
	asked := make(chan netip.AddrPort, 16)
	p := newTwinPlane(t, Config{Permit: func(_ netip.Addr, _ Proto, dst netip.AddrPort) Verdict {
		asked <- dst
		return AllowReserved
	}})
	r := rawJoin(t, p)
	seen := watch(t, loopback4)
	for range 3 {
		r.send(packet.AppendUDP(nil, addrPort(node4, 999), twinOf(seen.udp), []byte("x")))
		<-seen.seen
	}
	r.send(synPacket(addrPort(node4, 999), twinOf(seen.tcp)))
	<-seen.seen
	if a, b := <-asked, <-asked; a != seen.udp || b != seen.tcp || len(asked) != 0 {
		t.Errorf("asked about %v and %v, and %d more", a, b, len(asked))
	}
}

// A twin opens nothing that its owner could not have asked for directly.
func TestForgedTwinsAreRefused(t *testing.T) {
	f := newForger(t)
	reals := map[string]string{"its own gateway": "245.1.2.5", "its own gateway v6": "fd00:245::5"}
	for _, row := range forgeries {
		reals[row.name] = row.dst
	}
	for name, dst := range reals {
		t.Run(name, func(t *testing.T) {
			real := netip.MustParseAddr(dst)
			virtual := twinAddr(real)
			w := twins.Twin{Real: netip.PrefixFrom(real, real.BitLen()), Virtual: netip.PrefixFrom(virtual, virtual.BitLen())}
			if real.Is4In6() {
				if _, err := twins.New([]twins.Twin{w}); err == nil {
					t.Error("a twin for an IPv4-mapped address is accepted")
				}
				return
			}
			f.p.SetPeers([]PeerAddrs{withTwins(testPeer(), w), otherPeer()})
			f.aim(t, virtual, false, false) // answered for multicast too: the packet was to one host
		})
	}
	f.wantNothing()
}

// A twin that would hide an address with a meaning of its own is not served, nor is its Peer.
func TestBadTwinsLeaveThePeerOut(t *testing.T) {
	p := newPlane(t, Config{})
	for name, list := range map[string][]twins.Twin{
		"the node":          {twin("10.0.0.0/24", "245.1.2.0/24")},
		"the gateway":       {twin("10.0.0.5/32", "245.1.2.5/32")},
		"the gateway's v6":  {twin("fd00:1::/64", "fd00:245::/64")},
		"two that overlap":  {twin("10.0.0.0/24", "246.0.0.0/24"), twin("10.0.1.0/32", "246.0.0.7/32")},
		"of two lengths":    {twin("10.0.0.0/24", "246.0.0.0/16")},
		"of nothing at all": {{}},
	} {
		p.SetPeers([]PeerAddrs{withTwins(testPeer(), list...), otherPeer()})
		if table := p.peers.Load(); table.byNode[node4] != nil || table.byNode[otherNode4] == nil {
			t.Errorf("%s: served %v, the other %v", name, table.byNode[node4] != nil, table.byNode[otherNode4] != nil)
		}
	}
}

// What is in the range of twins and in none is unreachable at once, but where egress permits it as itself:
// some clusters use these ranges for pods.
func TestUnknownTwinsAreUnreachable(t *testing.T) {
	pods := netip.MustParsePrefix("250.0.0.0/8")
	p := newTwinPlane(t, Config{Permit: func(_ netip.Addr, _ Proto, dst netip.AddrPort) Verdict {
		if pods.Contains(dst.Addr()) || dst.Addr().IsLoopback() {
			return AllowReserved
		}
		return Deny
	}})
	r := rawJoin(t, p)
	for _, dst := range []string{"246.127.1.0", "246.126.255.255", "240.0.0.0", "255.255.255.254", "fd7a:127::100", "fc00::", "fdff::1"} {
		a := netip.MustParseAddr(dst)
		r.send(synPacket(addrPort(nodeOf(a), 4000), addrPort(a, 80)))
		wantNowhere(t, r)
		r.send(packet.AppendUDP(nil, addrPort(nodeOf(a), 4000), addrPort(a, 53), []byte("x")))
		wantNowhere(t, r)
		r.send(echoPacket(nodeOf(a), a, 1, 1, nil))
		wantNowhere(t, r)
	}
	pr := p.peers.Load().byNode[node4]
	for dst, want := range map[string]route{"250.1.2.3:80": toNetwork, "246.127.0.1:80": toNetwork, "246.127.1.1:80": nowhere, "10.0.0.1:80": refused, "255.255.255.255:80": refused} {
		if _, got := p.decide(pr, TCP, node4, netip.MustParseAddrPort(dst)); got != want {
			t.Errorf("%s: %d, want %d", dst, got, want)
		}
	}
}

// flowsTo opens a TCP connection and a datagram flow to dst and returns how to tell whether both live.
func (w *workstation) flowsTo(tcp, udp netip.AddrPort) (alive func() error) {
	w.t.Helper()
	c, d := w.mustDial(tcp), w.dialUDP(udp)
	return func() error {
		var failures []error
		for _, conn := range []net.Conn{c, d} {
			patience := 5 * time.Second
			if len(failures) > 0 { // the connection is dead: nothing is expected of the other
				patience = 100 * time.Millisecond
			}
			conn.SetDeadline(time.Now().Add(patience))
			_, err := conn.Write([]byte("alive?"))
			if err == nil {
				_, err = io.ReadFull(conn, make([]byte, 6))
			}
			if err != nil {
				failures = append(failures, fmt.Errorf("%v: %w", conn.RemoteAddr(), err))
			}
		}
		if len(failures) == 1 {
			w.t.Errorf("one of two lives: %v", failures)
		}
		return errors.Join(failures...)
	}
}

func TestChangedTwinsEndOnlyTheirFlows(t *testing.T) {
	p := newPlane(t, Config{})
	host, net24, six := twin("127.0.0.1/32", "246.1.1.1/32"), twin("127.0.0.0/24", "246.2.2.0/24"), twin("::1/128", "fd7a::1/128")
	set := func(list ...twins.Twin) { p.SetPeers([]PeerAddrs{withTwins(testPeer(), list...), otherPeer()}) }
	set(host, net24, six)
	w := join(t, p)
	tcp, udp, tcp6, udp6 := serve(t, loopback4, echoTCP), echoUDP(t, loopback4), serve(t, loopback6, echoTCP), echoUDP(t, loopback6)
	at := func(a string, of netip.AddrPort) netip.AddrPort { return addrPort(netip.MustParseAddr(a), of.Port()) }
	type open struct {
		name  string
		alive func() error
	}
	flows := []open{
		{"native", w.flowsTo(tcp, udp)},
		{"host", w.flowsTo(at("246.1.1.1", tcp), at("246.1.1.1", udp))},
		{"net24", w.flowsTo(at("246.2.2.1", tcp), at("246.2.2.1", udp))},
		{"six", w.flowsTo(at("fd7a::1", tcp6), at("fd7a::1", udp6))},
	}
	for _, f := range flows {
		if err := f.alive(); err != nil {
			t.Fatal(f.name, err)
		}
	}
	for _, step := range []struct {
		name string
		list []twins.Twin
		ends map[string]bool
	}{
		{"another order", []twins.Twin{six, net24, host}, nil},
		{"one more", []twins.Twin{six, net24, host, twin("10.0.0.0/8", "247.0.0.0/8")}, nil},
		{"one less", []twins.Twin{six, net24}, map[string]bool{"host": true}},
		{"moved elsewhere", []twins.Twin{six, twin("127.9.9.0/24", "246.2.2.0/24")}, map[string]bool{"net24": true}},
		{"split, but the same", []twins.Twin{twin("::/127", "fd7a::/127")}, nil},
		{"all gone", nil, map[string]bool{"six": true}},
	} {
		set(step.list...)
		left := flows[:0]
		for _, f := range flows {
			err := f.alive()
			if (err != nil) != step.ends[f.name] {
				t.Errorf("%s: the flows of %s: %v", step.name, f.name, err)
			}
			if err == nil {
				left = append(left, f)
			}
		}
		flows = left
	}
	if len(flows) != 1 || flows[0].name != "native" {
		t.Errorf("left are %v", flows)
	}
}

// A destination that was native becomes a twin: its flows led elsewhere.
func TestNewTwinEndsNativeFlows(t *testing.T) {
	p := newPlane(t, Config{})
	w := join(t, p)
	alive := w.flowsTo(serve(t, loopback4, echoTCP), echoUDP(t, loopback4))
	p.SetPeers([]PeerAddrs{withTwins(testPeer(), twin("192.0.2.0/24", "127.0.0.0/24")), otherPeer()})
	if n := p.flows.Load(); n != 0 || alive() == nil {
		t.Errorf("%d flows live on", n)
	}
}
