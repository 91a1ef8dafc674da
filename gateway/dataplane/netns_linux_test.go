//go:build netns

package dataplane

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/packet"
)

// inNamespace runs the calling test again in a process with a network namespace of its own, set up by
// the given ip(8) commands and sysctls (path=value), and reports whether this is that process.
//
//	workstation (packets by hand) ── plane ── lo 127.0.0.1, 10.130.0.1
//	                                          v0 10.131.0.1/24 ═ v1 (nobody answers)
//	                                          unreachable and prohibited routes
func inNamespace(t *testing.T, sysctls ...string) bool {
	t.Helper()
	if os.Getenv("CULVERT_TEST_NAMESPACE") == t.Name() {
		for _, line := range []string{
			"link set lo up",
			"addr add 10.130.0.1/32 dev lo",
			"addr add fd00:130::1/128 dev lo",
			"link add v0 type veth peer name v1",
			"addr add 10.131.0.1/24 dev v0",
			"-6 addr add fd00:131::1/64 dev v0 nodad",
			"link set v0 up", "link set v1 up",
			"route add unreachable 10.132.0.0/16",
			"route add prohibit 10.133.0.0/16",
			"-6 route add unreachable fd00:132::/64",
			"-6 route add prohibit fd00:133::/64",
		} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v: %s", line, err, out)
			}
		}
		for _, s := range sysctls {
			path, value, _ := strings.Cut(s, "=")
			if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
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

const pingsAllowed = "ipv4/ping_group_range=0 2147483647"

// newNamespacePlane returns a plane that permits everything, with a Peer that has twins for 10.0.0.0/8 and
// fd00::/16.
func newNamespacePlane(t *testing.T) *Plane {
	p := newPlane(t, Config{Permit: func(netip.Addr, Proto, netip.AddrPort) Verdict { return Allow }})
	p.SetPeers([]PeerAddrs{withTwins(testPeer(), twin("10.0.0.0/8", "246.0.0.0/8"), twin("fd00::/16", "fd7a::/16")), otherPeer()})
	return p
}

func TestNamespaceTwinEcho(t *testing.T) {
	if !inNamespace(t, pingsAllowed) {
		return
	}
	if !pingAllowed(t) {
		t.Fatal("ping sockets are not permitted although the sysctl is set")
	}
	TestTwinEcho(t)
}

// The way behind the gateway takes smaller packets than the tunnel: TCP, and datagrams of any size, go
// through by the twin all the same.
func TestNamespaceTwinOverSmallMTU(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "mtu", "1280").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	TestTwinBesideNative(t)
	TestTwinDatagramSizes(t)
}

func TestNamespaceEcho(t *testing.T) {
	if !inNamespace(t, pingsAllowed) {
		return
	}
	if !pingAllowed(t) {
		t.Fatal("ping sockets are not permitted although the sysctl is set")
	}
	TestEcho(t)
	p := newPlane(t, Config{})
	r := rawJoin(t, p)
	for _, dead := range []string{"10.131.0.77", "10.132.0.1"} {
		r.send(echoPacket(node4, netip.MustParseAddr(dead), 1, 1, []byte("anyone?")))
	}
	r.send(echoPacket(node6, netip.MustParseAddr("fd00:131::77"), 1, 1, []byte("anyone?")))
	time.Sleep(300 * time.Millisecond)
	for _, got := range r.received() {
		h, err := packet.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := packet.ParseEchoReply(got[h.PayloadOffset:], h.Is4()); ok {
			t.Errorf("a dead address answered: %v", h.Src)
		}
	}
}

func TestNamespaceUnreachableIsTold(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	r := rawJoin(t, newNamespacePlane(t))
	for _, row := range []struct {
		name, dst  string
		kind, code byte
	}{
		{"no host there", "10.131.0.77", 3, 1},
		{"unreachable route", "10.132.0.1", 3, 1},
		{"prohibited route", "10.133.0.1", 3, 13},
		{"no route", "10.200.0.1", 3, 0},
		{"no host there v6", "fd00:131::77", 1, 3},
		{"unreachable route v6", "fd00:132::1", 1, 3},
		{"prohibited route v6", "fd00:133::1", 1, 1},
		{"no route v6", "fd00:200::1", 1, 0},
		{"no host there, by its twin", "246.131.0.77", 3, 1},
		{"unreachable route, by its twin", "246.132.0.1", 3, 1},
		{"prohibited route, by its twin", "246.133.0.1", 3, 13},
		{"no route, by its twin", "246.200.0.1", 3, 0},
		{"no host there v6, by its twin", "fd7a:131::77", 1, 3},
		{"prohibited route v6, by its twin", "fd7a:133::1", 1, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			dst, src, from := netip.MustParseAddr(row.dst), node6, gateway6
			if dst.Is4() {
				src, from = node4, gateway4
			}
			sent := synPacket(netip.AddrPortFrom(src, 4000), netip.AddrPortFrom(dst, 80))
			r.send(sent)
			h, payload := r.answer()
			if payload[0] != row.kind || payload[1] != row.code || h.Src != from || !bytes.Equal(payload[8:], sent) {
				t.Errorf("answered by type %d code %d from %v, want %d %d", payload[0], payload[1], h.Src, row.kind, row.code)
			}
		})
	}
}

func TestNamespaceOwnAddressesAreReserved(t *testing.T) {
	if !inNamespace(t, pingsAllowed) {
		return
	}
	r := rawJoin(t, newNamespacePlane(t))
	for _, own := range []string{"10.130.0.1", "10.131.0.1", "fd00:130::1", "fd00:131::1", "246.130.0.1", "246.131.0.1", "fd7a:130::1", "fd7a:131::1"} {
		dst, src := netip.MustParseAddr(own), node6
		if dst.Is4() {
			src = node4
		}
		r.send(synPacket(netip.AddrPortFrom(src, 4000), netip.AddrPortFrom(dst, 7832)))
		if strings.HasPrefix(own, "fd00:") { // told like a twin that does not exist
			wantNowhere(t, r)
			r.send(echoPacket(src, dst, 1, 1, nil))
			wantNowhere(t, r)
			continue
		}
		_, payload := r.answer()
		if tcp, ok := packet.ParseTCP(payload); !ok || tcp.Flags&packet.FlagRST == 0 {
			t.Errorf("SYN to %s answered by % x, want RST", own, payload)
		}
		r.send(echoPacket(src, dst, 1, 1, nil))
		wantProhibited(t, r, false)
	}
}

// With 20 source ports and every connection closed first by the client, the kernel has all of them in
// TIME_WAIT after 20 connections.
func TestNamespaceSourcePortsNeverRunOut(t *testing.T) {
	if !inNamespace(t, "ipv4/ip_local_port_range=40000 40019") {
		return
	}
	w := join(t, newPlane(t, Config{}))
	to := serve(t, netip.MustParseAddr("10.130.0.1"), echoTCP)
	for i := range 300 {
		c, err := w.dial(to)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		text := fmt.Sprint(i)
		io.WriteString(c, text)
		if _, err := io.ReadFull(c, make([]byte, len(text))); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		c.Close()
	}
}
