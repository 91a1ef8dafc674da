//go:build lab

package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestVirtualAddressesLast: what a name was answered with before a restart of whatever part it is answered
// with afterwards, and no other name is.
//
//	names ──► VIPs │ kill -9 │ the same │ quit, connect: other names first │ the same │ gateway pod deleted │ the same
func TestVirtualAddressesLast(t *testing.T) {
	l := shared
	l.nodeAnswers(t, "10.132.160.0/24")
	l.headless(t, "old", consecutive("10.132.160.0", 20))
	l.headless(t, "new", consecutive("10.132.160.100", 20))
	l.widenLimits(t, freshSubnet)
	t.Run("twins", func(t *testing.T) { l.last(t, virtualFlags) })
	t.Run("pool", func(t *testing.T) { l.last(t, poolFlags) })
}

func (l *lab) last(t *testing.T, flags []string) {
	t.Helper()
	before := l.snapshot(t)
	l.connect(t, flags...)
	old := l.answers(t, "old", "10.132.160.0", 20)

	must(t, l.WS(5*time.Second, "kill", "-9", strconv.Itoa(l.status(t).Processes.Node)), "kill -9 the node")
	eventually(t, 5*time.Second, "host restored", func() error {
		if diff := lineDiff(before, l.snapshot(t)); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
	l.again(t, flags)
	l.sameAnswers(t, "after kill -9", old)

	must(t, l.WS(30*time.Second, "culvert", "quit"), "culvert quit")
	l.unchanged(t, before)
	l.again(t, flags)
	for _, vip := range l.answers(t, "new", "10.132.160.100", 20) { // others ask first
		if slices.Contains(old, vip) {
			t.Errorf("%s, which an old name was answered with, has been given to a new one", vip)
		}
	}
	l.sameAnswers(t, "after quit and connect", old)

	l.restartGateway(t)
	l.sameAnswers(t, "after a restart of the gateway", old)
}

// TestGatewayRestartEndsConnections is the same end of connections by addresses of the cluster's own.
func TestGatewayRestartEndsConnections(t *testing.T) {
	shared.connect(t, allowFlags...)
	shared.restartGateway(t)
}

// again connects like connect, whose arrangements for the end are still good.
func (l *lab) again(t *testing.T, flags []string) {
	t.Helper()
	if r := l.WS(connectLimit, append([]string{"culvert", "connect"}, flags...)...); r.Code != 0 {
		t.Fatalf("culvert connect %v: %s", flags, r)
	}
}

// reachAll has count endpoints of a headless service reached by name, the first of which is at first.
type reachAll struct {
	service, first string
	from, count    int
	network        string // "" for TCP
}

// names is what `labnet reached` prints.
type names struct {
	OK, Failed int
	Seconds    float64
	Errors     map[string]int
	Answers    []string
}

func (l *lab) reach(t *testing.T, x reachAll) names {
	t.Helper()
	r := l.Labnet(5*time.Minute, "reached", "--from", strconv.Itoa(x.from), "--count", strconv.Itoa(x.count), "--parallel", "16",
		"--network", cmp.Or(x.network, "tcp"), "--first", x.first, "e%d."+x.service+".default.svc.cluster.local:7002")
	var n names
	if err := json.Unmarshal([]byte(r.Out), &n); err != nil {
		t.Fatalf("labnet reached: %v: %s", err, r)
	}
	return n
}

// answers returns the virtual addresses of all endpoints of a service, after reaching each by its name.
func (l *lab) answers(t *testing.T, service, first string, count int) []string {
	t.Helper()
	n := l.reach(t, reachAll{service: service, first: first, count: count})
	if n.OK != count {
		t.Fatalf("of %d endpoints of %s: %+v", count, service, n)
	}
	subnets := l.virtualSubnets(t)
	for i, vip := range n.Answers {
		if !within(vip, subnets) {
			t.Fatalf("%s is at %s, want an address in %v", endpoint(service, i), vip, subnets)
		}
	}
	distinct := slices.Clone(n.Answers)
	slices.Sort(distinct)
	if len(slices.Compact(distinct)) != count {
		t.Fatalf("%d endpoints of %s have %d virtual addresses", count, service, len(distinct))
	}
	return n.Answers
}

// sameAnswers checks that the old names are answered as before, the last first, and reached.
func (l *lab) sameAnswers(t *testing.T, when string, old []string) {
	t.Helper()
	for i, want := range slices.Backward(old) {
		if got := l.vips(t, "A", endpoint("old", i)); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %s is at %v, before %s", when, endpoint("old", i), got, want)
		}
	}
	l.answers(t, "old", "10.132.160.0", len(old))
}

// resetLimit is the longest time from the end of the gateway's pod until the host's connections are ended.
const resetLimit = 10 * time.Second

// restartGateway deletes the gateway's pod while the host has idle and busy TCP connections through it and
// checks that each is reset in time.
func (l *lab) restartGateway(t *testing.T) {
	t.Helper()
	pod := l.status(t).Gateway
	held := l.hold(t, "echo.default:7000")
	must(t, l.Kubectl("-n", "culvert", "delete", "pod", pod.Pod, "--wait=true"), "delete the gateway's pod")
	gone := time.Now()
	took := held.ended(t, gone)
	t.Logf("25 connections were reset, the last %s after the gateway's pod was gone", took.Round(time.Millisecond))
	eventually(t, 15*time.Second, "another gateway", func() error {
		if now := l.status(t); now.State != "connected" || now.Gateway.PublicKey == pod.PublicKey {
			return fmt.Errorf("%s through %+v", now.State, now.Gateway)
		}
		return l.WS(3*time.Second, "curl", "-sS", "--fail", "--max-time", "1", "http://echo.default/").OK()
	})
	t.Logf("a new connection %s after the gateway's pod was gone", time.Since(gone).Round(time.Millisecond))
}

// holding are connections that others are to end.
type holding struct{ *running }

// hold opens 20 idle and 5 busy connections; ended must be called.
func (l *lab) hold(t *testing.T, target string) holding {
	t.Helper()
	h := holding{l.start(t, "lab", "labnet", "hold", "--idle", "20", "--busy", "5", "--limit", "60s", target)}
	eventually(t, 10*time.Second, "25 connections", func() error {
		r := l.WS(5*time.Second, "ss", "-Htn", "state", "established", "dport = :7000")
		if n := strings.Count(r.Out, "\n"); n < 25 {
			return fmt.Errorf("%d connections: %s", n, r)
		}
		return nil
	})
	return h
}

// ended waits for the end of all and returns how long after gone the last one ended.
func (h holding) ended(t *testing.T, gone time.Time) time.Duration {
	t.Helper()
	err := h.cmd.Wait()
	var held struct {
		Connections, Ended, Hung int
		First, Last              time.Time
		Errors                   map[string]int
	}
	if json.Unmarshal(h.out.Bytes(), &held) != nil {
		t.Fatalf("labnet hold: %v: %s%s", err, &h.out, &h.err)
	}
	took := held.Last.Sub(gone)
	if held.Ended != 25 || held.Hung != 0 || held.Errors["EOF"] > 0 {
		t.Errorf("of 25 connections through the gateway's pod: %+v", held)
	}
	if took > resetLimit {
		t.Errorf("a connection was reset %s after the gateway's pod was gone, want %s", took, resetLimit)
	}
	return took
}
