//go:build lab

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/internal/packet"
)

// sniffer sees the packets that leave the gateway's pod, over its loopback too: those of Peers as they are
// after decryption. It notes texts made by mark, and SYNs.
type sniffer struct {
	mu    sync.Mutex
	lines []string
}

// sniffGateway looks at the gateway's packets until the test ends.
func (l *lab) sniffGateway(t *testing.T) *sniffer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "--net="+filepath.Join("/proc", l.gatewayPID(t), "ns/net"), self)
	cmd.Env = append(os.Environ(), childEnv+"="+sniff)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s, done := &sniffer{}, make(chan struct{})
	go func() { defer close(done); s.read(out) }()
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-done
		cmd.Wait() //nolint:errcheck // killed
	})
	s.wait(t, "ready")
	return s
}

// gatewayPID returns the process of this lab's gateway.
func (l *lab) gatewayPID(t *testing.T) string {
	t.Helper()
	r := l.Kubectl("-n", "culvert", "get", "pod", "culvert-gateway-0", "-o", "jsonpath={.metadata.uid}")
	must(t, r, "the gateway's pod")
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		groups, _ := os.ReadFile(file) // processes end meanwhile
		name, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "comm"))
		if bytes.Contains(groups, []byte("pod"+strings.TrimSpace(r.Out))) && strings.HasPrefix(string(name), "culvert-gateway") {
			return filepath.Base(filepath.Dir(file))
		}
	}
	t.Fatal("no process of the gateway")
	return ""
}

func (s *sniffer) read(out io.Reader) {
	for scan := bufio.NewScanner(out); scan.Scan(); {
		s.mu.Lock()
		s.lines = append(s.lines, scan.Text())
		s.mu.Unlock()
	}
}

// count returns how many lines there are.
func (s *sniffer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

// seen returns the lines from the one numbered from on with one of the texts in them.
func (s *sniffer) seen(from int, texts ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.lines[from:]), func(line string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(line, text) })
	})
}

func (s *sniffer) wait(t *testing.T, text string) {
	t.Helper()
	eventually(t, 5*time.Second, "a packet with "+text, func() error {
		if len(s.seen(0, text)) == 0 {
			return fmt.Errorf("not seen")
		}
		return nil
	})
}

// sniffTo writes what a sniffer notes, in the network namespace of this process, until it is killed.
func sniffTo(w io.Writer) error {
	all := uint16(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all<<8|all>>8)) // network byte order
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	fmt.Fprintln(w, "ready")
	for b := make([]byte, 1<<16); ; {
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		if link, ok := from.(*unix.SockaddrLinklayer); !ok || link.Pkttype != unix.PACKET_OUTGOING {
			continue
		}
		if h, err := packet.Parse(b[:n]); err == nil {
			note(w, h, b[h.PayloadOffset:h.Len])
		}
	}
}

// note writes a line about a packet that matters.
func note(w io.Writer, h packet.Header, payload []byte) {
	if t, ok := packet.ParseTCP(payload); ok && h.Proto == packet.ProtoTCP && !h.IsFragment() {
		if t.Flags&(packet.FlagSYN|packet.FlagACK) == packet.FlagSYN {
			fmt.Fprintln(w, "SYN", netip.AddrPortFrom(h.Dst, t.DstPort))
		}
		return
	}
	_, text, _ := bytes.Cut(payload, []byte("<attack "))
	if text, _, ok := bytes.Cut(text, []byte(">")); ok {
		fmt.Fprintf(w, "%s to %s\n", mark(string(text)), h.Dst)
	}
}
