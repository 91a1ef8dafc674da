//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// verdicts returns what the latest probes showed, by prefix.
func (l *lab) verdicts(t *testing.T) map[string]string {
	t.Helper()
	var s struct {
		Reach []struct{ Prefix, Verdict string }
	}
	r := l.WS(10*time.Second, "culvert", "status", "-o", "json")
	if err := json.Unmarshal([]byte(r.Out), &s); err != nil {
		t.Fatalf("culvert status -o json: %v\n%s", err, r)
	}
	out := map[string]string{}
	for _, x := range s.Reach {
		out[x.Prefix] = x.Verdict
	}
	return out
}

// proves waits until the probes show what is wanted of the services and the pods.
func (l *lab) proves(t *testing.T, limit time.Duration, services, pods string) {
	t.Helper()
	took := eventually(t, limit, "services "+services+", pods "+pods, func() error {
		if v := l.verdicts(t); v["10.130.0.0/16"] != services || v["10.132.0.0/16"] != pods {
			return fmt.Errorf("probes show %v", v)
		}
		return nil
	})
	t.Logf("services %s, pods %s after %s", services, pods, took.Round(time.Millisecond))
}

// TestFirewallOfAnotherProgram: a firewall that drops what goes to the pods is named, nothing is done
// against it, and when it goes the warning goes.
func TestFirewallOfAnotherProgram(t *testing.T) {
	l := shared
	const firewall = "add table inet other; add chain inet other out { type filter hook output priority 0; }; " +
		"add rule inet other out ip daddr 10.132.0.0/16 drop"
	must(t, l.WS(5*time.Second, "nft", firewall), "a firewall")
	removed := false
	remove := func() {
		if !removed {
			must(t, l.WS(5*time.Second, "nft", "delete table inet other"), "remove the firewall")
		}
		removed = true
	}
	t.Cleanup(remove)
	ours := func() string {
		r := l.WS(5*time.Second, "sh", "-c", "ip rule; ip route show table 7830; nft list table inet other")
		must(t, r, "look at the host")
		return r.Out
	}
	l.connect(t, allowFlags...)
	before := ours()
	l.proves(t, 10*time.Second, "working", "blocked")
	if r := l.WS(5*time.Second, "culvert", "status"); !strings.Contains(r.Out, "10.132.0.0/16: ") || !strings.Contains(r.Out, "firewall") {
		t.Errorf("status does not name the firewall: %s", r)
	}
	if got := ours(); got != before {
		t.Errorf("something was done against the firewall:\n%s", lineDiff(before, got))
	}
	remove()
	l.proves(t, 20*time.Second, "working", "working")
	must(t, l.WS(5*time.Second, "nft", firewall), "the firewall again, as it was before")
	removed = false
}
