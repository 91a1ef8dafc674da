//go:build lab

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// team gives the cluster's Policy a spec for the length of the test, as an administrator with kubectl does.
func (l *lab) team(t *testing.T, spec string) {
	t.Helper()
	t.Cleanup(func() { must(t, l.patchTeam(`{}`), "take the spec away") })
	must(t, l.patchTeam(spec), "edit the Policy")
}

// patchTeam replaces the spec of the Policy.
func (l *lab) patchTeam(spec string) labctl.Result {
	return l.Kubectl("-n", "culvert", "patch", "policy", "default", "--type", "json",
		"-p", `[{"op":"add","path":"/spec","value":`+spec+`}]`)
}

// follows is the bound on how long a connected workstation takes to follow an edited Policy.
const follows = 5 * time.Second

// leadsTo waits until packets to addr leave by dev, and prints how long that took.
func (l *lab) leadsTo(t *testing.T, limit time.Duration, addr, dev string) {
	t.Helper()
	took := eventually(t, limit, addr+" by "+dev, func() error {
		if r := l.WS(5*time.Second, "ip", "route", "get", addr); !strings.Contains(r.Out, " dev "+dev+" ") {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	t.Logf("%s leads to %s after %s", addr, dev, took.Round(time.Millisecond))
}

// warns waits until the status has a warning with these words.
func (l *lab) warns(t *testing.T, words string) {
	t.Helper()
	eventually(t, follows, "the warning "+words, func() error {
		if r := l.WS(5*time.Second, "culvert", "status", "-o", "json"); !strings.Contains(r.Out, words) {
			return fmt.Errorf("%s", r.Out)
		}
		return nil
	})
}

const (
	aService = "10.130.0.1"
	aPod     = "10.132.0.4"
)

// TestPolicyEditedWhileConnected walks a connected workstation through what a team may do to its Policy.
func TestPolicyEditedWhileConnected(t *testing.T) {
	l := shared
	l.team(t, `{"routing":{"allowConflictingSubnets":["10.130.0.0/16","10.132.0.0/16"]}}`)
	home := t.TempDir()
	before := l.snapshot(t)
	t.Cleanup(func() {
		must(t, l.WS(30*time.Second, "culvert", "quit"), "quit")
		l.unchanged(t, before)
	})
	must(t, l.WSEnv(time.Minute, []string{"HOME=" + home}, "culvert", "connect", "--trust-policy"), "connect --trust-policy")
	l.leadsTo(t, time.Second, aPod, "culvert0")

	// Less is followed without a question, and what is given back goes to the VPN.
	must(t, l.patchTeam(`{"routing":{"allowConflictingSubnets":["10.130.0.0/16"],"onConflict":"yield"}}`), "give the pods back")
	l.leadsTo(t, follows, aPod, "tun0")
	l.leadsTo(t, time.Second, aService, "culvert0")
	must(t, l.curl("http://10.20.0.80/"), "GET corp")

	// A name of the cluster that leads into what is the VPN's now is withheld, with the reason.
	r := l.WS(10*time.Second, "dig", "+tries=1", "+time=5", "echo-headless.default.svc.cluster.local")
	if !strings.Contains(r.Out, "SERVFAIL") || !strings.Contains(r.Out, "EDE: 17") || !strings.Contains(r.Out, "OpenVPN on tun0") {
		t.Errorf("a withheld name: want SERVFAIL with the extended error: %s", r)
	}
	must(t, l.curl("http://echo.default/"), "GET by the name of a service")

	// More waits for consent; what was followed stays in force.
	must(t, l.patchTeam(`{"routing":{"allowConflictingSubnets":["10.0.0.0/8"]}}`), "take all of the VPN's")
	l.warns(t, "you have not agreed to what it asks for now")
	l.leadsTo(t, time.Second, aPod, "tun0")

	// Nonsense is refused by the API server, and changes nothing.
	if r := l.patchTeam(`{"routing":{"onConflict":"win"}}`); r.Code == 0 || !strings.Contains(r.Err, "onConflict") {
		t.Errorf("a Policy with an unknown word: %s", r)
	}
	l.leadsTo(t, time.Second, aService, "culvert0")

	// What was agreed to once is followed again, at once.
	must(t, l.patchTeam(`{"routing":{"allowConflictingSubnets":["10.130.0.0/16","10.132.0.0/16"]}}`), "as in the beginning")
	l.leadsTo(t, follows, aPod, "culvert0")
	must(t, l.curl("http://echo.default/"), "GET by the name of a service")
}

// TestEnforcedKeyCannotBeLoosened: a flag beyond what the team enforces is refused, a file is cut back and
// says so, and less than the team allows is the user's right.
func TestEnforcedKeyCannotBeLoosened(t *testing.T) {
	l := shared
	l.team(t, `{"routing":{"allowConflictingSubnets":["10.130.0.0/16"],"onConflict":"yield"},"enforce":["routing.allowConflictingSubnets"]}`)
	before := l.snapshot(t)
	r := l.WS(time.Minute, append([]string{"culvert", "connect", "--trust-policy"}, allowFlags...)...)
	if r.Code != 7 || !strings.Contains(r.Err, "10.128.0.0/9") || !strings.Contains(r.Err, "routing.allowConflictingSubnets") {
		t.Fatalf("a flag beyond an enforced key: want exit code 7 naming both: %s", r)
	}
	l.unchanged(t, before)
	file := t.TempDir() + "/culvert.yaml"
	writeFile(t, file, "routing:\n  allowConflictingSubnets: [10.128.0.0/9]\n")
	l.connect(t, "--trust-policy", "-f", file)
	l.leadsTo(t, time.Second, aService, "culvert0")
	l.leadsTo(t, time.Second, aPod, "tun0")
	l.warns(t, "10.128.0.0/9")
}

// TestAPIServerInsideOurs has the tunnel take the prefix around the API server, which carries the tunnel:
// its own packets must not enter it.
func TestAPIServerInsideOurs(t *testing.T) {
	l := shared
	l.connect(t, "--also-proxy", "10.50.0.0/24", "--allow-conflicting-subnets", "10.50.0.0/24,10.128.0.0/9")
	l.leadsTo(t, time.Second, "10.50.0.99", "culvert0")
	l.leadsTo(t, time.Second, "10.50.0.11", "tun0")
	redials := l.status(t).Carrier.Redials
	for begin := time.Now(); time.Since(begin) < 12*time.Second; { // more than two of the carrier's echoes
		must(t, l.curl("http://echo.default/"), "GET by the name of a service")
		time.Sleep(500 * time.Millisecond)
	}
	if s := l.status(t); s.State != "connected" || s.Carrier.Redials != redials {
		t.Errorf("state %s, redialled %d times before and %d times after", s.State, redials, s.Carrier.Redials)
	}
	must(t, l.Kubectl("get", "nodes"), "the API server answers")
}
