//go:build netns

package vnat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/wgdev"
	"github.com/culvert-dev/culvert/node/hostnet"
)

// inNamespace runs the calling test again in a process with a network namespace of its own and reports whether
// this is that process.
//
//	this namespace: programs ── our table, rules and one-way filter ── culvert0 ── Device ── WireGuard
//	                                                                                           ║
//	another: servers at the wire addresses ──────────────────────────────── culvert0 ───── WireGuard
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("CULVERT_TEST_NAMESPACE") == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "CULVERT_TEST_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in its network namespace (root is needed): %v", err)
	}
	return false
}

// run runs a shell script.
func run(script string) error {
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s\n%s", err, script, out)
	}
	return nil
}

// elsewhere runs what it is given in another network namespace, one after another. Its thread is never used again.
type elsewhere struct{ work chan func() }

func newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	e, entered, left := &elsewhere{make(chan func())}, make(chan error), make(chan struct{})
	go func() { // ends with the test, which waits
		defer close(left)
		runtime.LockOSThread()
		entered <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range e.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		t.Fatalf("enter another network namespace: %v", err)
	}
	t.Cleanup(func() { close(e.work); <-left })
	return e
}

// do fails the test if f fails.
func (e *elsewhere) do(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	e.work <- func() { done <- f() }
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// newTUN makes the interface culvert0 in the namespace of the calling thread.
func newTUN() (dev tun.Device, set func(hostnet.State) error, done func(), err error) {
	host, done, err := hostnet.New()
	if err != nil {
		return nil, nil, nil, err
	}
	scope := hostnet.Scope{Interface: "culvert0", Name: "default"}
	file, index, err := host.CreateTUN(scope)
	if err != nil {
		return nil, nil, done, err
	}
	defer file.Close()
	scope.Index = index
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		return nil, nil, done, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, nil, done, err
	}
	dev, _, err = tun.CreateUnmonitoredTUNFromFD(fd)
	set = func(s hostnet.State) error { _, err := hostnet.Set(context.Background(), host, scope, s); return err }
	return dev, set, done, err
}

// wireGuard runs a device that takes everything from its one peer.
func wireGuard(t *testing.T, dev tun.Device, bind conn.Bind, private wgtypes.Key, peer wgtypes.Key, port int, allowed ...string) {
	t.Helper()
	d, err := wgdev.New(dev, bind, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	p := wgtypes.PeerConfig{PublicKey: peer, Endpoint: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
	for _, a := range allowed {
		_, ipNet, err := net.ParseCIDR(a)
		if err != nil {
			t.Fatal(err)
		}
		p.AllowedIPs = append(p.AllowedIPs, *ipNet)
	}
	if err := d.Configure(wgtypes.Config{PrivateKey: &private, Peers: []wgtypes.PeerConfig{p}}); err != nil {
		t.Fatal(err)
	}
}

// The far end has the wire addresses, and no idea of real ones or VIPs.
const farEnd = `
ip link set lo up
ip link set culvert0 up mtu 1400
ip addr add 241.130.4.7/32 dev lo; ip addr add 242.0.0.1/32 dev lo
ip -6 addr add fd11:1:2:130::4:7/128 dev lo
ip route add 245.1.2.10/32 dev culvert0
ip -6 route add fd00:c0de::10/128 dev culvert0`

// connect brings up a tunnel with the table of the tests, and servers behind it.
func connect(t *testing.T) (*Device, *elsewhere) {
	t.Helper()
	if err := run("ip link set lo up"); err != nil {
		t.Fatal(err)
	}
	near, set, done, err := newTUN()
	if done != nil {
		t.Cleanup(done)
	}
	if err != nil {
		t.Fatal(err)
	}
	far := newElsewhere(t)
	var farTUN tun.Device
	far.do(t, func() error {
		dev, _, done, err := newTUN()
		if done != nil {
			t.Cleanup(done)
		}
		farTUN = dev
		if err != nil {
			return err
		}
		return run(farEnd)
	})
	d := New(near)
	if err := d.Set(testTable()); err != nil {
		t.Fatal(err)
	}
	keys, binds := [2]wgtypes.Key{}, bindtest.NewChannelBinds()
	for i := range keys {
		if keys[i], err = wgtypes.GeneratePrivateKey(); err != nil {
			t.Fatal(err)
		}
	}
	wireGuard(t, d, binds[0], keys[0], keys[1].PublicKey(), 1, "240.0.0.0/4", "fd11:1:2:130::/96")
	wireGuard(t, farTUN, binds[1], keys[1], keys[0].PublicKey(), 2, "245.1.2.10/32", "fd00:c0de::10/128")
	state := hostnet.State{Interface: "culvert0", MTU: 1400, Priority: hostnet.Priority{V4: 5000, V6: 5000},
		Addresses: []netip.Prefix{netip.PrefixFrom(self4, 32), netip.PrefixFrom(self6, 128)}}
	for _, p := range append(testTable().Pools, netip.MustParsePrefix("241.0.0.0/8")) { // the latter as nothing should
		state.Routes = append(state.Routes, hostnet.Route{Prefix: p})
	}
	if err := set(state); err != nil {
		t.Fatal(err)
	}
	return d, far
}

// serve echoes TCP and UDP at port 7 of the wire addresses until the test ends.
func serve(t *testing.T, far *elsewhere) {
	t.Helper()
	for _, a := range []netip.Addr{wire4, wireNested, wire6} {
		at := netip.AddrPortFrom(a, 7)
		far.do(t, func() error {
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err != nil {
				return errors.Join(err, l.Close())
			}
			ended := make(chan struct{}, 2)
			go func() { echoStreams(l); ended <- struct{}{} }()
			go func() { echoDatagrams(pc); ended <- struct{}{} }()
			t.Cleanup(func() { l.Close(); pc.Close(); <-ended; <-ended })
			return nil
		})
	}
}

func echoStreams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		c.Close()
	}
}

func echoDatagrams(pc net.PacketConn) {
	for b := make([]byte, 1<<16); ; {
		n, from, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = pc.WriteTo(b[:n], from)
	}
}

// dial opens a connection that ends with the test and does not wait long.
func dial(t *testing.T, network string, a netip.Addr, port uint16) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, netip.AddrPortFrom(a, port).String(), 10*time.Second)
	if err != nil {
		t.Fatalf("%s to %s: %v", network, a, err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ping returns what ping says about a.
func ping(a netip.Addr, args ...string) (string, error) {
	out, err := exec.Command("ping", append(args, "-n", "-c", "1", "-W", "5", a.String())...).CombinedOutput()
	return string(out), err
}

// Programs reach the cluster by VIP, whatever they speak, and kernels on both sides find every checksum right.
func TestNamespaceByVIP(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	d, far := connect(t)
	serve(t, far)
	body := bytes.Repeat([]byte("by virtual address "), 1<<18) // joined and cut by the offloads of both TUN devices
	for _, vip := range []netip.Addr{vip4, vipNested, vip6} {
		c := dial(t, "tcp", vip, 7)
		sent := make(chan error, 1)
		go func() { _, err := c.Write(body); sent <- err }()
		got := make([]byte, len(body))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, body) {
			t.Errorf("TCP to %s: %v", vip, err)
		}
		if err := <-sent; err != nil {
			t.Errorf("TCP to %s: %v", vip, err)
		}
		for _, size := range []int{0, 1, 1200, 9001, 60000} {
			u := dial(t, "udp", vip, 7)
			_, _ = u.Write(body[:size])
			if n, err := u.Read(got); err != nil || !bytes.Equal(got[:n], body[:size]) {
				t.Errorf("datagram of %d bytes to %s: %d bytes, %v", size, vip, n, err)
			}
		}
		for _, args := range [][]string{nil, {"-s", "5000"}} {
			if out, err := ping(vip, args...); err != nil || !strings.Contains(out, "from "+vip.String()+":") {
				t.Errorf("ping %s: %v\n%s", vip, err, out)
			}
		}
	}
	if s := d.Stats(); s != (Stats{}) {
		t.Errorf("%+v", s)
	}
}

// A closed port is told to the program that asked for it, and to the server whose client has gone.
func TestNamespaceErrors(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	_, far := connect(t)
	for _, row := range []struct{ vip, wire, self netip.Addr }{{vip4, wire4, self4}, {vip6, wire6, self6}} {
		c := dial(t, "udp", row.vip, 9)
		_, _ = c.Write([]byte("anyone?"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("closed port of %s: %v", row.vip, err)
		}
		if _, err := net.DialTimeout("tcp", netip.AddrPortFrom(row.vip, 9).String(), 10*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("closed port of %s by TCP: %v", row.vip, err)
		}
		client := dial(t, "udp", row.vip, 10)
		port := client.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		var server *net.UDPConn
		far.do(t, func() (err error) {
			server, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(row.wire, 10)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(row.self, port)))
			return err
		})
		t.Cleanup(func() { server.Close() })
		_ = server.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = client.Write([]byte("a question"))
		if n, err := server.Read(make([]byte, 100)); n != 10 || err != nil {
			t.Fatalf("%s: %d bytes, %v", row.wire, n, err)
		}
		client.Close()
		_, _ = server.Write([]byte("a late answer"))
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s is not told that its client has gone: %v", row.wire, err)
		}
	}
}

// Where there is nobody, programs are told at once, through our own one-way filter.
func TestNamespaceUnreachableAtOnce(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	d, far := connect(t)
	serve(t, far)
	dead := []netip.Addr{gone4, gone6, astray4, wire4}
	for _, a := range dead {
		_, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 7).String(), 10*time.Second)
		if !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("TCP to %s: %v", a, err)
		}
		out, err := ping(a)
		if err == nil || !strings.Contains(out, "nreachable") || !strings.Contains(strings.ToLower(out), "from "+a.String()) {
			t.Errorf("ping %s: %v\n%s", a, err, out)
		}
	}
	if s := d.Stats(); s.Refused < uint64(2*len(dead)) || s.Stale != 0 {
		t.Errorf("%+v", s)
	}
}
