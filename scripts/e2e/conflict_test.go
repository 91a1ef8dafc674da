//go:build lab

package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestConflictIsReportedAndNothingChanged(t *testing.T) {
	l := shared
	before := l.snapshot(t)
	r := l.WS(time.Minute, "culvert", "connect")
	if r.Code != 3 {
		t.Fatalf("culvert connect under a VPN that routes the cluster: want exit code 3: %s", r)
	}
	for _, want := range []string{"10.130.0.0/16", "10.132.0.0/16", "tun0", "10.0.0.0/8", "OpenVPN", "--allow-conflicting-subnets"} {
		if !strings.Contains(r.Err, want) {
			t.Errorf("the report does not name %q:\n%s", want, r.Err)
		}
	}
	l.unchanged(t, before)
}
