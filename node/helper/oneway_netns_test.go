//go:build netns

package helper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// gatewayEnd is the far end of the tunnel: what a hostile gateway could do with it.
type gatewayEnd struct {
	t       *testing.T
	dev     tun.Device
	packets chan []byte // what the host sends into the tunnel
}

// openTunnel runs a helper in this process and takes the TUN's far end.
func openTunnel(t *testing.T) *gatewayEnd {
	t.Helper()
	client := serveInProcess(t)
	open, state := testState("1")
	opened, err := client.Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	state.Interface = opened.Interface
	if err := client.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	fd, err := opened.TakeTUN()
	if err != nil {
		t.Fatal(err)
	}
	dev, name, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil || name != "culvert0" || dev.BatchSize() < 2 {
		t.Fatalf("TUN %q, batch size %d: %v", name, dev.BatchSize(), err)
	}
	g := &gatewayEnd{t: t, dev: dev, packets: make(chan []byte, 1024)}
	done := make(chan struct{})
	go func() { defer close(done); g.read() }()
	t.Cleanup(func() { _ = dev.Close(); <-done })
	return g
}

// serveInProcess runs the helper as a goroutine with the real host and returns its client.
func serveInProcess(t *testing.T) *Client {
	t.Helper()
	lock, err := (Paths{}).lock(DefaultName)
	if err != nil {
		t.Fatal(err)
	}
	host, closeHost, err := hostnet.New()
	if err != nil {
		t.Fatal(err)
	}
	partners, err := socketPair("helper")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(partners[0])
	if err = errors.Join(err, partners[0].Close()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- Run(noSignals, Options{Name: DefaultName, Conn: conn.(*net.UnixConn), Host: host, Log: discard})
	}()
	client, err := NewClient(t.Context(), partners[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Disconnect()
		if err := <-ended; err != nil {
			t.Errorf("helper: %v", err)
		}
		closeHost()
		_ = lock.Close()
	})
	return client
}

// read queues what the host sends.
func (g *gatewayEnd) read() {
	bufs, sizes := make([][]byte, g.dev.BatchSize()), make([]int, g.dev.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 1<<16)
	}
	for {
		n, err := g.dev.Read(bufs, sizes, 0)
		if err != nil {
			return
		}
		for i := range n {
			g.packets <- bytes.Clone(bufs[i][:sizes[i]])
		}
	}
}

// inject sends a packet out of the tunnel into the host.
func (g *gatewayEnd) inject(packet []byte) {
	g.t.Helper()
	const headroom = 16 // for the virtio-net header
	buf := append(make([]byte, headroom), packet...)
	if _, err := g.dev.Write([][]byte{buf}, headroom); err != nil {
		g.t.Fatal(err)
	}
}

// next waits for a packet that the host sends and that fits.
func (g *gatewayEnd) next(limit time.Duration, fits func(p []byte) bool) []byte {
	timeout := time.After(limit)
	for {
		select {
		case p := <-g.packets:
			if fits(p) {
				return p
			}
		case <-timeout:
			return nil
		}
	}
}

var (
	insider  = netip.MustParseAddr("10.130.4.4") // somebody in the cluster
	insider6 = netip.MustParseAddr("fd10:130::4")
	self     = netip.MustParseAddr("245.1.2.10") // the workstation's overlay addresses
	self6    = netip.MustParseAddr("fd00:c0de::10")
)

func TestNothingInTheClusterOpensAConnection(t *testing.T) {
	g := openTunnel(t)
	udp := listenUDP(t)
	tcp, err := net.Listen("tcp", netip.AddrPortFrom(self, 4444).String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	port := uint16(udp.LocalAddr().(*net.UDPAddr).Port)
	icmpID := uint16(7)

	attacks := map[string][]byte{
		"TCP SYN":                     ipv4(insider, self, unix.IPPROTO_TCP, tcpSegment(insider, self, 999, 4444, 2)),
		"TCP ACK out of nothing":      ipv4(insider, self, unix.IPPROTO_TCP, tcpSegment(insider, self, 999, 4444, 16)),
		"UDP":                         ipv4(insider, self, unix.IPPROTO_UDP, udpDatagram(insider, self, 999, port, "in")),
		"UDP to the resolver":         ipv4(insider, self, unix.IPPROTO_UDP, udpDatagram(insider, self, 999, 53, "in")),
		"ping":                        ipv4(insider, self, unix.IPPROTO_ICMP, echoRequest(icmpID)),
		"UDP to another address":      ipv4(insider, netip.MustParseAddr("192.168.77.1"), unix.IPPROTO_UDP, udpDatagram(insider, netip.MustParseAddr("192.168.77.1"), 999, port, "in")),
		"ping over IPv6":              ipv6(insider6, self6, unix.IPPROTO_ICMPV6, echoRequest6()),
		"TCP SYN over IPv6":           ipv6(insider6, self6, unix.IPPROTO_TCP, tcpSegment(insider6, self6, 999, 53, 2)),
		"UDP over IPv6":               ipv6(insider6, self6, unix.IPPROTO_UDP, udpDatagram(insider6, self6, 999, port, "in")),
		"a neighbour solicitation":    ipv6(insider6, self6, unix.IPPROTO_ICMPV6, solicitation()),
		"an ICMP error about no flow": ipv4(insider, self, unix.IPPROTO_ICMP, unreachable(ipv4(self, insider, unix.IPPROTO_UDP, udpDatagram(self, insider, 1, 2, "")))),
	}
	for name, packet := range attacks {
		g.inject(packet)
		if answer := g.next(100*time.Millisecond, isAnything); answer != nil {
			t.Errorf("%s: the host answers %x", name, answer)
		}
	}
	if n := received(t, udp); n != "" {
		t.Errorf("a datagram %q came in", n)
	}

	for _, name := range []string{"TCP SYN", "ping", "ping over IPv6", "TCP SYN over IPv6"} {
		if !g.unfiltered(attacks[name], func() bool { return g.next(100*time.Millisecond, isAnything) != nil }) {
			t.Errorf("%s: no answer without the filter either, so this proves nothing", name)
		}
	}
	for _, name := range []string{"UDP", "UDP over IPv6"} {
		if !g.unfiltered(attacks[name], func() bool { return received(t, udp) == "in" }) {
			t.Errorf("%s: nothing comes in without the filter either, so this proves nothing", name)
		}
	}
}

// unfiltered takes the filter away and injects a packet, again and again, since the helper puts the filter
// back within moments, and reports whether the packet came in.
func (g *gatewayEnd) unfiltered(packet []byte, came func() bool) bool {
	g.t.Helper()
	for range 50 {
		sh(g.t, "nft delete table inet culvert_culvert0 2>/dev/null || true")
		if g.inject(packet); came() {
			return true
		}
	}
	return false
}

func TestRepliesAndErrorsComeBack(t *testing.T) {
	g := openTunnel(t)
	udp, err := net.Dial("udp", netip.AddrPortFrom(insider, 7777).String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	local := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	if local.Addr() != self {
		t.Errorf("the host sends from %s, want %s", local.Addr(), self)
	}
	if _, err := udp.Write([]byte("out")); err != nil {
		t.Fatal(err)
	}
	out := g.next(time.Second, func(p []byte) bool { return isIPv4(p) && bytes.HasSuffix(p, []byte("out")) })
	if out == nil {
		t.Fatal("nothing was sent into the tunnel")
	}
	g.inject(ipv4(insider, self, unix.IPPROTO_UDP, udpDatagram(insider, self, 7777, local.Port(), "back")))
	_ = udp.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 100)
	if n, err := udp.Read(buf); err != nil || string(buf[:n]) != "back" {
		t.Errorf("reply %q, %v", buf[:n], err)
	}
	g.inject(ipv4(insider, self, unix.IPPROTO_ICMP, unreachable(out)))
	_ = udp.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := udp.Read(buf); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("after an ICMP error: %v, want connection refused", err)
	}
}

func TestNothingIsForwardedFromTheTunnel(t *testing.T) {
	sh(t, "echo 1 > /proc/sys/net/ipv4/ip_forward; ip neigh replace 192.168.77.2 lladdr 02:00:00:00:00:02 dev v0")
	defer sh(t, "echo 0 > /proc/sys/net/ipv4/ip_forward; ip neigh del 192.168.77.2 dev v0")
	g := openTunnel(t)
	wire := listenWire(t, "v1")
	lan := netip.MustParseAddr("192.168.77.2")
	g.inject(ipv4(insider, lan, unix.IPPROTO_UDP, udpDatagram(insider, lan, 1, 2, "forwarded")))
	if wire.sees("forwarded", 200*time.Millisecond) {
		t.Error("a packet from the tunnel went out to the LAN")
	}
	sh(t, "nft delete table inet culvert_culvert0") // and the test would have seen it
	g.inject(ipv4(insider, lan, unix.IPPROTO_UDP, udpDatagram(insider, lan, 1, 2, "forwarded")))
	if !wire.sees("forwarded", time.Second) {
		t.Error("without the filter nothing goes out either: the test proves nothing")
	}
}

// wire sees all packets that arrive on an interface.
type wire struct{ f *os.File }

func listenWire(t *testing.T, iface string) wire {
	t.Helper()
	link, err := net.InterfaceByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	proto := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index}); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), iface)
	t.Cleanup(func() { _ = f.Close() })
	return wire{f}
}

// sees reports whether a packet that ends in text arrives in time.
func (w wire) sees(text string, limit time.Duration) bool {
	_ = w.f.SetReadDeadline(time.Now().Add(limit))
	buf := make([]byte, 1<<16)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			return false
		}
		if bytes.Contains(buf[:n], []byte(text)) {
			return true
		}
	}
}

// listenUDP listens on all addresses of both families.
func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// received returns what is waiting in a socket.
func received(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func isAnything([]byte) bool { return true }

func isIPv4(p []byte) bool { return len(p) > 20 && p[0]>>4 == 4 }

// ipv4 returns a packet (RFC 791).
func ipv4(src, dst netip.Addr, proto byte, payload []byte) []byte {
	h := make([]byte, 20, 20+len(payload))
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^sum(h))
	return append(h, payload...)
}

// ipv6 returns a packet (RFC 8200).
func ipv6(src, dst netip.Addr, proto byte, payload []byte) []byte {
	h := make([]byte, 40, 40+len(payload))
	h[0], h[6], h[7] = 0x60, proto, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, payload...)
}

func udpDatagram(src, dst netip.Addr, from, to uint16, text string) []byte {
	d := make([]byte, 8, 8+len(text))
	binary.BigEndian.PutUint16(d, from)
	binary.BigEndian.PutUint16(d[2:], to)
	binary.BigEndian.PutUint16(d[4:], uint16(8+len(text)))
	d = append(d, text...)
	binary.BigEndian.PutUint16(d[6:], transportSum(src, dst, unix.IPPROTO_UDP, d))
	return d
}

func tcpSegment(src, dst netip.Addr, from, to uint16, flags byte) []byte {
	s := make([]byte, 20)
	binary.BigEndian.PutUint16(s, from)
	binary.BigEndian.PutUint16(s[2:], to)
	s[7], s[11], s[12], s[13], s[14] = 1, 1, 5<<4, flags, 0xff
	binary.BigEndian.PutUint16(s[16:], transportSum(src, dst, unix.IPPROTO_TCP, s))
	return s
}

func echoRequest(id uint16) []byte {
	p := []byte{8, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
	binary.BigEndian.PutUint16(p[2:], ^sum(p))
	return p
}

// echoRequest6 is an ICMPv6 echo request from the insider (RFC 4443).
func echoRequest6() []byte {
	p := []byte{128, 0, 0, 0, 0, 7, 0, 1}
	binary.BigEndian.PutUint16(p[2:], transportSum(insider6, self6, unix.IPPROTO_ICMPV6, p))
	return p
}

// solicitation asks who has the workstation's address (RFC 4861).
func solicitation() []byte {
	p := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, self6.AsSlice()...)
	binary.BigEndian.PutUint16(p[2:], transportSum(insider6, self6, unix.IPPROTO_ICMPV6, p))
	return p
}

// unreachable is an ICMP port unreachable about a packet (RFC 792).
func unreachable(about []byte) []byte {
	p := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, about[:min(len(about), 28)]...)
	binary.BigEndian.PutUint16(p[2:], ^sum(p))
	return p
}

// transportSum is the checksum over pseudo header and segment (RFC 1071, 768, 9293).
func transportSum(src, dst netip.Addr, proto byte, segment []byte) uint16 {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = append(pseudo, 0, proto, byte(len(segment)>>8), byte(len(segment)))
	return ^sum(append(pseudo, segment...))
}

func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}
