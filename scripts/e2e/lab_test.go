//go:build lab

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// result is what a command left behind.
type result struct {
	out, err string
	code     int
	took     time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d after %s\nstdout:\n%s\nstderr:\n%s", r.code, r.took.Round(time.Millisecond), r.out, r.err)
}

// run runs a program of this machine, bounded in time.
func run(timeout time.Duration, name string, args ...string) result {
	return runInput(timeout, "", name, args...)
}

func runInput(timeout time.Duration, input, name string, args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	begin := time.Now()
	err := cmd.Run()
	r := result{out: out.String(), err: errs.String(), took: time.Since(begin)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		r.code, r.err = -1, r.err+err.Error()
	}
	return r
}

// lab is the laboratory that the scenarios share.
type lab struct {
	name       string
	bin        string // the repository's bin directory, the same inside every host
	kubeconfig string // of the administrator, as ws sees it
	echoPod    string // address of an echo pod
	echoIP     string // ClusterIP of service echo
}

var shared *lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "FAIL: the lab's scenarios need root")
		return 1
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l := &lab{name: os.Getenv("CULVERT_E2E_LAB"), bin: bin}
	if l.name == "" {
		l.name = "e2e"
		defer l.lab(2*time.Minute, "down")
		if r := l.lab(30*time.Minute, "up", "--vpn", "openvpn"); r.code != 0 {
			fmt.Fprintln(os.Stderr, "lab up:", r)
			return 1
		}
	}
	if err := l.prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("topology: ws (culvert, OpenVPN 10.0.0.0/8) ── router ── vpn ── corp, node1 (API server, gateway, echo); lab", l.name)
	shared = l
	return m.Run()
}

// prepare installs the gateway from this build and learns the addresses that scenarios use.
func (l *lab) prepare() error {
	path := l.lab(time.Minute, "kubeconfig")
	l.kubeconfig = strings.TrimSpace(path.out)
	if r := l.lab(2*time.Minute, "load", filepath.Join(l.bin, "culvert-gateway.tar")); r.code != 0 {
		return fmt.Errorf("load the gateway's image: %s", r)
	}
	if r := l.ws(3*time.Minute, "culvert", "gateway", "install", "--image", gatewayImage, "--set", "image.pullPolicy=Never", "--wait"); r.code != 0 {
		return fmt.Errorf("install the gateway: %s", r)
	}
	for target, query := range map[*string][]string{
		&l.echoPod: {"get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[0].status.podIP}"},
		&l.echoIP:  {"get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}"},
	} {
		r := l.kubectl(query...)
		if *target = strings.TrimSpace(r.out); *target == "" {
			return fmt.Errorf("kubectl %v: %s", query, r)
		}
	}
	return nil
}

const gatewayImage = "culvert.dev/culvert-gateway:dev"

func (l *lab) lab(timeout time.Duration, args ...string) result {
	return run(timeout, filepath.Join(l.bin, "lab"), append([]string{"--name", l.name}, args...)...)
}

func (l *lab) kubectl(args ...string) result {
	return run(time.Minute, filepath.Join(l.bin, "lab"), append([]string{"kubectl", "--name", l.name}, args...)...)
}

// apply gives the API server a manifest as the administrator.
func (l *lab) apply(manifest string) result {
	return runInput(time.Minute, manifest, filepath.Join(l.bin, "lab"), "kubectl", "--name", l.name, "apply", "-f", "-")
}

// wsArgs is the command line that runs argv on the workstation, with this build in its PATH.
func (l *lab) wsArgs(env []string, argv ...string) []string {
	args := []string{"--name", l.name, "exec", "ws", "--", "env", "PATH=" + l.bin + ":" + os.Getenv("PATH"), "KUBECONFIG=" + l.kubeconfig}
	return append(append(args, env...), argv...)
}

// ws runs a command on the workstation as root.
func (l *lab) ws(timeout time.Duration, argv ...string) result {
	return l.wsEnv(timeout, nil, argv...)
}

func (l *lab) wsEnv(timeout time.Duration, env []string, argv ...string) result {
	return run(timeout, filepath.Join(l.bin, "lab"), l.wsArgs(env, argv...)...)
}

// host runs a command on any host of the lab.
func (l *lab) host(timeout time.Duration, host string, argv ...string) result {
	return l.lab(timeout, append([]string{"exec", host, "--"}, argv...)...)
}

// snapshot is the workstation's network as the lab describes it.
func (l *lab) snapshot(t *testing.T) string {
	t.Helper()
	r := l.lab(time.Minute, "snapshot", "ws")
	if r.code != 0 || len(r.out) < 100 {
		t.Fatalf("lab snapshot ws: %s", r)
	}
	return r.out
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
}

func (l *lab) status(t *testing.T) status {
	t.Helper()
	r := l.ws(10*time.Second, "culvert", "status", "-o", "json")
	var s status
	if err := json.Unmarshal([]byte(r.out), &s); err != nil {
		t.Fatalf("culvert status -o json: %v\n%s", err, r)
	}
	return s
}

// allowFlags let the cluster have what the VPN of the lab routes.
var allowFlags = []string{"--allow-conflicting-subnets", "10.128.0.0/9"}

// connect connects the workstation and arranges for the end and the comparison with before.
func (l *lab) connect(t *testing.T, args ...string) {
	t.Helper()
	before := l.snapshot(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("culvert logs:\n", l.ws(10*time.Second, "culvert", "logs").out)
		}
		if r := l.ws(30*time.Second, "culvert", "quit"); r.code != 0 {
			t.Errorf("culvert quit: %s", r)
		}
		l.unchanged(t, before)
	})
	r := l.ws(time.Minute, append([]string{"culvert", "connect"}, args...)...)
	if r.code != 0 {
		t.Fatalf("culvert connect %v: %s", args, r)
	}
	t.Logf("connected in %s", r.took.Round(time.Millisecond))
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
