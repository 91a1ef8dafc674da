//go:build lab

package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// settleLimit is the longest time from the last change that others made to routes or rules to our
// last answer to it.
const settleLimit = time.Second

// state is what decides about packets while connected, as text that depends neither on the addresses
// that a connection drew for itself nor on the numbers of rules: a rule of others without a number gets
// one in front of those that are there, so that the numbers tell who came first. Who wins shows in the
// ways.
type state struct{ ways, ours string }

var (
	overlayAddress = regexp.MustCompile(`\b24[345]\.\d+\.\d+\.\d+(/\d+)?|\bfd[0-9a-f]{2}:[0-9a-f:]+(/\d+)?`)
	ruleNumber     = regexp.MustCompile(`(?m)^\d+:`)
)

// liveAddresses are those whose ways make up the state, beside a service and a pod.
var liveAddresses = []string{corpHost, publicHost, vpnServer, apiServer, lanRouter, uninvolved, unusedPod}

func (l *lab) state(t *testing.T) state {
	t.Helper()
	addrs := append(l.echoes(), liveAddresses...)
	var lines []string
	for a, way := range l.waysOf(t, addrs...) {
		lines = append(lines, a+": "+way+"\n")
	}
	slices.Sort(lines)
	return state{
		ways: overlayAddress.ReplaceAllString(strings.Join(lines, ""), "OVERLAY"),
		ours: ruleNumber.ReplaceAllString(overlayAddress.ReplaceAllString(l.ourRules(t), "OVERLAY"), "rule:"),
	}
}

// differsFrom returns the lines in which two states differ, nil if there are none.
func (s state) differsFrom(want state) error {
	if diff := lineDiff(want.ways, s.ways) + lineDiff(want.ours, s.ours); diff != "" {
		return errors.New("want (-) and have (+):\n" + diff)
	}
	return nil
}

// A life is how a VPN comes and goes under one policy.
type life struct {
	name, kind string
	flags      []string
	// before are the flags of a connection made while the VPN is up, where they differ: `error`
	// refuses then, and yields what comes later.
	before []string
	flap   bool
	// keeps says that names lead to the cluster whatever the VPN does, and that connections live on by the
	// addresses they have while it is up.
	keeps bool
}

var yieldFlags = []string{"--on-conflict", "yield"}

var lives = []life{
	{name: "allow, OpenVPN", kind: "openvpn", flags: allowFlags, keeps: true},
	{name: "allow, wg-quick", kind: "wireguard", flags: allowFlags, flap: true, keeps: true},
	{name: "allow, Tailscale", kind: "tailscale", flags: allowFlags, keeps: true},
	{name: "allow, NetBird", kind: "netbird", flags: allowFlags, keeps: true},
	{name: "yield, OpenVPN", kind: "openvpn", flags: yieldFlags, flap: true},
	{name: "yield, wg-quick", kind: "wireguard", flags: yieldFlags},
	{name: "virtualize, OpenVPN", kind: "openvpn", flags: virtualFlags, flap: true, keeps: true},
	{name: "virtualize, wg-quick", kind: "wireguard", flags: virtualFlags, keeps: true},
	{name: "virtualize, Tailscale", kind: "tailscale", flags: virtualFlags, keeps: true},
	{name: "virtualize, NetBird", kind: "netbird", flags: virtualFlags, keeps: true},
	{name: "error, OpenVPN", kind: "openvpn", before: yieldFlags},
	{name: "error, NetBird", kind: "netbird", before: yieldFlags, flap: true},
}

// The routes that the VPN of a life has, first and after its restart with others.
const (
	liveRoutes  = "10.0.0.0/8"
	otherRoutes = "10.20.0.0/16,10.50.0.0/16,10.132.0.64/26"
)

// TestVPNComesAndGoes has a VPN started after connect, stopped, restarted, restarted with other routes
// and flapping: each time the state is soon that of a connection made in the other order.
func TestVPNComesAndGoes(t *testing.T) {
	for _, x := range lives {
		t.Run(x.name, func(t *testing.T) { shared.live(t, x) })
	}
}

func (l *lab) live(t *testing.T, x life) {
	t.Helper()
	l.useVPN(t, x.kind, liveRoutes)
	before := x.before
	if before == nil {
		before = x.flags
	}
	with := l.stateOf(t, before)
	l.vpn(t, "up", x.kind, "--routes", otherRoutes)
	other := l.stateOf(t, before)
	l.vpn(t, "down")
	l.connect(t, x.flags...)
	without := l.state(t)
	events := l.monitor(t)

	l.settles(t, events, "started", with, func() { l.vpn(t, "up", x.kind, "--routes", liveRoutes) })
	l.degraded(t, len(x.flags) == 0)
	l.named(t, x, "the VPN started")
	var kept *stream
	if x.keeps {
		kept = l.stream(t, "echo.default:7000")
	}
	l.settles(t, events, "stopped", without, func() { l.vpn(t, "down") })
	l.degraded(t, false)
	l.settles(t, events, "restarted", with, func() {
		l.vpn(t, "up", x.kind)
		l.vpn(t, "down")
		l.vpn(t, "up", x.kind)
	})
	l.named(t, x, "it was restarted")
	l.settles(t, events, "restarted with other routes", other, func() { l.vpn(t, "up", x.kind, "--routes", otherRoutes) })
	l.named(t, x, "it was restarted with other routes")
	if x.flap {
		l.settles(t, events, "flapped ten times", with, func() {
			l.vpn(t, "down")
			for range 9 {
				l.vpn(t, "up", x.kind, "--routes", liveRoutes)
				l.vpn(t, "down")
			}
			l.vpn(t, "up", x.kind)
		})
	}
	l.settles(t, events, "stopped for good", without, func() { l.vpn(t, "down") })
	l.degraded(t, false)
	must(t, l.curl("http://echo.default/"), "GET a service by name", "pod")
	if x.keeps {
		kept.finish(t)
	}
}

// named checks that names of a service and of pods lead to them, if they are to.
func (l *lab) named(t *testing.T, x life, when string) {
	t.Helper()
	if !x.keeps {
		return
	}
	for _, url := range []string{"http://echo.default/", "http://echo-headless.default:8080/"} {
		must(t, l.curl(url), "GET "+url+" after "+when, "pod")
	}
}

// degraded checks whether the status warns of what was connected and has been left to another network.
func (l *lab) degraded(t *testing.T, want bool) {
	t.Helper()
	eventually(t, 3*time.Second, fmt.Sprintf("degraded: %t", want), func() error {
		warnings := l.status(t).Warnings
		if slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, "degraded") }) != want {
			return fmt.Errorf("the warnings are %q", warnings)
		}
		return nil
	})
}

// vpn switches the lab's VPN.
func (l *lab) vpn(t *testing.T, args ...string) {
	t.Helper()
	must(t, l.Run(time.Minute, append([]string{"vpn"}, args...)...), "lab vpn "+strings.Join(args, " "))
}

// stateOf returns the state of a connection made now, and ends it.
func (l *lab) stateOf(t *testing.T, flags []string) state {
	t.Helper()
	before := l.snapshot(t)
	if r := l.WS(time.Minute, append([]string{"culvert", "connect"}, flags...)...); r.Code != 0 {
		t.Fatalf("culvert connect %v: %s", flags, r)
	}
	s := l.state(t)
	must(t, l.WS(30*time.Second, "culvert", "quit"), "culvert quit")
	l.unchanged(t, before)
	return s
}

// settles changes something about the VPN and checks that the state becomes the wanted one, within
// settleLimit of the last change that somebody else made, and that the company answers.
func (l *lab) settles(t *testing.T, events *monitor, what string, want state, change func()) {
	t.Helper()
	begin := time.Now()
	change()
	changed := time.Since(begin)
	eventually(t, 10*time.Second, what, func() error { return l.state(t).differsFrom(want) })
	took := events.settled(t, begin)
	t.Logf("%s: %s, settled %s after the last change by others", what, changed.Round(time.Millisecond), took.Round(time.Millisecond))
	if took > settleLimit {
		t.Errorf("%s: settled %s after the last change by others, want %s", what, took, settleLimit)
	}
	eventually(t, 5*time.Second, what+": the company answers", func() error { return l.curl("http://" + corpHost + "/").OK() })
}

// monitor follows what changes about the workstation's links, addresses, routes and rules. The kernel
// tells nothing about IPv4 routes that go with their link, but about the link.
type monitor struct{ file string }

// monitor starts to follow; it ends with the test.
func (l *lab) monitor(t *testing.T) *monitor {
	t.Helper()
	m := &monitor{file: t.TempDir() + "/events"}
	out, err := os.Create(m.file)
	if err != nil {
		t.Fatal(err)
	}
	stop := l.background(t, out, "ip", "-tshort", "monitor", "link", "address", "route", "rule")
	t.Cleanup(func() {
		stop()
		out.Close() //nolint:errcheck // it is read already
	})
	eventually(t, 5*time.Second, "ip monitor", func() error {
		must(t, l.WS(5*time.Second, "sh", "-c", "ip rule add to 192.0.2.1 lookup main && ip rule del to 192.0.2.1"), "make an event")
		if text := readFile(t, m.file); !strings.Contains(text, "192.0.2.1") {
			return fmt.Errorf("it shows nothing: %q", text)
		}
		return nil
	})
	return m
}

// settled returns the time from the last change by others since begin to the last one of ours, 0 if
// we had nothing to do after them. It gives stragglers a moment.
func (m *monitor) settled(t *testing.T, begin time.Time) time.Duration {
	t.Helper()
	time.Sleep(200 * time.Millisecond) // what is measured has happened; only its notice is on the way
	ours, others := m.last(t, begin)
	return max(0, ours.Sub(others))
}

// last returns when we made our latest change since begin, zero for none, and when others did.
func (m *monitor) last(t *testing.T, begin time.Time) (ours, others time.Time) {
	t.Helper()
	for line := range strings.Lines(readFile(t, m.file)) {
		at, what, ok := eventOf(line)
		switch {
		case !ok || at.Before(begin):
		case strings.Contains(what, "proto 202"), strings.Contains(what, "culvert0"):
			ours = at
		default:
			others = at
		}
	}
	if others.IsZero() {
		t.Errorf("no change by others since %s, so nothing is measured:\n%s", begin, readFile(t, m.file))
	}
	return ours, others
}

var eventForm = regexp.MustCompile(`^\[([0-9T:.-]+)\] (.*)`)

// eventOf splits a line of `ip monitor` into time and event.
func eventOf(line string) (time.Time, string, bool) {
	m := eventForm.FindStringSubmatch(line)
	if m == nil {
		return time.Time{}, "", false
	}
	at, err := time.ParseInLocation("2006-01-02T15:04:05.999999", m[1], time.Local)
	return at, m[2], err == nil
}
