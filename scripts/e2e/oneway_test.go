//go:build lab

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestNothingOpensAConnectionToTheWorkstation tries from a pod, and from the gateway's own pod with
// packets of its choosing, to reach the workstation's overlay address.
func TestNothingOpensAConnectionToTheWorkstation(t *testing.T) {
	l := shared
	l.connect(t, allowFlags...)
	overlay := l.status(t).Peer.Addresses[0]
	stop := l.serveOnWorkstation(t)
	defer stop()
	must(t, l.Labnet(10*time.Second, "pingpong", "--count", "1", overlay+":7000"), "the server answers on the workstation itself")
	pod := l.echoPodName(t)
	for _, try := range [][]string{
		{"pingpong", "--count", "1", "--timeout", "3s", overlay + ":7000"},
		{"udp", "--count", "1", "--timeout", "3s", overlay + ":7000"},
		{"http", "--count", "1", "--timeout", "3s", "http://" + overlay + ":8080/"},
	} {
		r := l.Kubectl(append([]string{"exec", pod, "--", "/labnet"}, try...)...)
		if r.Code == 0 {
			t.Errorf("from a pod: labnet %s reaches the workstation: %s", strings.Join(try, " "), r)
		}
	}
}

func (l *lab) echoPodName(t *testing.T) string {
	t.Helper()
	r := l.Kubectl("get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[0].metadata.name}")
	must(t, r, "find an echo pod")
	return strings.TrimSpace(r.Out)
}
