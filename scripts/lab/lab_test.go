//go:build lab

// These tests bring labs up and down: as root, `go test -tags lab -v .`. They
// need no lab to be down; theirs have names of their own.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lab is the program under test, built once.
var lab string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make network namespaces: run them as root")
		return 1
	}
	dir, err := os.MkdirTemp("", "lab-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	lab = filepath.Join(dir, "lab")
	cmd := exec.Command("go", "build", "-o", lab, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	if out, err := exec.Command(lab, "build").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// output runs the lab and returns what it prints on standard output.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(lab, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("lab %s: %v\n%s%s", strings.Join(args, " "), err, out, errs.Bytes())
	}
	return string(out)
}

// code runs the lab and returns its exit code.
func code(args ...string) int {
	cmd := exec.Command(lab, args...)
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode()
}

// machine is what of the machine a lab must leave as it was. Another lab may be
// up all the while: it shows nowhere here.
type machine struct {
	mounts, links, cgroups, directories string
}

func look(t *testing.T, name string) machine {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	links, err := exec.Command("ip", "-br", "link").Output()
	if err != nil {
		t.Fatal(err)
	}
	groups, _ := exec.Command("find", "/sys/fs/cgroup", "-path", "*culvert-lab/"+name+"*").Output()
	dirs, _ := filepath.Glob("/var/lib/culvert-lab/" + name + "*")
	return machine{string(mounts), string(links), string(groups), strings.Join(dirs, "\n")}
}

// inside lists the processes in any of the network namespaces, and those whose
// command line names the lab's directory.
func inside(namespaces []uint64, name string) []string {
	var found []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		var st unix.Stat_t
		in := unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && slices.Contains(namespaces, st.Ino)
		args, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if in || bytes.Contains(args, []byte("/var/lib/culvert-lab/"+name+"/")) || bytes.HasPrefix(args, []byte("lab-"+name+"-")) {
			found = append(found, e.Name()+" "+string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func namespaces(t *testing.T, s status) []uint64 {
	t.Helper()
	var list []uint64
	for _, h := range s.Hosts {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", h.PID), &st); err != nil {
			t.Fatal(err)
		}
		list = append(list, st.Ino)
	}
	return list
}

type status struct {
	Ready bool
	Hosts []struct {
		Name string
		PID  int
	}
	Kubeconfig string
	Corporate  struct{ Name, URL string }
	VPN        struct {
		Up        bool
		Interface string
	}
}

func statusOf(t *testing.T, name string) status {
	t.Helper()
	var s status
	raw, _ := exec.Command(lab, "status", "-o", "json", "--name", name).Output()
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatalf("lab status: %v\n%s", err, raw)
	}
	return s
}

// checkGone takes the lab down and compares the machine with what it was.
func checkGone(t *testing.T, name string, before machine, netns []uint64) {
	t.Helper()
	for range 2 { // the second time finds nothing and succeeds too
		output(t, "down", "--name", name)
	}
	if after := look(t, name); after != before {
		t.Errorf("the machine was\n%+v\nand is\n%+v", before, after)
	}
	if left := inside(netns, name); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
}

func testName() string { return fmt.Sprintf("t%d", os.Getpid()) }

func TestLightLab(t *testing.T) {
	name := testName()
	before := look(t, name)
	t.Cleanup(func() { _ = code("down", "--name", name) })
	begin := time.Now()
	output(t, "up", "--light", "--name", name)
	if took := time.Since(begin); took > 40*time.Second {
		t.Errorf("lab up took %s, more than 40 s", took)
	} else {
		t.Logf("lab up took %s", took.Round(100*time.Millisecond))
	}
	s := statusOf(t, name)
	if !s.Ready {
		t.Fatal("lab status says it is not ready")
	}
	netns := namespaces(t, s)
	t.Run("exec", func(t *testing.T) { checkExec(t, name) })
	t.Run("workstation", func(t *testing.T) { checkWorkstation(t, name, s) })
	t.Run("cluster", func(t *testing.T) { checkCluster(t, name, s) })
	t.Run("vpn", func(t *testing.T) { checkVPN(t, name, s) })
	t.Run("up again", func(t *testing.T) {
		output(t, "up", "--light", "--name", name)
		if code("up", "--name", name) == 0 {
			t.Error("lab up with other options does not fail")
		}
	})
	t.Run("down", func(t *testing.T) {
		leaveBehind(t, name)
		checkGone(t, name, before, netns)
	})
}

func checkExec(t *testing.T, name string) {
	if got := code("exec", "--name", name, "ws", "--", "sh", "-c", "exit 42"); got != 42 {
		t.Errorf("exit code %d, want 42", got)
	}
	if got := code("exec", "--name", name, "ws", "--", "no-such-program"); got != 127 {
		t.Errorf("exit code %d, want 127", got)
	}
	if got := code("exec", "--name", name, "nowhere", "--", "true"); got != 1 {
		t.Errorf("exit code %d for an unknown host, want 1", got)
	}
	cmd := exec.Command(lab, "exec", "--name", name, "--user", "dev", "ws", "--", "sh", "-c", "cat; id -un; pwd; echo $HOME; hostname")
	cmd.Stdin, cmd.Dir = strings.NewReader("in\n"), "/tmp"
	out, err := cmd.Output()
	if want := "in\ndev\n/tmp\n/home/dev\nws\n"; err != nil || string(out) != want {
		t.Errorf("exec printed %q (%v), want %q", out, err, want)
	}
	cmd = exec.Command(lab, "exec", "--name", name, "ws", "--", "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	_ = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGTERM {
		t.Errorf("a signal does not reach the command: %v", cmd.ProcessState)
	}
}

// ws runs a shell line on the workstation.
func ws(t *testing.T, name, line string) string {
	t.Helper()
	return output(t, "exec", "--name", name, "ws", "--", "sh", "-c", line)
}

func checkWorkstation(t *testing.T, name string, s status) {
	for line, want := range map[string]string{
		"curl -sS -m5 http://intranet.corp.example/ip":                        `"pod":"corp"`,
		"curl -sS -m5 http://www.public.example/ip":                           `"pod":"public"`,
		"dig +short +tcp intranet.corp.example":                               "10.20.0.80",
		"getent ahostsv4 www.public.example":                                  "203.0.113.10",
		"stat -c %a /dev/net/tun":                                             "666",
		"ping -c1 -W2 10.50.0.11":                                             "1 received",
		"mv /etc/resolv.conf /etc/x && mv /etc/x /etc/resolv.conf && echo ok": "ok",
		"touch /var/lib/culvert/x && rm /var/lib/culvert/x && echo ok":        "ok",
		"curl -sk -m5 https://10.50.0.11:6443/version":                        "v1.",
		"curl -s -m2 http://10.130.0.1:443 || echo unreachable":               "unreachable",
	} {
		if got := ws(t, name, line); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q in it", line, got, want)
		}
	}
	if got := code("exec", "--name", name, "--user", "dev", "ws", "--", "cat", s.Kubeconfig); got != 0 {
		t.Errorf("dev cannot read %s", s.Kubeconfig)
	}
	if raw, err := os.ReadFile("/etc/resolv.conf"); err == nil && strings.Contains(string(raw), "10.20.0.53") {
		t.Error("the machine's own resolv.conf names the lab's resolver")
	}
}

func checkCluster(t *testing.T, name string, s status) {
	kubectl := func(args ...string) string {
		return output(t, append([]string{"kubectl", "--name", name}, args...)...)
	}
	service := strings.TrimSpace(kubectl("get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}"))
	pod := strings.TrimSpace(kubectl("get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[0].metadata.name}"))
	for _, args := range [][]string{
		{"connections", "--count", "100", service + ":7000"},
		{"short", "--count", "100", "--close", "server", service + ":7001"},
		{"udp", "--size", "25000", "--count", "10", service + ":7000"},
		{"put", "--size", "1000000", "http://" + service + "/upload"},
		{"up", "--duration", "300ms", service + ":7010"},
		{"down", "--duration", "300ms", service + ":7011"},
	} {
		output(t, append([]string{"exec", "--name", name, "node1", "--", lab, "labnet"}, args...)...)
	}
	node := func(line string) string { return output(t, "exec", "--name", name, "node1", "--", "sh", "-c", line) }
	for line, want := range map[string]string{
		"dig +short @10.130.0.10 echo.default.svc.cluster.local":           service,
		"dig +short @10.130.0.10 loop.test.cluster.local":                  "127.0.0.1",
		"dig +short @10.130.0.10 loop.test.cluster.local AAAA":             "::1",
		"dig +short +tcp @10.130.0.10 web-0.web.default.svc.cluster.local": "10.132.",
		"dig +short @10.130.0.10 www.public.example":                       "203.0.113.10",
	} {
		if got := node(line); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q in it", line, got, want)
		}
	}
	if got := kubectl("exec", pod, "--", "/labnet", "pingpong", "--count", "10", "echo:7000"); !strings.Contains(got, `"failed":0`) {
		t.Errorf("from pod to service: %s", got)
	}
	alice := strings.TrimSpace(output(t, "kubeconfig", "--name", name, "--user", "alice", "--group", "team"))
	if got := kubectl("--kubeconfig", alice, "auth", "whoami"); !strings.Contains(got, "alice") || !strings.Contains(got, "team") {
		t.Errorf("alice is %s", got)
	}
	if code("kubectl", "--name", name, "--kubeconfig", alice, "get", "pods") == 0 {
		t.Error("alice may list pods without a right to")
	}
}

// checkVPN switches through the kinds of VPN. On ws all must work each time, and
// all must be as before in the end.
func checkVPN(t *testing.T, name string, s status) {
	before := output(t, "snapshot", "--name", name, "ws")
	if again := output(t, "snapshot", "--name", name, "ws"); again != before {
		t.Errorf("two snapshots of an idle host differ:\n%s\n%s", before, again)
	}
	for kind, dev := range map[string]string{"openvpn": "tun0", "wireguard": "wg-corp", "route": "tun-corp", "tailscale": "tailscale0", "netbird": "wt0"} {
		for _, routes := range []string{"10.0.0.0/8", "0.0.0.0/0"} {
			output(t, "vpn", "up", kind, "--routes", routes, "--name", name)
			output(t, "vpn", "up", kind, "--routes", routes, "--name", name) // no harm
			if s := statusOf(t, name); !s.Ready || !s.VPN.Up || s.VPN.Interface != dev {
				t.Errorf("%s: status is %+v", kind, s)
			}
			if got := ws(t, name, "ip route get 10.20.0.80"); !strings.Contains(got, "dev "+dev) {
				t.Errorf("%s: the company is reached by %s", kind, got)
			}
			for _, url := range []string{"http://intranet.corp.example/", "http://www.public.example/", "https://10.50.0.11:6443/version"} {
				ws(t, name, "curl -4 -fsSk -m5 -o /dev/null "+url)
			}
			if strings.Contains(ws(t, name, "curl --interface eth0 -s -m1 http://10.20.0.80/ && echo leaked || true"), "leaked") {
				t.Errorf("%s: the router still carries ws into the company", kind)
			}
		}
		output(t, "vpn", "down", "--name", name)
		output(t, "vpn", "down", "--name", name)
		if after := output(t, "snapshot", "--name", name, "ws"); after != before {
			t.Errorf("after %s the host is not as before:\n%s\n%s", kind, before, after)
		}
		ws(t, name, "curl -fsS -m5 -o /dev/null "+s.Corporate.URL)
	}
}

// leaveBehind starts what a careless test would leave on ws.
func leaveBehind(t *testing.T, name string) {
	ws(t, name, "ip link add br9 type bridge; mount -t tmpfs none /mnt; setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
}

// A lab whose making is cut short at any moment goes down without a trace, and
// one can be brought up in its place.
func TestInterruptedUp(t *testing.T) {
	name := testName() + "-cut"
	before := look(t, name)
	t.Cleanup(func() { _ = code("down", "--name", name) })
	for _, after := range []time.Duration{100 * time.Millisecond, time.Second, 4 * time.Second} {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
			cmd := exec.Command(lab, "up", "--light", "--name", name)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(after, func() { _ = cmd.Process.Signal(sig) })
			if err := cmd.Wait(); err == nil {
				t.Errorf("lab up, %v after %s, says it is done", sig, after)
			}
			if sig == syscall.SIGINT { // it cleans up by itself
				if now := look(t, name); now != before {
					t.Errorf("after an interrupt at %s the machine is\n%+v\nand was\n%+v", after, now, before)
				}
			}
			checkGone(t, name, before, nil)
		}
	}
}

// Two labs with the same addresses throughout, and a workstation that reaches
// the API servers of both.
func TestJoinedLabs(t *testing.T) {
	near, far := testName()+"-near", testName()+"-far"
	before := look(t, near)
	t.Cleanup(func() { _, _ = code("down", "--name", near), code("down", "--name", far) })
	for _, name := range []string{near, far} {
		output(t, "up", "--light", "--name", name)
		output(t, "kubectl", "--name", name, "create", "configmap", "whose", "--from-literal=lab="+name)
	}
	netns := append(namespaces(t, statusOf(t, near)), namespaces(t, statusOf(t, far))...)
	untouched := output(t, "snapshot", "--name", near, "ws")
	for range 2 { // the second time changes nothing
		joined := strings.TrimSpace(output(t, "join", "--name", near, far))
		for path, want := range map[string]string{joined: far, statusOf(t, near).Kubeconfig: near} {
			if got := whose(t, near, path); got != want {
				t.Errorf("%s leads to lab %q, want %q", path, got, want)
			}
		}
	}
	if after := output(t, "snapshot", "--name", near, "ws"); after != untouched {
		t.Errorf("joining changed the workstation:\n%s\n%s", untouched, after)
	}
	if code("join", "--name", near, near) != 2 || code("join", "--name", near, "no-such-lab") != 1 {
		t.Error("a lab can be joined with itself, or with one that is not there")
	}
	output(t, "down", "--name", far)
	output(t, "up", "--light", "--name", far)
	output(t, "kubectl", "--name", far, "create", "configmap", "whose", "--from-literal=lab=anew")
	if got := whose(t, near, strings.TrimSpace(output(t, "join", "--name", near, far))); got != "anew" {
		t.Errorf("joined again, it leads to lab %q", got)
	}
	output(t, "down", "--name", far)
	checkGone(t, near, before, netns)
}

// whose returns what the cluster that a kubeconfig leads to on the workstation
// is called.
func whose(t *testing.T, name, kubeconfig string) string {
	t.Helper()
	curl := `fetch() { awk -v k="$1:" '$1 == k {print $2}' "$2" | base64 -d; }
cd "$(mktemp -d)" && fetch certificate-authority-data %[1]s >ca && fetch client-certificate-data %[1]s >crt && fetch client-key-data %[1]s >key
server=$(awk '$1 == "server:" {print $2}' %[1]s); host=${server#https://}
curl -sS -m5 --cacert ca --cert crt --key key --connect-to kubernetes:6443:$host https://kubernetes:6443/api/v1/namespaces/default/configmaps/whose
rm -rf "$PWD"`
	var answer struct{ Data struct{ Lab string } }
	out := ws(t, name, fmt.Sprintf(curl, kubeconfig))
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%s: %v\n%s", kubeconfig, err, out)
	}
	return answer.Data.Lab
}
