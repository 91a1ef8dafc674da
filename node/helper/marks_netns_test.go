//go:build netns

package helper

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// Marks of real VPNs.
var (
	wgQuickMark   = hostnet.Mark{Value: 0xca6c, Mask: 0xffffffff}
	tailscaleMark = hostnet.Mark{Value: 0x80000, Mask: 0xff0000}
	netbirdMark   = hostnet.Mark{Value: 0x1bd00, Mask: 0xffffffff}
)

// randomMarks returns none to three of them.
func randomMarks(rng *rand.Rand) []hostnet.Mark {
	all := []hostnet.Mark{wgQuickMark, tailscaleMark, netbirdMark}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:rng.IntN(len(all)+1)]
}

// TestKernelLeavesMarkedPacketsAlone sends packets with and without marks and looks which of them
// come out of the TUN, while the marks to be left alone change under it.
func TestKernelLeavesMarkedPacketsAlone(t *testing.T) {
	before := snapshot(t)
	host, closeHost, err := hostnet.New()
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost()
	scope := hostnet.Scope{Interface: "culvert6", Name: "marks"}
	tun, _, err := host.CreateTUN(scope)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	_, state := testState("1")
	state.Interface = scope.Interface
	for _, row := range []struct {
		name string
		skip []hostnet.Mark
		into []uint32 // marks of packets that enter the tunnel
		past []uint32 // of those that do not
	}{
		{"none", nil, []uint32{1, 0xca6c, 0x80000}, nil},
		{"one", []hostnet.Mark{wgQuickMark}, []uint32{1, 0xca6d, 0x80000}, []uint32{0xca6c}},
		{"one under a mask", []hostnet.Mark{tailscaleMark}, []uint32{1, 0xca6c, 0x90000}, []uint32{0x80000, 0x80001, 0xff08ffff}},
		{"three", []hostnet.Mark{wgQuickMark, tailscaleMark, netbirdMark}, []uint32{1, 0xff}, []uint32{0xca6c, 0x80000, 0x80001, 0x1bd00}},
		{"two", []hostnet.Mark{wgQuickMark, tailscaleMark}, []uint32{1, 0xff}, []uint32{0xca6c, 0x80000}},
		{"another one", []hostnet.Mark{netbirdMark}, []uint32{1, 0xca6c}, []uint32{0x1bd00}},
		{"none again", nil, []uint32{1, 0xca6c, 0x1bd00}, nil},
	} {
		state.SkipMarks = hostnet.SkipMarks{V4: row.skip, V6: row.skip}
		if _, err := hostnet.Set(t.Context(), host, scope, state); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		if rules := sh(t, "ip rule show table 7836; ip -6 rule show table 7836"); strings.Count(rules, "\n") != 2 {
			t.Errorf("%s: want one rule per family:\n%s", row.name, rules)
		}
		for _, dst := range []string{"10.130.0.5", "fd10:130::5"} {
			for _, mark := range row.past {
				sendMarked(t, dst, mark)
			}
			for _, mark := range append(row.into, 0) { // the one without a mark comes last
				sendMarked(t, dst, mark)
			}
			want := append(row.into, 0)
			if got := marksOut(t, tun, dst, len(want)); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: of the packets to %s those marked %#x enter the tunnel, want %#x", row.name, dst, got, want)
			}
		}
	}
	settlesAfterFailure(t, host, scope, state)
	if _, err := hostnet.Remove(host, scope); err != nil {
		t.Fatal(err)
	}
	restoredWithin(t, before, time.Second)
}

// settlesAfterFailure starts from two rules at one priority, in the order in which the kernel deletes
// the wrong one.
func settlesAfterFailure(t *testing.T, host hostnet.Host, scope hostnet.Scope, state hostnet.State) {
	t.Helper()
	sh(t, "ip rule del priority 5000 table 7836 proto 202")
	sh(t, "ip rule add priority 5000 not fwmark 0xca6c lookup 7836 proto 202; ip rule add priority 5000 lookup 7836 proto 202")
	state.SkipMarks.V4 = []hostnet.Mark{wgQuickMark}
	for range 2 {
		if _, err := hostnet.Set(t.Context(), host, scope, state); err != nil {
			t.Fatal(err)
		}
	}
	if rules := sh(t, "ip rule show table 7836"); !strings.Contains(rules, "not from all fwmark 0xca6c") || strings.Count(rules, "\n") != 1 {
		t.Errorf("after two rounds the rules are\n%s", rules)
	}
}

// payload tells the packets of one mark apart.
func payload(mark uint32) string { return fmt.Sprintf("<mark %d>", mark) }

// sendMarked sends one datagram. That it has no route is one way of not entering the tunnel.
func sendMarked(t *testing.T, dst string, mark uint32) {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
		return errors.Join(err, controlErr)
	}}
	conn, err := dialer.DialContext(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(dst), 7).String())
	if errors.Is(err, unix.ENETUNREACH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(payload(mark))); err != nil && !errors.Is(err, unix.ENETUNREACH) {
		t.Fatal(err)
	}
}

// marksOut reads from the TUN up to the packet without a mark and returns the marks of those that
// came, in order. More than most end the test.
func marksOut(t *testing.T, tun *os.File, dst string, most int) (marks []uint32) {
	t.Helper()
	_ = tun.SetReadDeadline(time.Now().Add(3 * time.Second))
	packet := make([]byte, 2048)
	for len(marks) <= 2*most {
		n, err := tun.Read(packet)
		if err != nil {
			t.Fatalf("no packet without a mark to %s comes out of the TUN, only %#x: %v", dst, marks, err)
		}
		_, text, ours := strings.Cut(string(packet[:n]), "<mark ")
		if !ours {
			continue // the kernel's own
		}
		var mark uint32
		if _, err := fmt.Sscanf(text, "%d>", &mark); err != nil {
			t.Fatal(err)
		}
		if marks = append(marks, mark); mark == 0 {
			break
		}
	}
	return marks
}
