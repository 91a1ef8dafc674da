package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/internal/version"
)

func TestParseAgentOptions(t *testing.T) {
	for _, row := range []struct{ name, args, want string }{
		{"as a workstation starts it", "", "7841 7842 10m0s mtu 1420 dns [] /etc/resolv.conf pod uid-1 INFO"},
		{"everything", "--carrier-port 9841 --control-port=9842 --idle 1m --mtu 1280 --nameservers 10.96.0.10,[fd00::a]:5353 --resolv-conf /r --log-level debug",
			"9841 9842 1m0s mtu 1280 dns [10.96.0.10:53 [fd00::a]:5353] /r pod uid-1 DEBUG"},
		{"to stay", "--idle 0", "7841 7842 2562047h47m16.854775807s mtu 1420 dns [] /etc/resolv.conf pod uid-1 INFO"},
		{"one port for both", "--carrier-port 7842", "two different ports"},
		{"no port", "--control-port 0", "two different ports"},
		{"no such port", "--control-port 70000", "70000"},
		{"in a hurry", "--idle 10s", "accepted are 0 (never) and a minute or more"},
		{"before it came", "--idle -1h", "accepted are 0 (never) and a minute or more"},
		{"a small MTU", "--mtu 1000", "1280 to 9000"},
		{"a name for a nameserver", "--nameservers dns.example", "--nameservers"},
		{"a loud log", "--log-level loud", "debug, info, warn and error"},
		{"a gateway's flag", "--egress-allow 10.0.0.0/8", "egress-allow"},
		{"an argument", "serve", `unexpected argument "serve"`},
		{"two mistakes, both named", "--mtu 1 --idle 1s", "--idle 1s: accepted are 0 (never) and a minute or more\n--mtu 1"},
	} {
		o, err := parseAgentOptions(strings.Fields(row.args), environment("POD_UID=uid-1"))
		got := fmt.Sprint(o.CarrierPort, " ", o.ControlPort, " ", o.Idle, " mtu ", o.MTU, " dns ", o.Nameservers, " ", o.ResolvConf, " pod ", o.PodUID, " ", o.logLevel)
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != row.want || err != nil && !strings.Contains(got, row.want) {
			t.Errorf("%s: %s\nwant %s", row.name, got, row.want)
		}
	}
}

// The help names every flag, and its examples are accepted.
func TestAgentUsage(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"agent", "--help"}, environment(), &stdout, &stderr); code != exitDone || stderr.Len() > 0 {
		t.Fatalf("exit code %d, %s", code, &stderr)
	}
	text := stdout.String()
	new(agentOptions).flagSet().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(text, "--"+f.Name) {
			t.Errorf("the help says nothing of --%s", f.Name)
		}
	})
	examples := 0
	for line := range strings.Lines(text) {
		if args, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "  culvert-gateway agent"); ok && !strings.Contains(args, "[flags]") {
			examples++
			if _, err := parseAgentOptions(strings.Fields(args), environment()); err != nil {
				t.Errorf("example %s: %v", line, err)
			}
		}
	}
	if examples < 2 {
		t.Errorf("%d examples", examples)
	}
}

func TestAgentCommand(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	carrierPort, control := strings.TrimPrefix(freePort(t), "127.0.0.1:"), freePort(t)
	args := []string{"agent", "--carrier-port", carrierPort, "--control-port", strings.TrimPrefix(control, "127.0.0.1:"), "--resolv-conf", filepath.Join(t.TempDir(), "none")}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	code := make(chan int, 1)
	var stdout, stderr bytes.Buffer
	go func() { code <- run(ctx, args, environment("POD_UID=uid-1"), &stdout, &stderr) }()
	var conn net.Conn
	eventually(t, 20*time.Second, "it listens", func() (ok bool) {
		c, err := net.Dial("tcp", control)
		conn = c
		return err == nil
	})
	defer conn.Close()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	peer := enrol.Request{Connection: "ann", PublicKey: key.PublicKey()}
	if err := enrol.Bye(ctx, conn, peer); err != nil {
		t.Errorf("bye: %v", err)
	}

	// A second one leaves the field to the first and says why.
	var second bytes.Buffer
	if got := run(ctx, args, environment(), &second, &second); got != exitFailure || !strings.Contains(second.String(), "another agent serves this pod") {
		t.Errorf("exit code %d, %s", got, &second)
	}
	cancel()
	select {
	case got := <-code:
		if got != exitDone || !strings.Contains(stderr.String(), "the agent has stopped") || stdout.Len() > 0 {
			t.Errorf("exit code %d, %s%s", got, &stdout, &stderr)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not stop")
	}

	if got := run(context.Background(), []string{"agent", "--idle", "1s"}, environment(), &stdout, &stderr); got != exitUsage || !strings.Contains(stderr.String(), "hint:  culvert-gateway agent --help") {
		t.Errorf("exit code %d, %s", got, &stderr)
	}
}

func TestServeAgentReturnsWhyItEnds(t *testing.T) {
	o, err := parseAgentOptions(nil, environment())
	if err != nil {
		t.Fatal(err)
	}
	o.CarrierPort, o.ControlPort = 1, 1 // one of the two cannot be had, whoever asks
	if err := serveAgent(context.Background(), o.Config); err == nil || !strings.Contains(err.Error(), "listen for") {
		t.Error(err)
	}
}

func TestLeaveWord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "termination-log")
	leaveWord(file, "nobody reads this")
	if _, err := os.Stat(file); err == nil {
		t.Error("a file is made where there was none")
	}
	if err := os.WriteFile(file, bytes.Repeat([]byte("what was there before"), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	leaveWord(file, "no node has spoken\nfor 10m0s")
	got, err := os.ReadFile(file)
	if want := "culvert agent " + version.Version + ": no node has spoken; for 10m0s\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}
