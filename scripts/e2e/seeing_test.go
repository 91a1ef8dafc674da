//go:build lab

package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// says fails the test unless a command ended with code and its output has all of want.
func says(t *testing.T, r labctl.Result, code int, want ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("want exit code %d: %s", code, r)
	}
	for _, text := range want {
		if !strings.Contains(r.Out+r.Err, text) {
			t.Errorf("%q is not said: %s", text, r)
		}
	}
}

// ask runs a command of culvert as a user without privilege.
func (l *lab) ask(t *testing.T, args ...string) labctl.Result {
	t.Helper()
	return l.Dev(time.Minute, append([]string{"env", "HOME=/nonexistent", l.culvertForAll(t)}, args...)...)
}

// why asks `culvert why` in JSON.
func (l *lab) why(t *testing.T, target string) (w struct {
	InForce bool
	Trace   struct {
		Addresses []string
		Lookups   []struct {
			Source    string
			Questions []struct {
				Rcode  string
				Errors []struct{ Code int }
			}
		}
	}
	Addresses []struct {
		Addr, Outcome, Interface string
		Kernel                   struct{ Interface string }
	}
}) {
	t.Helper()
	r := l.ask(t, "why", target, "-o", "json")
	if err := json.Unmarshal([]byte(r.Out), &w); err != nil {
		t.Fatalf("culvert why %s: %v: %s", target, err, r)
	}
	return w
}

// TestPlanWithoutAConnection: what connect would do is told before, without root and without a change.
func TestPlanWithoutAConnection(t *testing.T) {
	l := shared
	before := l.snapshot(t)
	defer l.unchanged(t, before)
	says(t, l.ask(t, "plan"), 3, "10.130.0.0/16  services  inside 10.0.0.0/8 on tun0 (OpenVPN, table main)", "choose one:")
	says(t, l.ask(t, append([]string{"plan"}, allowFlags...)...), 0, "connecting would come to this", "10.132.0.0/16", "through the tunnel", "IPv4  priority")
	says(t, l.ask(t, "plan", "--diff", "--on-conflict", "yield"), 0, "+ yielded: 10.130.0.0/16")
	says(t, l.ask(t, append([]string{"why", l.EchoIP}, allowFlags...)...), 0, "goes through the tunnel", "claimed by  10.0.0.0/8", "sends it to tun0")
	says(t, l.ask(t, "why", "echo.default"), 1, "connect first")
	says(t, l.ask(t, "policy", "show"), 0, "Policy culvert/default", "10.130.0.0/16")
	says(t, l.ask(t, "config", "explain", "transport.mtu"), 0, "transport.mtu")
}

// TestPlanAndWhyOfAConnection: everyone on the machine can ask a connection what it does, and it says
// what the kernel does.
func TestPlanAndWhyOfAConnection(t *testing.T) {
	l := shared
	l.connect(t, "--allow-conflicting-subnets", "10.130.0.0/16", "--on-conflict", "yield")
	says(t, l.ask(t, "plan"), 0, "connection default follows this plan", "10.130.0.0/16", "yielded")
	same := []string{"--allow-conflicting-subnets", "10.130.0.0/16", "--on-conflict", "yield"}
	r := l.ask(t, append([]string{"plan", "--diff"}, same...)...)
	if strings.Contains(r.Out, "through the tunnel") || r.Code != 0 {
		t.Errorf("the same flags, and other routes: %s", r)
	}
	says(t, l.ask(t, "plan", "--diff", "--allow-conflicting-subnets", "10.128.0.0/9"), 0,
		"+ 10.132.0.0/16 through the tunnel (pods", "- yielded: 10.132.0.0/16")
	w := l.why(t, "echo")
	if len(w.Addresses) != 1 || w.Addresses[0].Addr != l.EchoIP || w.Addresses[0].Outcome != "tunnel" || w.Addresses[0].Kernel.Interface != w.Addresses[0].Interface || !w.InForce {
		t.Errorf("why echo: %+v", w)
	}
	w = l.why(t, "10.20.0.80")
	if len(w.Addresses) != 1 || w.Addresses[0].Outcome != "outside" || w.Addresses[0].Kernel.Interface != "tun0" {
		t.Errorf("why 10.20.0.80: %+v", w)
	}
}

// TestWhyOfANameThatIsWithheld: the name leads into a prefix left to the VPN, and why says so.
func TestWhyOfANameThatIsWithheld(t *testing.T) {
	l := shared
	l.connect(t, "--allow-conflicting-subnets", "10.130.0.0/16", "--on-conflict", "yield")
	w := l.why(t, "echo-headless")
	found, filtered := false, false
	for _, a := range w.Addresses {
		found = found || a.Addr == l.EchoPod && a.Outcome == "yielded"
	}
	if len(w.Trace.Addresses) > 0 || !found {
		t.Errorf("why echo-headless: %+v", w)
	}
	for _, lookup := range w.Trace.Lookups {
		for _, q := range lookup.Questions {
			filtered = filtered || q.Rcode == "SERVFAIL" && len(q.Errors) > 0 && q.Errors[0].Code == 17 // RFC 8914, Filtered
		}
	}
	if !filtered {
		t.Errorf("no answer says that it is filtered: %+v", w.Trace)
	}
	says(t, l.ask(t, "why", "echo-headless"), 0, "all are withheld", "is left to another network")
}

// TestPolicyDiff compares a file with what the cluster has.
func TestPolicyDiff(t *testing.T) {
	l := shared
	path := filepath.Join(t.TempDir(), "policy.yaml")
	writeFile(t, path, "transport: {mtu: 1313}\n")
	says(t, l.WS(time.Minute, "culvert", "policy", "diff", path), 0, "+ transport.mtu: 1313")
}
