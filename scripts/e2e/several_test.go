//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// clusters are two that have the same subnets, and one workstation that reaches both: near is the shared
// lab, far a small one whose API server the workstation knows by another address.
type clusters struct {
	*lab          // near
	far       lab // of which nothing but the cluster is used
	farConfig string
	pods      map[string]string // the echo pod of each connection's cluster, by its name
}

// twoClusters brings up the second lab, or takes the one that CULVERT_E2E_LABFAR names.
func twoClusters(t *testing.T) *clusters {
	t.Helper()
	c := &clusters{lab: shared, far: lab{Lab: labctl.Lab{Name: os.Getenv("CULVERT_E2E_LABFAR"), Bin: shared.Bin}}, pods: map[string]string{}}
	if c.far.Name == "" {
		c.far.Name = "e2e-far"
		t.Cleanup(func() { must(t, c.far.Run(2*time.Minute, "down"), "lab down") })
		must(t, c.far.Run(10*time.Minute, "up", "--light"), "lab up")
	}
	if err := c.far.Prepare(); err != nil {
		t.Fatal(err)
	}
	c.farConfig = strings.TrimSpace(c.Run(time.Minute, "join", c.far.Name).Out)
	for name, l := range map[string]*lab{"near": c.lab, "far": &c.far} {
		c.pods[name] = l.Kubectl("get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[*].metadata.name}").Out
		if !strings.HasPrefix(c.pods[name], "echo-") {
			t.Fatalf("the echo pods of the %s cluster are %q", name, c.pods[name])
		}
	}
	return c
}

// join connects to one of the clusters under its name.
func (c *clusters) join(name string, args ...string) labctl.Result {
	argv := []string{"culvert", "connect", "--name", name}
	if name == "far" {
		argv = append(argv, "--kubeconfig", c.farConfig)
	}
	return c.WS(time.Minute, append(argv, args...)...)
}

func (c *clusters) leave(t *testing.T, name string) {
	t.Helper()
	must(t, c.WS(30*time.Second, "culvert", "quit", "--name", name), "culvert quit --name "+name)
}

// leads checks that a host, a name or an address, is in the cluster of a connection, by TCP and UDP.
func (c *clusters) leads(t *testing.T, host, name string) {
	t.Helper()
	if err := c.isIn(host, name, 10*time.Second); err != nil {
		t.Error(err)
	}
	must(t, c.Labnet(20*time.Second, "pingpong", "--count", "20", host+":7000"), "TCP echo "+host)
	must(t, c.Labnet(20*time.Second, "udp", "--count", "20", host+":7000"), "UDP echo "+host)
}

// isIn asks a host which pod it is, for at most limit.
func (c *clusters) isIn(host, name string, limit time.Duration) error {
	r := c.WS(2*limit, "curl", "-sS", "--fail", "--max-time", strconv.Itoa(int(limit.Seconds())), "http://"+host+"/")
	var answer struct{ Pod string }
	if err := json.Unmarshal([]byte(r.Out), &answer); err != nil {
		return fmt.Errorf("GET %s: %w: %s", host, err, r)
	}
	if !slices.Contains(strings.Fields(c.pods[name]), answer.Pod) {
		return fmt.Errorf("%s is answered by %s, want the cluster of connection %s: %s", host, answer.Pod, name, c.pods[name])
	}
	return nil
}

// address resolves a name on the workstation.
func (c *clusters) address(t *testing.T, name string) string {
	t.Helper()
	r := c.WS(10*time.Second, "dig", "+short", name)
	addr := strings.TrimSpace(r.Out)
	if addr == "" || strings.Contains(addr, "\n") {
		t.Fatalf("dig %s: %s", name, r)
	}
	return addr
}

// outlives runs change while TCP connections to host stand, and fails unless they live on.
func (c *clusters) outlives(t *testing.T, host string, change func()) {
	t.Helper()
	var session sync.WaitGroup
	var lived labctl.Result
	session.Go(func() {
		lived = c.Labnet(time.Minute, "session", "--duration", "8s", "--timeout", "5s", host+":7000")
	})
	eventually(t, 5*time.Second, "the TCP connection stands", func() error {
		return c.WS(5*time.Second, "sh", "-c", "ss -Htn state established dst "+host+" | grep -q :7000").OK()
	})
	change()
	session.Wait()
	must(t, lived, "a TCP connection to "+host)
}

// takesOver waits until short names lead to the cluster of a connection.
func (c *clusters) takesOver(t *testing.T, name string) {
	t.Helper()
	took := eventually(t, 5*time.Second, name+" has the cluster domain", func() error { return c.isIn("echo", name, time.Second) })
	t.Logf("%s has the cluster domain %s after the other one ended", name, took.Round(10*time.Millisecond))
}

func TestTwoClustersAtOnce(t *testing.T) {
	c := twoClusters(t)
	before := c.snapshot(t)
	t.Cleanup(func() {
		for _, name := range []string{"near", "far"} {
			if t.Failed() {
				t.Logf("culvert logs --name %s:\n%s", name, c.WS(10*time.Second, "culvert", "logs", "--name", name).Out)
			}
			c.leave(t, name)
		}
		must(t, c.WS(30*time.Second, "culvert", "cleanup"), "culvert cleanup")
		c.unchanged(t, before)
	})
	must(t, c.join("near", allowFlags...), "connect near")

	alone := c.snapshot(t)
	r := c.join("far")
	if r.Code != 3 || !strings.Contains(r.Err, "Culvert connection near") || !strings.Contains(r.Err, "10.130.0.0/16") || !strings.Contains(r.Err, "10.132.0.0/16") {
		t.Errorf("a second cluster with the same subnets: want exit code 3 and the first connection named: %s", r)
	}
	c.unchanged(t, alone)

	must(t, c.join("far", "--on-conflict", "virtualize"), "connect far", "cluster.local, default, svc are connection near's; here use NAME.far.culvert.internal")
	if !t.Run("both are reached", c.bothAreReached) {
		return
	}
	t.Run("the VPN goes and comes", c.theVPNGoesAndComes)
	t.Run("the first leaves", c.theFirstLeaves)
	t.Run("the other one leaves", c.theOtherLeaves)
	t.Run("one is killed", c.oneIsKilled)
}

// bothAreReached: near has the cluster domain, the far cluster goes by its connection's name; by literal
// addresses and their virtual ones, too, each leads to its own.
func (c *clusters) bothAreReached(t *testing.T) {
	for range 3 {
		for _, host := range []string{"echo", "echo.default", "echo.default.svc.cluster.local", "echo.default.near.culvert.internal", c.EchoIP} {
			c.leads(t, host, "near")
		}
		for _, host := range []string{"echo.far.culvert.internal", "echo.default.far.culvert.internal", "echo.default.svc.cluster.local.far.culvert.internal"} {
			c.leads(t, host, "far")
		}
	}
	c.leads(t, c.virtual(t, "far", c.far.EchoIP), "far")
	c.leads(t, c.virtual(t, "near", c.EchoIP), "near")
	must(t, c.WS(10*time.Second, "ping", "-n", "-c", "2", "-W", "2", c.virtual(t, "far", c.far.EchoPod)), "ping of a far pod", " 0% packet loss")
	c.othersAnswer(t)
	must(t, c.WS(10*time.Second, "culvert", "status"), "culvert status", "connection  near: connected", "connection  far: connected", "NAME.far.culvert.internal")
	must(t, c.WS(10*time.Second, "culvert", "__complete", "quit", "--name", ""), "completion of --name", "near\n", "far\n")
	must(t, c.WS(10*time.Second, "culvert", "why", "--name", "far", c.far.EchoIP), "culvert why", "Culvert connection near")
}

// virtual returns the address that stands for a cluster's own.
func (c *clusters) virtual(t *testing.T, name, real string) string {
	t.Helper()
	r := c.WS(10*time.Second, "culvert", "why", "--name", name, "-o", "json", real)
	var why struct{ Addresses []struct{ Twin string } }
	if err := json.Unmarshal([]byte(r.Out), &why); err != nil || len(why.Addresses) != 1 || why.Addresses[0].Twin == "" {
		t.Fatalf("%s has no virtual address (%v): %s", real, err, r)
	}
	return why.Addresses[0].Twin
}

// theVPNGoesAndComes: both follow the same changes of the host, and neither takes the other for one.
func (c *clusters) theVPNGoesAndComes(t *testing.T) {
	vip := c.address(t, "echo.far.culvert.internal")
	c.outlives(t, vip, func() {
		for _, state := range []string{"down", "up"} {
			c.vpn(t, state)
			c.leads(t, "echo", "near")
			c.leads(t, "echo.far.culvert.internal", "far")
		}
	})
	c.leads(t, vip, "far")
	c.othersAnswer(t)
	r := c.WS(10*time.Second, "culvert", "status")
	if must(t, r, "culvert status"); strings.Contains(r.Out, "degraded") {
		t.Errorf("with the VPN as before: %s", r)
	}
}

// theFirstLeaves: near ends. What goes to the far cluster does not notice, and that one has the cluster
// domain now.
func (c *clusters) theFirstLeaves(t *testing.T) {
	vip := c.address(t, "echo.far.culvert.internal")
	c.outlives(t, vip, func() {
		c.leave(t, "near")
		c.takesOver(t, "far")
	})
	c.leads(t, vip, "far")
	c.leads(t, "echo.far.culvert.internal", "far")
	must(t, c.WS(10*time.Second, "culvert", "why", "echo"), "culvert why of the only connection", "echo", "culvert2")
	c.othersAnswer(t)
}

// theOtherLeaves: near is back, as the second, and takes its subnets as it was told; the far cluster is
// reached by the virtual address of before, until it ends.
func (c *clusters) theOtherLeaves(t *testing.T) {
	vip := c.virtual(t, "far", c.far.EchoIP)
	must(t, c.join("near", allowFlags...), "connect near again", "cluster.local, default, svc are connection far's; here use NAME.near.culvert.internal")
	c.leads(t, "echo.near.culvert.internal", "near")
	c.leads(t, c.EchoIP, "near")
	c.leads(t, vip, "far")
	eventually(t, 5*time.Second, "the far cluster goes by virtual addresses again", func() error { return c.isIn("echo", "far", 2*time.Second) })
	c.outlives(t, c.EchoIP, func() {
		c.leave(t, "far")
		c.takesOver(t, "near")
	})
	c.leads(t, c.EchoIP, "near")
	c.leads(t, "echo.default", "near")
}

// oneIsKilled: all three processes of the far connection, which is on top of the resolver file.
func (c *clusters) oneIsKilled(t *testing.T) {
	must(t, c.join("far", "--on-conflict", "virtualize"), "connect far again")
	c.leads(t, "echo.far.culvert.internal", "far")
	r := c.WS(10*time.Second, "culvert", "status", "--name", "far", "-o", "json")
	var s status
	if err := json.Unmarshal([]byte(r.Out), &s); err != nil {
		t.Fatalf("status: %v: %s", err, r)
	}
	c.outlives(t, c.EchoIP, func() {
		must(t, c.WS(5*time.Second, "kill", "-9", strconv.Itoa(s.Processes.Guard), strconv.Itoa(s.Processes.Helper), strconv.Itoa(s.Processes.Node)), "kill -9")
		c.takesOver(t, "near")
	})
	if r := c.WS(10*time.Second, "culvert", "__complete", "status", "--name", ""); strings.Contains(r.Out, "far") {
		t.Errorf("one that was killed is said to run: %s", r)
	}
	must(t, c.WS(30*time.Second, "culvert", "cleanup"), "culvert cleanup", `repaired connection "far"`)
	must(t, c.WS(10*time.Second, "sh", "-c", "! ls /run/culvert/far/api.sock 2>&1"), "the control socket is gone")
	c.leads(t, "echo", "near")
	c.othersAnswer(t)
}

// TestTwoConnectionsBothVirtual: with neither's subnets routed, each connection's names lead to its own virtual
// addresses; the later one, whose resolver is in front, passes on those of the earlier.
func TestTwoConnectionsBothVirtual(t *testing.T) {
	c := &clusters{lab: shared}
	before := c.snapshot(t)
	t.Cleanup(func() {
		c.leave(t, "later")
		c.leave(t, "near")
		c.unchanged(t, before)
	})
	for _, name := range []string{"near", "later"} {
		must(t, c.join(name, "--on-conflict", "virtualize"), "connect "+name)
	}
	first := c.address(t, "echo.default.svc.cluster.local")
	second := c.address(t, "echo.default.later.culvert.internal")
	if first == second {
		t.Errorf("both connections have %s", first)
	}
	for name, addr := range map[string]string{"near": first, "later": second} {
		if want := c.virtual(t, name, c.EchoIP); addr != want {
			t.Errorf("%s: echo is %s, want %s", name, addr, want)
		}
		must(t, c.Labnet(20*time.Second, "pingpong", "--count", "20", addr+":7000"), "TCP echo by "+addr)
	}
}
