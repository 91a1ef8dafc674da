//go:build netns

package helper

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// randomState is some state for the kernel to be brought to.
func randomState(rng *rand.Rand) hostnet.State {
	open, s := testState("1")
	s.Interface, s.Routes, s.MTU = "culvert5", nil, 1280+rng.IntN(3)
	s.Priority = hostnet.Priority{V4: 5000 * rng.IntN(3), V6: 5000 * rng.IntN(3)}
	s.SkipMarks = hostnet.SkipMarks{V4: randomMarks(rng), V6: randomMarks(rng)}
	s.Addresses = open.Addresses[:1+rng.IntN(2)]
	for i := range 10 {
		for _, text := range []string{fmt.Sprintf("10.%d.0.0/16", i), fmt.Sprintf("fd10:%d::/64", i)} {
			p := netip.MustParsePrefix(text)
			if p.Addr().Is4() || len(s.Addresses) == 2 {
				if rng.IntN(2) == 0 {
					s.Routes = append(s.Routes, hostnet.Route{Prefix: p, Throw: rng.IntN(2) == 0})
				}
			}
		}
	}
	return s
}

// TestKernelWalksThroughRandomStates compares with what ip(8) says, beside things that other programs
// have in the same places.
func TestKernelWalksThroughRandomStates(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	before := snapshot(t)
	host, closeHost, err := hostnet.New()
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost()
	scope := hostnet.Scope{Interface: "culvert5", Name: "walk"}
	tun, _, err := host.CreateTUN(scope)
	if err != nil {
		t.Fatal(err)
	}
	defer tun.Close()
	// Without our mark, though as alike as can be:
	sh(t, "ip rule add priority 5000 lookup 7835; ip -6 rule add priority 5000 lookup 7835")
	sh(t, "ip route add 10.99.0.0/16 dev v0 table 7835; ip -6 route add fd99::/64 dev v0 table 7835")
	for range 60 {
		want := randomState(rng)
		if _, err := hostnet.Set(t.Context(), host, scope, want); err != nil {
			t.Fatal(err)
		}
		compare(t, want)
		if again, err := hostnet.Set(t.Context(), host, scope, want); err != nil || len(again) > 0 {
			t.Fatalf("setting the same again changes %v (%v)", again, err)
		}
	}
	if _, err := hostnet.Remove(host, scope); err != nil {
		t.Fatal(err)
	}
	sh(t, "ip rule del priority 5000; ip -6 rule del priority 5000; ip route del 10.99.0.0/16 table 7835; ip -6 route del fd99::/64 table 7835")
	restoredWithin(t, before, time.Second)
}

// compare asks ip(8) what is there.
func compare(t *testing.T, want hostnet.State) {
	t.Helper()
	var routes, rules []string
	for _, r := range want.Routes {
		line := r.Prefix.String() + " dev culvert5"
		if r.Throw {
			line = "throw " + r.Prefix.String()
		}
		routes = append(routes, line)
	}
	for i, p := range []int{want.Priority.V4, want.Priority.V6} {
		if p != 0 {
			rules = append(rules, fmt.Sprintf("-%d %d", 4+2*i, p))
		}
	}
	have := strings.Split(sh(t, `for f in 4 6; do
		ip -$f route show table 7835 proto 202 | sed -E 's/^(throw )?([^ ]+) dev lo.*/\1\2/; s/^(throw [^ ]+).*/\1/; s/^([^ ]+ dev [^ ]+).*/\1/'; done`), "\n")
	checkSame(t, "routes", have, routes)
	have = strings.Split(sh(t, `for f in 4 6; do ip -$f rule show | sed -nE "s/^([0-9]+):.*lookup 7835 proto 202.*/-$f \1/p"; done`), "\n")
	checkSame(t, "rules", have, rules)
	if out := sh(t, "ip route show table 7835; ip -6 route show table 7835"); !strings.Contains(out, "10.99.0.0/16 dev v0") || !strings.Contains(out, "fd99::/64 dev v0") {
		t.Errorf("another program's routes are gone:\n%s", out)
	}
	if out := sh(t, "ip rule; ip -6 rule"); strings.Count(out, "5000:\tfrom all lookup 7835 \n")+strings.Count(out, "5000:\tfrom all lookup 7835\n") != 2 {
		t.Errorf("another program's rules are gone:\n%s", out)
	}
}

// checkSame compares without regard to order and empty lines.
func checkSame(t *testing.T, what string, have, want []string) {
	t.Helper()
	have = slices.DeleteFunc(have, func(s string) bool { return s == "" })
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Fatalf("%s\n%q, want\n%q", what, have, want)
	}
}
