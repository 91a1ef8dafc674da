//go:build lab

package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

func TestGatewayPodDeletedDuringATransfer(t *testing.T) {
	l := shared
	l.connect(t, allowFlags...)
	var transfer sync.WaitGroup
	transfer.Go(func() { l.Labnet(30*time.Second, "down", "--duration", "5s", "echo.default:7011") })
	defer transfer.Wait()
	time.Sleep(time.Second) // the transfer is under way
	must(t, l.Kubectl("-n", "culvert", "delete", "pod", "culvert-gateway-0", "--wait=false"), "delete the gateway's pod")
	begin := time.Now()
	time.Sleep(time.Second) // the old pod may still answer
	eventually(t, 10*time.Second, "new connections after the gateway's pod was deleted", func() error {
		return l.WS(3*time.Second, "curl", "-sS", "--fail", "--max-time", "1", "http://echo.default/").OK()
	})
	t.Logf("a new connection %s after the pod was deleted", time.Since(begin).Round(10*time.Millisecond))
}

func TestPeerDeletedByAnAdministrator(t *testing.T) {
	l := shared
	before := l.snapshot(t)
	l.connect(t, allowFlags...)
	peer := l.status(t).Peer.Name
	must(t, l.Kubectl("-n", "culvert", "delete", "peer", peer, "--wait=false"), "delete the Peer")
	took := eventually(t, 2*time.Second, "cut off", func() error {
		if r := l.WS(time.Second, "curl", "-s", "--max-time", "0.3", "http://"+l.EchoIP+"/"); r.Code == 0 {
			return errors.New("still connected")
		}
		return nil
	})
	t.Logf("cut off %s after the Peer was deleted", took.Round(time.Millisecond))
	eventually(t, 2*time.Second, "status says why", func() error {
		r := l.WS(5*time.Second, "culvert", "status")
		if r.Code == 0 || !strings.Contains(r.Out, "deleted in the cluster") {
			return errors.New(r.String())
		}
		return nil
	})
	l.unchanged(t, before)
	time.Sleep(5 * time.Second) // were it to reconnect, it would have by now
	if r := l.Kubectl("-n", "culvert", "get", "peers", "-o", "name"); strings.TrimSpace(r.Out) != "" {
		t.Errorf("a Peer is there again: %s", r)
	}
	l.unchanged(t, before)
}

// drop makes the company's edge drop all packets between the workstation and the API server, in
// silence; the VPN itself stays up.
const drop = `table inet blackhole { chain forward { type filter hook forward priority -300; ip daddr 10.50.0.11 drop; ip saddr 10.50.0.11 drop; }; }`

func TestBlackHole(t *testing.T) {
	l := shared
	l.connect(t, allowFlags...)
	var session sync.WaitGroup
	var lived labctl.Result
	session.Go(func() {
		lived = l.Labnet(3*time.Minute, "session", "--duration", "125s", "--timeout", "120s", l.EchoIP+":7000")
	})
	time.Sleep(2 * time.Second) // the session has echoed a few times
	must(t, l.Host(10*time.Second, "vpn", "nft", drop), "drop all packets")
	time.Sleep(60 * time.Second)
	must(t, l.Host(10*time.Second, "vpn", "nft", "delete table inet blackhole"), "let packets through")
	took := eventually(t, 15*time.Second, "traffic flows again", func() error {
		return l.WS(3*time.Second, "curl", "-sS", "--fail", "--max-time", "1", "http://"+l.EchoIP+"/").OK()
	})
	t.Logf("traffic flows %s after the path is back", took.Round(10*time.Millisecond))
	session.Wait()
	must(t, lived, "a TCP connection from before")
}

func TestKill(t *testing.T) {
	l := shared
	for _, victim := range []string{"node", "helper", "guard"} {
		t.Run(victim, func(t *testing.T) {
			before := l.snapshot(t)
			l.connect(t, allowFlags...)
			pids := l.status(t).Processes
			pid := map[string]int{"node": pids.Node, "helper": pids.Helper, "guard": pids.Guard}[victim]
			if pid == 0 {
				t.Fatalf("status does not know the process id of the %s: %+v", victim, pids)
			}
			must(t, l.WS(5*time.Second, "kill", "-9", strconv.Itoa(pid)), "kill -9")
			if victim == "guard" {
				l.guardReplaced(t, pid)
				return
			}
			took := eventually(t, time.Second, "host restored", func() error {
				if diff := lineDiff(before, l.snapshot(t)); diff != "" {
					return errors.New(diff)
				}
				return nil
			})
			t.Logf("restored %s after the %s was killed, as seen by snapshots", took.Round(time.Millisecond), victim)
			l.othersAnswer(t)
		})
	}
}

// guardReplaced checks that the helper has started another guard, and that nothing else happened.
func (l *lab) guardReplaced(t *testing.T, old int) {
	t.Helper()
	eventually(t, 15*time.Second, "a new guard", func() error {
		s := l.status(t)
		if s.State != "connected" || s.Processes.Guard == 0 || s.Processes.Guard == old {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	must(t, l.curl("http://echo.default/"), "GET with a new guard")
}
