//go:build lab

package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/packet"
	"github.com/culvert-dev/culvert/internal/wgdev"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// rawPeer is a client of the gateway that sends whatever packets it likes and keeps all that it gets:
//
//	test: packets ──► WireGuard ──► carrier ──► process on ws: port-forward as the user ──► gateway
type rawPeer struct {
	name          string
	addr, gateway netip.Addr
	key           wgtypes.Key
	tun           *rawTUN
	port          uint16 // the latest source port or echo identifier
	marks         int
}

// The process on ws, which is this test program again.
const (
	childEnv = "CULVERT_E2E_CHILD"
	forward  = "forward"
	sniff    = "sniff"
)

func init() {
	var err error
	switch os.Getenv(childEnv) {
	case "":
		return
	case forward:
		err = forwardStdio(os.Args[1], os.Args[2])
	case sniff:
		err = sniffTo(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// forwardStdio joins standard input and output with the carrier port of a pod.
func forwardStdio(kubeconfig, pod string) error {
	const port = 7831
	client, err := kube.Load(kube.Options{Kubeconfig: kubeconfig})
	if err != nil {
		return err
	}
	stream, err := client.DialPod(context.Background(), pod, port)
	if err != nil {
		return err
	}
	go io.Copy(stream, os.Stdin) //nolint:errcheck // the process ends with the other direction
	_, err = io.Copy(os.Stdout, stream)
	return err
}

// childStream is the standard input and output of a process.
type childStream struct {
	io.Reader
	io.Writer
	cmd *exec.Cmd
}

func (s *childStream) Close() error {
	s.cmd.Process.Kill() //nolint:errcheck // it may have ended
	s.cmd.Wait()         //nolint:errcheck // killed
	return nil
}

// dialAs opens a port-forward to the gateway with a user's credentials.
func (l *lab) dialAs(kubeconfig, pod string) (io.ReadWriteCloser, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argv := l.HostCommand("ws", []string{childEnv + "=" + forward}, self, kubeconfig, pod)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &childStream{out, in, cmd}, cmd.Start()
}

// create makes a Peer as a user; it ends with the test.
func (a *attackers) create(t *testing.T, user, name, key, address string, twins ...v1alpha1.Twin) labctl.Result {
	t.Helper()
	peer := map[string]any{
		"apiVersion": v1alpha1.Group + "/" + v1alpha1.Version, "kind": v1alpha1.PeerKind,
		"metadata": map[string]any{"name": name, "namespace": "culvert"},
		"spec":     v1alpha1.PeerSpec{User: user, PublicKey: key, Addresses: []string{address + "/32"}, Twins: twins},
	}
	data, err := json.Marshal(peer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Kubectl("-n", "culvert", "delete", "peer", name, "--ignore-not-found") })
	return a.KubectlInput(string(data), "--kubeconfig", a.configs[user], "create", "-f", "-")
}

// connectRaw connects a client of a user with an overlay address and twins.
func (a *attackers) connectRaw(t *testing.T, user, address string, twins ...v1alpha1.Twin) *rawPeer {
	t.Helper()
	p := &rawPeer{name: user + "-" + strings.ReplaceAll(address, ".", "-"), addr: addr(address), gateway: addr(address).Next(),
		key: newRawKey(t), tun: newRawTUN(), port: 20000}
	must(t, a.create(t, user, p.name, p.key.PublicKey().String(), address, twins...), "create Peer "+p.name)
	p.carry(t, a, user, a.served(t, p.name))
	return p
}

// served waits until a Peer is served, and returns by whom.
func (a *attackers) served(t *testing.T, name string) (gateway v1alpha1.PeerGateway) {
	t.Helper()
	eventually(t, 10*time.Second, "gateway of Peer "+name, func() error {
		r := a.Kubectl("-n", "culvert", "get", "peer", name, "-o", "json")
		var p v1alpha1.Peer
		if err := json.Unmarshal([]byte(r.Out), &p); err != nil || p.Status.Gateway == nil {
			return fmt.Errorf("%s", r)
		}
		gateway = *p.Status.Gateway
		return nil
	})
	return gateway
}

// carry runs WireGuard and its carrier until the test ends, and waits for the first handshake.
func (p *rawPeer) carry(t *testing.T, a *attackers, user string, gateway v1alpha1.PeerGateway) {
	t.Helper()
	key, err := wgtypes.ParseKey(gateway.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	bind, endpoint := carrier.NewBind(), netip.MustParseAddrPort("192.0.2.1:51820")
	device, err := wgdev.New(p.tun, bind, nil)
	if err != nil {
		t.Fatal(err)
	}
	keepalive := 25 * time.Second
	everything := []net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	if err := device.Configure(wgtypes.Config{PrivateKey: &p.key, Peers: []wgtypes.PeerConfig{{PublicKey: key, AllowedIPs: everything,
		Endpoint: net.UDPAddrFromAddrPort(endpoint), PersistentKeepaliveInterval: &keepalive}}}); err != nil {
		t.Fatal(err)
	}
	keeper := &carrier.Keeper{Bind: bind, Endpoint: endpoint, Hello: carrier.Hello{MTU: rawMTU}, OnSwitch: func() { device.Nudge(key) },
		Dial: func(context.Context) (io.ReadWriteCloser, error) { return a.dialAs(a.configs[user], gateway.Pod) }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- keeper.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("carrier of %s: %v", p.name, err)
		}
		device.Close()
	})
	eventually(t, 20*time.Second, "handshake of "+p.name, func() error {
		status, err := device.Status()
		if err != nil || status.Peers[0].LastHandshakeTime.IsZero() {
			return fmt.Errorf("none yet, %v", err)
		}
		return nil
	})
}

// rawMTU is what tunnels of the node have too.
const rawMTU = 1280

// rawTUN gives WireGuard the packets of a test and keeps those for it.
type rawTUN struct {
	out    chan []byte
	events chan tun.Event
	closed chan struct{}
	once   sync.Once

	mu  sync.Mutex
	got [][]byte // and not taken yet
}

func newRawTUN() *rawTUN {
	return &rawTUN{out: make(chan []byte), events: make(chan tun.Event), closed: make(chan struct{})}
}

func (r *rawTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case b := <-r.out:
		sizes[0] = copy(bufs[0][offset:], b)
		return 1, nil
	case <-r.closed:
		return 0, os.ErrClosed
	}
}

func (r *rawTUN) Write(bufs [][]byte, offset int) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range bufs {
		r.got = append(r.got, slices.Clone(b[offset:]))
	}
	return len(bufs), nil
}

// take removes the first packet that is wanted, nil if there is none yet.
func (r *rawTUN) take(wanted func([]byte) bool) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.got, wanted)
	if i < 0 {
		return nil
	}
	b := r.got[i]
	r.got = slices.Delete(r.got, i, i+1)
	return b
}

func (r *rawTUN) File() *os.File           { return nil }
func (r *rawTUN) MTU() (int, error)        { return rawMTU, nil }
func (r *rawTUN) Name() (string, error)    { return "raw", nil }
func (r *rawTUN) Events() <-chan tun.Event { return r.events }
func (r *rawTUN) BatchSize() int           { return conn.IdealBatchSize }
func (r *rawTUN) Close() error {
	r.once.Do(func() { close(r.closed); close(r.events) })
	return nil
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// mark makes a text that the sniffer finds in packets.
func mark(text string) string { return "<attack " + text + ">" }

// next returns a source of its own for each packet, so that answers can be told apart.
func (p *rawPeer) next() netip.AddrPort {
	p.port++
	return netip.AddrPortFrom(p.addr, p.port)
}

func (p *rawPeer) udp(dst string, port uint16, payload string) []byte {
	return packet.AppendUDP(nil, p.next(), netip.AddrPortFrom(addr(dst), port), []byte(payload))
}

func (p *rawPeer) syn(dst string, port uint16) []byte {
	return tcpPacket(p.next(), netip.AddrPortFrom(addr(dst), port), packet.FlagSYN, 1000)
}

func (p *rawPeer) ping(dst, payload string) []byte {
	return echoPacket(p.next(), addr(dst), payload)
}

// push sends a packet.
func (p *rawPeer) push(b []byte) { p.tun.out <- b }

// send sends a packet and returns what answers it, if anything does before [reply] is over.
func (p *rawPeer) send(t *testing.T, b []byte) answer {
	t.Helper()
	p.push(b)
	a := answer{sent: b}
	for begin := time.Now(); a.got == nil && time.Since(begin) < reply; time.Sleep(time.Millisecond) {
		a.got = p.tun.take(func(got []byte) bool { return answers(got, b) })
	}
	return a
}

// nothing fails the test if packets came that answer nothing.
func (p *rawPeer) nothing(t *testing.T, what string) {
	t.Helper()
	for {
		b := p.tun.take(func(b []byte) bool { return len(b) > 0 })
		if b == nil {
			return
		}
		t.Errorf("%s got %s: %s", p.name, what, answer{got: b})
	}
}

// reaches asks who is behind a virtual address, by UDP.
func (p *rawPeer) reaches(t *testing.T, dst, real string) {
	t.Helper()
	got := p.send(t, p.udp(dst, 7002, "where?"))
	if who := strings.TrimSpace(string(got.payload())); who != real {
		t.Errorf("%s: behind %s is %q, want %s: %s", p.name, dst, who, real, got)
	}
}

// handshakes opens a TCP connection and resets it.
func (p *rawPeer) handshakes(t *testing.T, dst string, port uint16) {
	t.Helper()
	syn := p.syn(dst, port)
	got := p.send(t, syn)
	if _, tcp := got.tcp(); tcp.Flags != packet.FlagSYN|packet.FlagACK {
		t.Errorf("%s: TCP to %s:%d: %s", p.name, dst, port, got)
		return
	}
	h, _ := packet.Parse(syn)
	src := binary.BigEndian.Uint16(syn[h.PayloadOffset:])
	p.push(tcpPacket(netip.AddrPortFrom(p.addr, src), netip.AddrPortFrom(addr(dst), port), packet.FlagRST, 1001))
}

func (p *rawPeer) pings(t *testing.T, dst string) {
	t.Helper()
	got := p.send(t, p.ping(dst, "anyone?"))
	h, _ := packet.Parse(got.got)
	if got.got == nil || h.Proto != packet.ProtoICMP || h.Src != addr(dst) || got.got[h.PayloadOffset] != 0 {
		t.Errorf("%s: ping %s: %s", p.name, dst, got)
	}
}

// answers reports whether got answers sent: from its destination to its source port, or an ICMP error about it.
func answers(got, sent []byte) bool {
	g, err := packet.Parse(got)
	s, _ := packet.Parse(sent)
	if err != nil || g.Dst != s.Src {
		return false
	}
	from, asked := got[g.PayloadOffset:], sent[s.PayloadOffset:]
	if icmpError(got) {
		return string(from[8+12:8+24]) == string(sent[12:24]) // addresses and what tells flows apart
	}
	if g.Src != s.Dst || g.Proto != s.Proto {
		return false
	}
	if g.Proto == packet.ProtoICMP {
		return string(from[4:8]) == string(asked[4:8])
	}
	return string(from[:2]) == string(asked[2:4]) && string(from[2:4]) == string(asked[:2])
}

// icmpError reports whether b is "unreachable" with a packet in it.
func icmpError(b []byte) bool {
	h, err := packet.Parse(b)
	return err == nil && h.Proto == packet.ProtoICMP && b[h.PayloadOffset] == 3 && len(b) >= h.PayloadOffset+8+28
}

// answer is what came back for a packet; got is nil for silence.
type answer struct{ sent, got []byte }

func (a answer) String() string {
	h, err := packet.Parse(a.got)
	if err != nil {
		return "no answer"
	}
	return fmt.Sprintf("protocol %d from %s to %s: %x", h.Proto, h.Src, h.Dst, a.got[h.PayloadOffset:])
}

// payload returns that of a UDP datagram.
func (a answer) payload() []byte {
	h, err := packet.Parse(a.got)
	if err != nil || h.Proto != packet.ProtoUDP {
		return nil
	}
	_, _, payload, _ := packet.ParseUDP(a.got[h.PayloadOffset:])
	return payload
}

func (a answer) tcp() (packet.Header, packet.TCPHeader) {
	h, err := packet.Parse(a.got)
	if err != nil || h.Proto != packet.ProtoTCP {
		return h, packet.TCPHeader{}
	}
	t, _ := packet.ParseTCP(a.got[h.PayloadOffset:])
	return h, t
}

// refused reports whether the gateway, as its Peer sees it, says that a packet to dst may not pass.
func (a answer) refused(dst string) bool { return a.code(dst) == 13 || a.unreachable(dst) }

// unreachable reports whether the gateway says that there is no host dst.
func (a answer) unreachable(dst string) bool { return a.code(dst) == 1 }

// code returns that of an ICMP "unreachable" about dst, -1 for anything else.
func (a answer) code(dst string) int {
	if !icmpError(a.got) {
		return -1
	}
	h, _ := packet.Parse(a.got)
	if h.Src != h.Dst.Next() || netip.AddrFrom4([4]byte(a.got[h.PayloadOffset+8+16:])) != addr(dst) {
		return -1
	}
	return int(a.got[h.PayloadOffset+1])
}

// reset reports whether a connection to dst was refused in its name.
func (a answer) reset(dst string, port uint16) bool {
	h, t := a.tcp()
	return h.Src == addr(dst) && t.SrcPort == port && t.Flags&packet.FlagRST != 0
}

// ipPacket makes an IPv4 packet.
func ipPacket(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	b := make([]byte, packet.IPv4HeaderLen, packet.IPv4HeaderLen+len(payload))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(cap(b)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

// tcpPacket makes a segment without data.
func tcpPacket(src, dst netip.AddrPort, flags uint8, seq uint32) []byte {
	t := make([]byte, packet.TCPHeaderLen)
	binary.BigEndian.PutUint16(t, src.Port())
	binary.BigEndian.PutUint16(t[2:], dst.Port())
	binary.BigEndian.PutUint32(t[4:], seq)
	t[12], t[13], t[14] = 5<<4, flags, 0xff
	pseudo := slices.Concat(src.Addr().AsSlice(), dst.Addr().AsSlice(), []byte{0, packet.ProtoTCP, 0, packet.TCPHeaderLen}, t)
	binary.BigEndian.PutUint16(t[16:], checksum(pseudo))
	return ipPacket(src.Addr(), dst.Addr(), packet.ProtoTCP, t)
}

// echoPacket makes an echo request whose identifier is the port of src.
func echoPacket(src netip.AddrPort, dst netip.Addr, payload string) []byte {
	m := packet.AppendEchoRequest(nil, true, packet.EchoMessage{ID: src.Port(), Seq: 1, Data: []byte(payload)})
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return ipPacket(src.Addr(), dst, packet.ProtoICMP, m)
}

// checksum is that of the internet (RFC 1071).
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
