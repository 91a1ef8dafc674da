//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// lab is the laboratory that the scenarios share.
type lab struct {
	labctl.Lab
	echoIP6, echoPod6 string // of service echo and one of its pods; "" in a lab of IPv4 alone
}

var shared *lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if ask := os.Getenv(askVariable); ask != "" {
		return answerHere(ask)
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "FAIL: the lab's scenarios need root")
		return 1
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l := &lab{Lab: labctl.Lab{Name: os.Getenv("CULVERT_E2E_LAB"), Bin: bin}}
	if l.Name == "" {
		l.Name = "e2e"
		defer l.Run(2*time.Minute, "down")
		if r := l.Run(30*time.Minute, "up", "--vpn", "openvpn"); r.Code != 0 {
			fmt.Fprintln(os.Stderr, "lab up:", r)
			return 1
		}
	}
	if err := l.Prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("topology: ws (culvert, OpenVPN 10.0.0.0/8) ── router ── vpn ── corp, node1 (API server, gateway, echo); lab", l.Name)
	shared = l
	return m.Run()
}

// snapshot is the workstation's network as the lab describes it.
func (l *lab) snapshot(t *testing.T) string {
	t.Helper()
	r := l.Run(time.Minute, "snapshot", "ws")
	if r.Code != 0 || len(r.Out) < 100 {
		t.Fatalf("lab snapshot ws: %s", r)
	}
	return r.Out
}

// unchanged fails the test when the workstation differs from before, with the differing lines.
func (l *lab) unchanged(t *testing.T, before string) {
	t.Helper()
	if diff := lineDiff(before, l.snapshot(t)); diff != "" {
		t.Errorf("the workstation is not as it was:\n%s", diff)
	}
}

// lineDiff returns the lines that only one of two texts has.
func lineDiff(before, after string) string {
	counts := map[string]int{}
	for line := range strings.Lines(before) {
		counts[line]++
	}
	var diff strings.Builder
	for line := range strings.Lines(after) {
		if counts[line]--; counts[line] < 0 {
			diff.WriteString("+ " + line)
		}
	}
	for line := range strings.Lines(before) {
		if counts[line]--; counts[line] >= 0 {
			diff.WriteString("- " + line)
		}
	}
	return diff.String()
}

// status is the part of `culvert status -o json` that scenarios look at.
type status struct {
	State     string
	Reason    string
	Processes struct{ Node, Helper, Guard int }
	Peer      struct {
		Name      string
		Addresses []string
	}
	Gateway struct{ Pod, PublicKey string }
	Carrier struct {
		Connected bool
		Redials   int
	}
	WireGuard struct{ LastHandshake time.Time }
	Warnings  []string
}

func (l *lab) status(t *testing.T) status {
	t.Helper()
	r := l.WS(10*time.Second, "culvert", "status", "-o", "json")
	var s status
	if err := json.Unmarshal([]byte(r.Out), &s); err != nil {
		t.Fatalf("culvert status -o json: %v\n%s", err, r)
	}
	return s
}

// connectLimit bounds a connect or quit.
const connectLimit = time.Minute

// allowFlags let the cluster have what the VPN of the lab routes.
var allowFlags = []string{"--allow-conflicting-subnets", "10.128.0.0/9"}

// connect connects the workstation and arranges for the end and the comparison with before.
func (l *lab) connect(t *testing.T, args ...string) {
	t.Helper()
	before := l.snapshot(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("culvert logs:\n", l.WS(10*time.Second, "culvert", "logs").Out)
		}
		if r := l.WS(30*time.Second, "culvert", "quit"); r.Code != 0 {
			t.Errorf("culvert quit: %s", r)
		}
		l.unchanged(t, before)
	})
	r := l.WS(time.Minute, append([]string{"culvert", "connect"}, args...)...)
	if r.Code != 0 {
		t.Fatalf("culvert connect %v: %s", args, r)
	}
	t.Logf("connected in %s", r.Took.Round(time.Millisecond))
}

// eventually tries until check returns nil, and fails with its last error after limit. It returns how
// long it took.
func eventually(t *testing.T, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
