//go:build lab

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// freshSubnet is a small virtual subnet of which other scenarios have leased nothing.
const freshSubnet = "211.55.64.0/20"

// TestVirtualAddressesLikeRealOnes: what programs meet at the edges is the same by a virtual address:
// large datagrams, closed ports, addresses where nobody is, hop limits that run out.
//
//	ws ──► VIP (of a twin, or leased) ──► culvert0 ══► gateway ──► echo pod
func TestVirtualAddressesLikeRealOnes(t *testing.T) {
	l := shared
	l.widenLimits(t, freshSubnet)
	for _, x := range []struct {
		name  string
		flags []string
	}{
		{"twins", virtualFlags},
		{"pool", append([]string{"--virtual-ip-subnet", freshSubnet}, virtualFlags...)},
	} {
		t.Run(x.name, func(t *testing.T) {
			l.connect(t, x.flags...)
			pods := l.vips(t, "A", "echo-headless.default.svc.cluster.local")
			if len(pods) == 0 || !within(pods[0], l.virtualSubnets(t)) {
				t.Fatalf("echo-headless is at %v", pods)
			}
			l.likeReal(t, pods[0])
			if x.name == "pool" {
				l.nobodyHasLeased(t, "211.55.79.250")
			}
		})
	}
}

// likeReal checks a virtual address of an echo pod.
func (l *lab) likeReal(t *testing.T, vip string) {
	t.Helper()
	for _, size := range []int{1, 1200, 9000, 25000} { // the larger ones in fragments
		must(t, l.Labnet(time.Minute, "udp", "--size", fmt.Sprint(size), "--count", "5", hostPort(vip, 7000)), fmt.Sprintf("UDP of %d bytes", size), `"lost":0`)
	}
	must(t, l.Labnet(time.Minute, "put", "--size", "3000000", "--count", "1", "http://"+hostPort(vip, 8080)+"/upload"), "PUT of 3 MB")
	if r := l.dial(vip, 8099); !strings.Contains(r.Err, "refused") || r.Took > 2*time.Second {
		t.Errorf("a closed TCP port is not refused: %s", r)
	}
	const askUDP = "exec 3<>/dev/udp/$0/8099; echo >&3; read -t 3 -u 3"
	if r := l.WS(10*time.Second, "bash", "-c", askUDP, vip); !strings.Contains(r.Err, "refused") || r.Took > 2*time.Second {
		t.Errorf("a closed UDP port is not refused: %s", r)
	}
	must(t, l.WS(10*time.Second, "ping", "-n", "-c", "1", "-s", "4000", "-W", "3", vip), "ping in fragments", " 0% packet loss")
	if r := l.WS(10*time.Second, "ping", "-n", "-c", "1", "-t", "1", "-W", "3", vip); !strings.Contains(r.Out, "Time to live exceeded") {
		t.Errorf("a hop limit of 1 does not run out: %s", r)
	}
}

// nobodyHasLeased checks that an address of the pool that stands for nothing is unreachable at once.
func (l *lab) nobodyHasLeased(t *testing.T, vip string) {
	t.Helper()
	r := l.dial(vip, 80)
	if r.Code == 0 || !strings.Contains(r.Err, "No route to host") && !strings.Contains(r.Err, "unreachable") || r.Took > time.Second {
		t.Errorf("connecting to %s, which nobody has leased: want unreachable at once: %s", vip, r)
	}
	r = l.WS(10*time.Second, "ping", "-n", "-c", "1", "-W", "5", vip)
	if !strings.Contains(r.Out, "Unreachable") {
		t.Errorf("ping of %s, which nobody has leased: %s", vip, r)
	}
}
