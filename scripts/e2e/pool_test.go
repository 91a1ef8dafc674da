//go:build lab

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// smallPoolFlags have the pods behind a pool of 4,096 addresses and the services where they are.
var smallPoolFlags = []string{"--virtual-ip-subnet", smallSubnet, "--proxy-via", "pods=gateway", "--allow-conflicting-subnets", "10.130.0.0/16"}

// quarantine is how long an address that nobody uses any more is given to no other host.
const quarantine = 2 * time.Minute

// Names of endpoints, more than a small pool has addresses, and the address of the first.
const (
	manyNames = 6000
	manyFirst = "10.132.128.0"
	earlyOnes = 200 // of them go on to be used
)

// TestSmallPool has more names than virtual addresses: every answer leads to its own endpoint, what goes
// without is the new name only, and addresses that nobody uses any more go to others, not too early.
//
//	6,000 names ──► 4,094 VIPs ──► culvert0 ══► gateway ──► 10.132.128.0/19: node1, which tells where it was reached
func TestSmallPool(t *testing.T) {
	l := shared
	l.nodeAnswers(t, "10.132.128.0/19")
	l.headless(t, "many", consecutive(manyFirst, manyNames))
	l.widenLimits(t, smallSubnet)
	l.connect(t, smallPoolFlags...)
	begin := time.Now()
	eventually(t, 30*time.Second, "the cluster's resolver knows the names", func() error {
		return l.WS(5*time.Second, "getent", "ahostsv4", endpoint("many", 0)).OK()
	})

	first := l.reach(t, reachAll{service: "many", first: manyFirst, count: manyNames})
	failed := l.onlyNewNamesFail(t, first)
	t.Logf("%d of %d names have an address, all of %.0f a second were right", first.OK, manyNames, float64(first.OK)/first.Seconds)
	l.saysExhausted(t, failed[0])
	early := l.earlyGoOn(t, nil)

	stream := l.stream(t, hostPort(early[0], 7000))
	took := eventually(t, quarantine+30*time.Second, "an address for one more name", func() error {
		vips := l.WS(5*time.Second, "dig", "+short", "+tries=1", "+time=3", endpoint("many", failed[0]))
		if !strings.Contains(vips.Out, "211.55.") {
			return fmt.Errorf("%s", vips)
		}
		return nil
	})
	t.Logf("one more name has an address after %s, %s after the first was given", took.Round(time.Second), time.Since(begin).Round(time.Second))
	if time.Since(begin) < quarantine {
		t.Errorf("an address went to another host %s after its first use, want %s", time.Since(begin), quarantine)
	}
	l.reclaimed(t, failed, l.earlyGoOn(t, early))
	stream.finish(t)
}

// onlyNewNamesFail checks the first round: as many names as there are addresses lead to their own
// endpoints, each by an address of its own, and the others are not resolved, which is all that is wrong
// with them. It returns the numbers of those.
func (l *lab) onlyNewNamesFail(t *testing.T, n names) (failed []int) {
	t.Helper()
	pool := netip.MustParsePrefix(smallSubnet)
	given := map[string]int{}
	for i, vip := range n.Answers {
		switch other, twice := given[vip]; {
		case vip == "":
			failed = append(failed, i)
		case twice:
			t.Fatalf("%s stands for both e%d and e%d", vip, other, i)
		case !within(vip, []netip.Prefix{pool}):
			t.Fatalf("e%d is at %s, want an address in %s", i, vip, pool)
		default:
			given[vip] = i
		}
	}
	const refused = "lookup: server misbehaving" // Go's word for SERVFAIL
	if n.OK < 4000 || n.OK != len(given) || n.Failed != len(failed) || n.Errors[refused] != n.Failed || n.Failed == 0 {
		t.Fatalf("of %d names %d have an address: %d answered, %d failed, %v", manyNames, len(given), n.OK, n.Failed, n.Errors)
	}
	return failed
}

// saysExhausted checks what a program, and a person, is told of a name that got no address.
func (l *lab) saysExhausted(t *testing.T, number int) {
	t.Helper()
	r := l.WS(10*time.Second, "dig", "+tries=1", "+time=5", endpoint("many", number))
	if !strings.Contains(r.Out, "SERVFAIL") || !strings.Contains(r.Out, "EDE: ") || !strings.Contains(r.Out, "virtual") {
		t.Errorf("a name without an address: want SERVFAIL with an extended error: %s", r)
	}
	eventually(t, 15*time.Second, "the status says so", func() error {
		for _, w := range l.status(t).Warnings {
			if strings.Contains(w, "degraded") && strings.Contains(w, "virtual addresses") {
				return nil
			}
		}
		return errors.New("it warns of nothing")
	})
	must(t, l.curl("http://echo.default/"), "GET a service beside the exhausted pool", "pod")
}

// earlyGoOn checks that the first names lead where they did, now over UDP, by the same addresses, which it
// returns.
func (l *lab) earlyGoOn(t *testing.T, before []string) []string {
	t.Helper()
	n := l.reach(t, reachAll{service: "many", first: manyFirst, count: earlyOnes, network: "udp"})
	if n.OK != earlyOnes || before != nil && !slices.Equal(n.Answers, before) {
		t.Fatalf("of the first %d names: %d answered, %v; they are at\n%v, before at\n%v", earlyOnes, n.OK, n.Errors, n.Answers, before)
	}
	return n.Answers
}

// reclaimed checks that the names that had no address have one each, and none that is in use.
func (l *lab) reclaimed(t *testing.T, failed []int, inUse []string) {
	t.Helper()
	from, count := failed[0], failed[len(failed)-1]-failed[0]+1
	var late names
	eventually(t, time.Minute, "addresses for the names that had none", func() error {
		if late = l.reach(t, reachAll{service: "many", first: manyFirst, from: from, count: count}); late.Failed > 0 {
			return fmt.Errorf("of %d names %d have one: %v", count, late.OK, late.Errors)
		}
		return nil
	})
	for i, vip := range late.Answers {
		if slices.Contains(inUse, vip) {
			t.Errorf("e%d has got %s, which e%d uses", from+i, vip, slices.Index(inUse, vip))
		}
	}
	t.Logf("%d more names have an address, and all were right", late.OK)
}
