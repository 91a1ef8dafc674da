//go:build netns

package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inPod runs the calling test again in a process with a network namespace of its own, as a pod's, and reports
// whether this is that process.
//
//	lo 127.0.0.1, ::1
//	v0 10.131.0.1/24, fd00:131::1/64 (the pod's) ═ v1, in a namespace beside it: 10.131.0.2 (another pod)
func inPod(t *testing.T) bool {
	t.Helper()
	if os.Getenv("CULVERT_TEST_NAMESPACE") == t.Name() {
		for _, line := range []string{
			"link set lo up",
			"link add v0 type veth peer name v1",
			"addr add 10.131.0.1/24 dev v0",
			"-6 addr add fd00:131::1/64 dev v0 nodad",
			"link set v0 up",
		} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v: %s", line, err, out)
			}
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
			t.Fatal(err)
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

// otherPod starts a process in a namespace beside the pod's, joined to v1, and returns how to dial from it: by
// bash, whose exit status tells.
func otherPod(t *testing.T) func(addr string, port uint16) error {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := fmt.Sprint(cmd.Process.Pid)
	inside := func(args ...string) ([]byte, error) {
		return exec.Command("nsenter", append([]string{"--net=/proc/" + pid + "/ns/net"}, args...)...).CombinedOutput()
	}
	if out, err := exec.Command("ip", "link", "set", "v1", "netns", pid).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, line := range []string{"addr add 10.131.0.2/24 dev v1", "-6 addr add fd00:131::2/64 dev v1 nodad", "link set v1 up"} {
		if out, err := inside(append([]string{"ip"}, strings.Fields(line)...)...); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
	return func(addr string, port uint16) error {
		out, err := inside("timeout", "3", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", addr, port))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

// From another pod neither port answers; on the pod's loopback both do, at both addresses.
func TestNamespacePortsAreOnLoopbackAlone(t *testing.T) {
	if !inPod(t) {
		return
	}
	start(t, Config{CarrierPort: CarrierPort, ControlPort: ControlPort})
	open := serveEcho(t, "10.131.0.1")
	open6 := serveEcho(t, "fd00:131::1")
	dial := otherPod(t)
	eventually(t, 10*time.Second, "the other pod reaches this one", func() bool { return dial("10.131.0.1", open) == nil && dial("fd00:131::1", open6) == nil })
	for _, port := range []uint16{CarrierPort, ControlPort} {
		for _, own := range []string{"127.0.0.1", "::1"} {
			c, err := net.DialTimeout("tcp", at(own, port), 5*time.Second)
			if err != nil {
				t.Errorf("%s: %v", own, err)
				continue
			}
			c.Close()
		}
		for _, own := range []string{"10.131.0.1", "fd00:131::1"} {
			if err := dial(own, port); err == nil {
				t.Errorf("another pod gets through to %s", at(own, port))
			}
			if c, err := net.DialTimeout("tcp", at(own, port), 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
				if err == nil {
					c.Close()
				}
				t.Errorf("%s: %v", at(own, port), err)
			}
		}
	}
}

// In a pod as it is: the pod's own addresses, ping where the pod's sysctl allows it, names by the pod's resolv.conf.
func TestNamespaceAgentInAPod(t *testing.T) {
	if !inPod(t) {
		return
	}
	nameserver(t, "127.0.0.1:53")
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, Config{ResolvConf: resolv})
	w := r.join("ann", annNode, annAgent, loopTwins+" 10.131.0.0/24 246.131.0.0/24 fd00:131::/64 fd7a:131::/64")
	w.resolves("udp", "245.1.2.7:53")
	w.resolves("tcp", "[fd7a:1::7]:53")
	w.reaches("tcp", at("246.131.0.1", serveEcho(t, "10.131.0.1")))
	w.reaches("udp", at("fd7a:131::1", serveEcho(t, "fd00:131::1")))
	for _, twin := range []string{"250.0.0.1", "250.7.7.7", "fd7a:250::1", "246.131.0.1", "fd7a:131::1", "245.1.2.7", "fd7a:1::7"} {
		w.pings(twin)
	}
}

// pings fails the test unless an echo request to the address is answered.
func (w *workstation) pings(to string) {
	w.Helper()
	proto, request, reply := "ping4", byte(8), byte(0)
	if strings.Contains(to, ":") {
		proto, request, reply = "ping6", 128, 129
	}
	c, err := w.Dial(proto, to)
	if err != nil {
		w.Errorf("ping %s: %v", to, err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = c.Write([]byte{request, 0, 0, 0, 0, 0, 0, 1, 'p', 'i', 'n', 'g'})
	got := make([]byte, 64)
	n := 0
	if err == nil {
		n, err = c.Read(got)
	}
	if err != nil || n != 12 || got[0] != reply || string(got[8:n]) != "ping" {
		w.Errorf("ping %s: % x, %v", to, got[:n], err)
	}
}

// A pod without IPv6 has one loopback address.
func TestNamespaceWithoutIPv6(t *testing.T) {
	if !inPod(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	r := start(t, Config{CarrierPort: CarrierPort, ControlPort: ControlPort})
	w := r.join("ann", annNode, annAgent, loopTwins)
	w.reaches("tcp", at(twinOfLoop, serveEcho(t, "127.0.0.1")))
}
