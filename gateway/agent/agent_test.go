package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/enrol"
)

const (
	loopTwins  = "127.0.0.0/8 250.0.0.0/8 ::1/128 fd7a:250::1/128"
	annNode    = "245.1.2.4 fd7a:1::4"
	annAgent   = "245.1.2.7 fd7a:1::7"
	bobNode    = "245.1.2.8"
	bobAgent   = "245.1.2.9"
	twinOfLoop = "250.0.0.1"
)

// at puts an address and a port together.
func at(addr string, port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
}

// What a pod's own loopback offers is reached by its twin, over everything, and names are answered by the pod's
// nameserver at the agent's address.
func TestAgentServesANode(t *testing.T) {
	r := start(t, Config{Nameservers: []netip.AddrPort{nameserver(t, "127.0.0.1")}})
	w := r.join("ann", annNode, annAgent, loopTwins)
	for listener, twin := range map[string]string{"127.0.0.1": twinOfLoop, "127.9.8.7": "250.9.8.7", "::1": "fd7a:250::1"} {
		port := serveEcho(t, listener)
		for _, proto := range []string{"tcp", "udp"} {
			w.reaches(proto, at(twin, port))
		}
	}
	for _, server := range strings.Fields(annAgent) {
		w.resolves("udp", at(server, 53))
		w.resolves("tcp", at(server, 53))
	}
	if err := r.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// What a node may not reach is refused at once.
func TestAgentRefusesFlows(t *testing.T) {
	r := start(t, Config{Nameservers: []netip.AddrPort{nameserver(t, "127.0.0.1")}})
	w := r.join("ann", annNode, annAgent, loopTwins)
	bob := r.join("bob", bobNode, bobAgent, loopTwins)
	bob.resolves("udp", at(bobAgent, 53))
	for name, to := range map[string]string{
		"the carrier by the twin":         at(twinOfLoop, r.carrier.Port()),
		"the control port by the twin":    at(twinOfLoop, r.control.Port()),
		"the control port, IPv6":          at("fd7a:250::1", r.control.Port()),
		"metadata":                        "169.254.169.254:80",
		"what it has no twin of":          "10.130.0.1:80",
		"another port of the agent's":     at("245.1.2.7", 7842),
		"a twin that nobody has":          "251.0.0.1:80",
		"another node":                    at(bobNode, 22),
		"the agent as another node's":     at(bobAgent, 53),
		"a port where nobody is":          at(twinOfLoop, freePort(t)),
		"all of the pod, which is nobody": "250.0.0.0:80",
	} {
		begin := time.Now()
		c, err := w.dial("tcp", to)
		if err == nil {
			c.Close()
		}
		if err == nil || errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(begin))
		}
	}
}

// A request again with other twins changes what it says and nothing else.
func TestTwinsChangeLive(t *testing.T) {
	r := start(t, Config{})
	port := serveEcho(t, "127.0.0.1")
	w := r.join("ann", annNode, annAgent, loopTwins+" 127.0.0.2/32 252.0.0.2/32")
	kept, err := w.dial("tcp", at(twinOfLoop, port))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if err := echo(kept, "before"); err != nil {
		t.Fatal(err)
	}

	w.request = request("ann", "", annNode, annAgent, "127.0.0.0/8 250.0.0.0/8 127.0.0.1/32 251.0.0.7/32")
	w.request.PublicKey = w.private.PublicKey()
	w.enrol()
	w.reaches("tcp", at("251.0.0.7", port))
	other, err := w.dial("tcp", at("251.0.0.7", port))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := echo(kept, "still there"); err != nil {
		t.Errorf("a flow that means the same was cut: %v", err)
	}
	if c, err := w.dial("tcp", at("252.0.0.2", port)); err == nil || !strings.Contains(err.Error(), "no route to host") { // as ICMP says
		if err == nil {
			c.Close()
		}
		t.Errorf("a twin that has gone: %v", err)
	}

	w.request.Twins = w.request.Twins[1:]
	w.enrol()
	if err := echo(kept, "no more"); err == nil {
		t.Error("a flow to a twin that has gone lives")
	}
	if err := echo(other, "still there"); err != nil {
		t.Errorf("a flow to a twin that stays was cut: %v", err)
	}
}

// Two nodes use the same virtual addresses and know nothing of each other; what one has the other cannot take.
func TestTwoNodes(t *testing.T) {
	r := start(t, Config{})
	port := serveEcho(t, "127.0.0.1")
	ann, bob := r.join("ann", annNode, annAgent, loopTwins), r.join("bob", bobNode, bobAgent, "127.0.0.1/32 "+twinOfLoop+"/32")
	ann.reaches("tcp", at(twinOfLoop, port))
	bob.reaches("tcp", at(twinOfLoop, port))
	annFlow, err := ann.dial("tcp", at(twinOfLoop, port))
	if err != nil {
		t.Fatal(err)
	}
	defer annFlow.Close()
	bobFlow, err := bob.dial("tcp", at(twinOfLoop, port))
	if err != nil {
		t.Fatal(err)
	}
	defer bobFlow.Close()

	var no *enrol.Refusal
	greedy := bob.request
	greedy.Node = addrs("245.1.2.4")
	if _, err := r.ask(greedy); !errors.As(err, &no) || no.Reason != enrol.Conflict {
		t.Errorf("another's address: %v", err)
	}
	greedy = bob.request
	greedy.PublicKey = ann.private.PublicKey()
	if _, err := r.ask(greedy); !errors.As(err, &no) || no.Reason != enrol.Conflict {
		t.Errorf("another's key: %v", err)
	}
	for name, c := range map[string]net.Conn{"ann": annFlow, "bob": bobFlow} {
		if err := echo(c, "undisturbed"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	bye := bob.request
	bye.Bye = true
	if _, err := r.ask(bye); err != nil {
		t.Errorf("bye: %v", err)
	}
	_ = bobFlow.SetDeadline(time.Now().Add(300 * time.Millisecond)) // nothing is told to who is no node any more
	if err := echo(bobFlow, "no more"); err == nil {
		t.Error("who has left is served")
	}
	if err := echo(annFlow, "still there"); err != nil {
		t.Errorf("who has not left is cut: %v", err)
	}
}

// A node that starts anew takes over what it left, under another key.
func TestRestartedNodeTakesOver(t *testing.T) {
	r := start(t, Config{})
	port := serveEcho(t, "127.0.0.1")
	old := r.join("ann", annNode, annAgent, loopTwins)
	old.reaches("tcp", at(twinOfLoop, port))
	young := r.join("ann", annNode, annAgent, loopTwins)
	young.reaches("tcp", at(twinOfLoop, port))
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if c, err := old.DialContext(ctx, "tcp", at(twinOfLoop, port)); err == nil {
		c.Close()
		t.Error("the old key is served")
	}
}

// clock is a time that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// stays fails the test if the agent ends within a hundred looks for signs of life.
func (r *running) stays(why string) {
	r.Helper()
	select {
	case <-r.done:
		r.Fatalf("it left although %s: %v", why, r.stop())
	case <-time.After(300 * time.Millisecond):
	}
}

func (r *running) leaves() {
	r.Helper()
	select {
	case <-r.done:
		if err := r.stop(); !errors.Is(err, ErrIdle) || !strings.Contains(err.Error(), "10m0s") {
			r.Errorf("it left with %v", err)
		}
	case <-time.After(10 * time.Second):
		r.Fatal("it stays although nobody needs it")
	}
}

func TestLeavesWhenNobodyCame(t *testing.T) {
	c := &clock{now: noon}
	r := start(t, Config{Now: c.Now, Check: 3 * time.Millisecond})
	c.pass(10*time.Minute - 1)
	r.stays("it is not time yet")
	c.pass(1)
	r.leaves()
}

func TestLeavesWhenNobodySpeaks(t *testing.T) {
	c := &clock{now: noon}
	r := start(t, Config{Now: c.Now, Check: 3 * time.Millisecond})
	port := serveEcho(t, "127.0.0.1")
	c.pass(9 * time.Minute)
	w := r.join("ann", annNode, annAgent, loopTwins)
	w.reaches("tcp", at(twinOfLoop, port))
	c.pass(9 * time.Minute)
	r.stays("a node spoke")
	for range 3 {
		c.pass(time.Hour) // nothing is sent but the carrier's own echoes
		r.stays("a node's stream is open")
	}
	w.reaches("tcp", at(twinOfLoop, port))
	w.leave() // as a workstation that is switched off
	eventually(t, 10*time.Second, "its stream has ended", func() bool { return !r.agent.tunnel.Connected(netip.MustParseAddrPort("[2001:db8::1]:1")) })
	r.stays("a node spoke")
	c.pass(9 * time.Minute)
	r.stays("a node spoke")
	if _, err := r.ask(request("bob", "kb", bobNode, bobAgent, loopTwins)); err != nil {
		t.Fatal(err)
	}
	c.pass(9 * time.Minute)
	r.stays("another was enrolled") // and the first is let go
	if _, err := r.ask(request("eve", "ke", "245.1.2.4", "245.1.2.7", loopTwins)); err != nil {
		t.Errorf("the addresses of who has not spoken are kept: %v", err)
	}
	c.pass(10 * time.Minute)
	r.leaves()
}

func TestLeavesBeforeThePodRunsOutOfMemory(t *testing.T) {
	r := start(t, Config{MaxMemory: 1 << 20, Check: 3 * time.Millisecond})
	select {
	case <-r.done:
		if err := r.stop(); err == nil || !strings.Contains(err.Error(), "more than the 1 MiB") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it stays")
	}
}

func TestNobodyIsEnrolledWhileItLeaves(t *testing.T) {
	r := start(t, Config{})
	r.agent.mu.Lock()
	r.agent.leaving = true
	r.agent.mu.Unlock()
	var no *enrol.Refusal
	if _, err := r.ask(request("ann", "ka", annNode, annAgent, loopTwins)); !errors.As(err, &no) || no.Reason != enrol.Stopping {
		t.Error(err)
	}
}

func TestEndsWithItsDevice(t *testing.T) {
	r := start(t, Config{})
	r.agent.tunnel.Device().Close()
	select {
	case <-r.done:
		if err := r.stop(); err == nil || errors.Is(err, ErrIdle) || !strings.Contains(err.Error(), "the WireGuard device has ended") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on without WireGuard")
	}
}

// What others in the pod may send to the control port does no harm.
func TestHostileRequests(t *testing.T) {
	r := start(t, Config{MaxNodes: 2})
	port := serveEcho(t, "127.0.0.1")
	w := r.join("ann", annNode, annAgent, loopTwins)
	for name, text := range map[string]string{
		"HTTP":            "POST /enrol HTTP/1.1\r\nHost: localhost\r\n\r\n{}",
		"an endless line": strings.Repeat("a", 1<<20),
		"deep nesting":    strings.Repeat(`{"a":`, 6000) + "\n",
		"no request":      "{}\n",
	} {
		c, err := net.Dial("tcp", r.control.String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, text) // it may be closed before all is sent
		line, err := bufio.NewReader(c).ReadString('\n')
		if _, no := enrol.ParseAnswer([]byte(line)); err == nil && no == nil {
			t.Errorf("%s is answered by %q", name, line)
		}
		c.Close()
	}
	for name, pairs := range map[string]string{"metadata": "169.254.169.254/32 250.0.0.1/32", "its own address": "127.0.0.0/8 245.0.0.0/8"} {
		var no *enrol.Refusal
		if _, err := r.ask(request("eve", "ke", "245.1.2.16", "245.1.2.17", pairs)); !errors.As(err, &no) || no.Reason != enrol.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 40 { // streams that say nothing
		c, err := net.Dial("tcp", r.control.String())
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		defer c.Close()
	}
	w.reaches("tcp", at(twinOfLoop, port))
}

func TestFailsWhenItCannotListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).AddrPort().Port()
	for want, cfg := range map[string]Config{
		"carrier":    {CarrierPort: port, ControlPort: freePort(t)},
		"enrolments": {CarrierPort: freePort(t), ControlPort: port},
	} {
		_, err := New(cfg)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("or a program of the pod has port %d", port)) {
			t.Errorf("%s: %v", want, err)
		}
	}
	free := freePort(t)
	r := start(t, Config{CarrierPort: free}) // what was taken for the attempt that failed is free again
	if r.carrier.Port() != free {
		t.Error(r.carrier)
	}
}

// A pod without nameservers is served but for names.
func TestWithoutNameservers(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(empty, []byte("search cluster.local\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, filepath.Join(t.TempDir(), "none")} {
		r := start(t, Config{ResolvConf: file})
		w := r.join("ann", annNode, annAgent, loopTwins)
		w.reaches("tcp", at(twinOfLoop, serveEcho(t, "127.0.0.1")))
		if c, err := w.dial("tcp", "245.1.2.7:53"); err == nil {
			c.Close()
			t.Error("somebody answers")
		}
		w.leave()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
}
