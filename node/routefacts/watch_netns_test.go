//go:build netns && linux

package routefacts

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// twoLinks have no IPv6 addresses of their own: duplicate address detection would make news a second later.
const twoLinks = `
link set lo up
link add eth0 type veth peer name far
link set eth0 addrgenmode none
link set far addrgenmode none
link set eth0 up
link set far up
addr add 192.0.2.2/24 dev eth0
`

// running starts the watcher until the end of the test.
func running(t *testing.T, w *Watcher, err error) *Watcher {
	if err != nil {
		t.Errorf("watch: %v", err)
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the watch ended with %v", err)
		}
	})
	return w
}

// expect waits for a report.
func expect(t *testing.T, w *Watcher, what string) {
	t.Helper()
	select {
	case <-w.Changes():
	case <-time.After(10 * time.Second): // shorter than resyncEvery
		t.Errorf("no report of %s", what)
	}
}

// TestWatcherSeesEverything changes one thing after another; each is reported.
func TestWatcherSeesEverything(t *testing.T) {
	inNamespace(t, func() {
		ip(t, twoLinks)
		w, err := NewWatcher(policy.Own{Table: 7830})
		if running(t, w, err) == nil {
			return
		}
		for _, step := range []string{
			"route add 10.0.0.0/8 dev eth0", "route change 10.0.0.0/8 dev eth0 mtu 1300", "route del 10.0.0.0/8", "-6 route add fd00:1::/48 dev eth0",
			"route add blackhole 10.0.0.0/8 table 52", "rule add lookup 52 priority 5270", "rule del priority 5270", "-6 rule add lookup 52 priority 5270",
			"addr add 192.0.2.3/24 dev eth0", "-6 addr add 2001:db8::2/64 dev eth0 nodad", "addr del 192.0.2.3/24 dev eth0", "nexthop add id 1 via 192.0.2.1 dev eth0",
			"link set eth0 mtu 1400", "link add br0 type bridge", "link set far master br0", "link set eth0 down", "link del br0",
			"route add throw 10.9.0.0/16 table 7830",
		} {
			words, option := strings.TrimPrefix(step, "-6 "), "-4"
			if words != step {
				option = "-6"
			}
			ip(t, words, option)
			expect(t, w, step)
		}
	})
}

// TestWatcherKnowsItsOwn: what we add is no news, what anybody deletes of it is.
func TestWatcherKnowsItsOwn(t *testing.T) {
	inNamespace(t, func() {
		ip(t, twoLinks)
		w, err := NewWatcher(policy.Own{Table: 7830})
		if err != nil {
			t.Error(err)
			return
		}
		news, steers := make(chan string, 100), w.steers
		w.steers = func(kind uint16, m []byte) bool {
			yes := steers(kind, m)
			if yes && tableOf(kind, m) == 7830 {
				news <- fmt.Sprint(kind)
			}
			return yes
		}
		running(t, w, nil)
		ip(t, `
route add 10.130.0.0/16 dev eth0 table 7830 proto 202
route add throw 10.130.4.0/24 table 7830 proto 202
rule add lookup 7830 priority 5000 protocol 202
rule del lookup 7830 priority 5000 protocol 202
route del 10.130.0.0/16 table 7830
`)
		for _, want := range []int{unix.RTM_DELRULE, unix.RTM_DELROUTE} {
			select {
			case got := <-news:
				if got != fmt.Sprint(want) {
					t.Errorf("message %s is news, want %d", got, want)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("message %d is no news", want)
			}
		}
	})
}

// tableOf returns the table that a route or rule in a message is about; 0 for other messages.
func tableOf(kind uint16, m []byte) uint32 {
	switch kind {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		var r policy.Route
		_, _ = new(routeDecoder).decode(m, &r)
		return r.Table
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		r, _ := decodeRule(m)
		return r.Table
	}
	return 0
}

// TestWatcherMergesABurst: a thousand routes are few reports, and the last comes after all of them.
func TestWatcherMergesABurst(t *testing.T) {
	inNamespace(t, func() {
		ip(t, twoLinks)
		w, err := NewWatcher(policy.Own{})
		if running(t, w, err) == nil {
			return
		}
		var script strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&script, "route add 10.%d.%d.0/24 dev eth0\n", i/250, i%250)
		}
		ip(t, script.String())
		last := netip.MustParsePrefix("10.3.249.0/24")
		for reports := 1; ; reports++ {
			expect(t, w, "a burst")
			facts, err := Read(context.Background())
			if err != nil || reports > 20 || t.Failed() {
				t.Errorf("%d reports, the last route still missing, error %v", reports, err)
				return
			}
			for _, r := range facts.Routes {
				if r.Prefix == last {
					return
				}
			}
		}
	})
}

// TestWatcherSurvivesAnOverrun fills the socket before anybody reads it. Nothing that is in it counts as
// news here; that something was lost does.
func TestWatcherSurvivesAnOverrun(t *testing.T) {
	inNamespace(t, func() {
		ip(t, twoLinks)
		w, err := NewWatcher(policy.Own{Table: 7830})
		if err != nil {
			t.Error(err)
			return
		}
		if err := unix.SetsockoptInt(int(w.socket.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096); err != nil {
			t.Error(err)
		}
		if err := unix.SetNonblock(int(w.socket.Fd()), true); err != nil { // which Fd undoes
			t.Error(err)
		}
		var script strings.Builder
		for i := range 200 {
			fmt.Fprintf(&script, "route add throw 10.0.%d.0/24 table 7830 proto 202\n", i)
		}
		ip(t, script.String())
		var reading atomic.Bool
		w.steers = func(uint16, []byte) bool { return reading.Load() }
		running(t, w, nil)
		expect(t, w, "the overrun")
		reading.Store(true)
		ip(t, "route add 10.0.0.0/8 dev eth0")
		expect(t, w, "a route after the overrun")
	})
}

// TestWithoutPrivilege: the user half may read and watch routes, not IPsec policies.
func TestWithoutPrivilege(t *testing.T) {
	inNamespace(t, func() {
		ip(t, twoLinks)
		const nobody = 65534
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); e != 0 { // of this thread alone, which ends with the test
			t.Error(e)
			return
		}
		facts, err := Read(context.Background())
		if err != nil || linkNamed(facts, "eth0").Index == 0 {
			t.Errorf("read %+v, error %v", facts, err)
		}
		w, err := NewWatcher(policy.Own{})
		if err != nil {
			t.Errorf("watch: %v", err)
		} else {
			w.Close()
		}
		if p, _, err := ReadIPsec(context.Background()); !errors.Is(err, os.ErrPermission) || p != nil {
			t.Errorf("read IPsec policies %v, error %v", p, err)
		}
		if _, err := NewIPsecWatcher(); !errors.Is(err, os.ErrPermission) {
			t.Errorf("watch IPsec policies: %v", err)
		}
	})
}
