package hostnet_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/hostnet/hosttest"
)

var scope = hostnet.Scope{Interface: "culvert3", Name: "lab"}

var errFake = errors.New("no")

// addresses are those of the test interface.
var addresses = []netip.Prefix{netip.MustParsePrefix("245.0.0.2/32"), netip.MustParsePrefix("fd00::2/128")}

// randomPrefix is one of twelve of each family, of which the host's other programs have others.
func randomPrefix(rng *rand.Rand, ipv6, foreign bool) netip.Prefix {
	n := byte(rng.IntN(12))
	if foreign {
		n += 100
	}
	if ipv6 {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 2: n}), 48)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n}), 16)
}

// randomState returns some state for the test interface, at times the zero one.
func randomState(rng *rand.Rand) hostnet.State {
	if rng.IntN(8) == 0 {
		return hostnet.State{}
	}
	s := hostnet.State{Interface: scope.Interface, MTU: 1280 + rng.IntN(3), Addresses: addresses[:1+rng.IntN(2)]}
	s.Priority = hostnet.Priority{V4: 5000 * rng.IntN(3), V6: 5000 * rng.IntN(2)}
	s.SkipMarks = hostnet.SkipMarks{V4: randomMarks(rng), V6: randomMarks(rng)}
	have := make(map[netip.Prefix]bool)
	for range rng.IntN(16) {
		p := randomPrefix(rng, rng.IntN(2) == 0, false)
		if !have[p] {
			s.Routes = append(s.Routes, hostnet.Route{Prefix: p, Throw: rng.IntN(3) == 0})
		}
		have[p] = true
	}
	return s
}

// randomMarks returns none to three marks.
func randomMarks(rng *rand.Rand) []hostnet.Mark {
	all := []hostnet.Mark{{Value: 0xca6c, Mask: ^uint32(0)}, {Value: 0x80000, Mask: 0xff0000}, {Value: 0x1bd00, Mask: ^uint32(0)}, {Value: 1, Mask: 1}}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:rng.IntN(4)]
}

// interference is what other programs and people do to a host, by chance.
var interference = map[string]func(*rand.Rand, *hosttest.State){
	"one of our rules is deleted": func(rng *rand.Rand, s *hosttest.State) {
		deleteOne(rng, &s.Rules, func(r hosttest.Rule) bool { return r.Protocol == hostnet.Protocol })
	},
	"systemd-networkd deletes every rule it does not know": func(_ *rand.Rand, s *hosttest.State) {
		s.Rules = slices.DeleteFunc(s.Rules, func(r hosttest.Rule) bool { return r.Protocol == hostnet.Protocol })
	},
	"a rule with our mark appears": func(rng *rand.Rand, s *hosttest.State) {
		r := hosttest.Rule{Table: scope.Table(), Protocol: hostnet.Protocol}
		r.Priority, r.IPv6, r.Mark = 4999+rng.IntN(3), rng.IntN(2) == 0, hostnet.Mark{Value: uint32(rng.IntN(2)), Mask: 1}
		s.Rules = append(s.Rules, r)
	},
	"one of our routes is deleted": func(rng *rand.Rand, s *hosttest.State) {
		deleteOne(rng, &s.Routes, func(r hosttest.Route) bool { return r.Protocol == hostnet.Protocol })
	},
	"our table is flushed of what is ours": func(_ *rand.Rand, s *hosttest.State) {
		s.Routes = slices.DeleteFunc(s.Routes, func(r hosttest.Route) bool { return r.Protocol == hostnet.Protocol })
	},
	"a route with our mark appears": func(rng *rand.Rand, s *hosttest.State) {
		p := randomPrefix(rng, rng.IntN(2) == 0, true)
		s.Routes = append(s.Routes, hosttest.Route{Route: hostnet.Route{Prefix: p, Throw: true}, Table: scope.Table(), Protocol: hostnet.Protocol})
	},
	"somebody adds a rule": func(rng *rand.Rand, s *hosttest.State) {
		r := hosttest.Rule{Table: []int{254, 52, scope.Table()}[rng.IntN(3)]}
		r.Priority, r.IPv6 = []int{105, 5000, 5210}[rng.IntN(3)], rng.IntN(2) == 0
		if rng.IntN(2) == 0 {
			r.Mark, r.Not = hostnet.Mark{Value: 0xca6c, Mask: ^uint32(0)}, rng.IntN(2) == 0
		}
		s.Rules = append(s.Rules, r)
	},
	"somebody removes a rule of his": func(rng *rand.Rand, s *hosttest.State) {
		deleteOne(rng, &s.Rules, func(r hosttest.Rule) bool { return r.Protocol != hostnet.Protocol })
	},
	"somebody adds a route": func(rng *rand.Rand, s *hosttest.State) {
		r := hosttest.Route{Table: []int{254, 52, scope.Table()}[rng.IntN(3)], Dev: "tun0", Protocol: []int{0, 4, 186}[rng.IntN(3)]}
		r.Prefix = randomPrefix(rng, rng.IntN(2) == 0, r.Table == scope.Table())
		s.Routes = append(s.Routes, r)
	},
	"somebody removes a route of his": func(rng *rand.Rand, s *hosttest.State) {
		deleteOne(rng, &s.Routes, func(r hosttest.Route) bool { return r.Protocol != hostnet.Protocol })
	},
	"an address is taken from our interface": onLink(func(_ *rand.Rand, l *hosttest.Link) { l.Addresses = nil }),
	"our interface is given an address": onLink(func(rng *rand.Rand, l *hosttest.Link) {
		l.Addresses = append(l.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 0, byte(rng.IntN(4))}), 24))
	}),
	"the MTU is changed": onLink(func(rng *rand.Rand, l *hosttest.Link) { l.MTU = 1000 + rng.IntN(1000) }),
	"a setting is changed": onLink(func(_ *rand.Rand, l *hosttest.Link) {
		l.Settings["ipv4/rp_filter"], l.Settings["ipv6/disable_ipv6"] = "1", "1"
	}),
	"our interface is set down, which takes its routes": func(_ *rand.Rand, s *hosttest.State) {
		if l, exists := s.Links[scope.Interface]; exists {
			s.RemoveLink(scope.Interface)
			l.Up = false
			s.Links[scope.Interface] = l
		}
	},
	"our interface is removed": func(_ *rand.Rand, s *hosttest.State) { s.RemoveLink(scope.Interface) },
	"a firewall reloads and flushes all tables": func(_ *rand.Rand, s *hosttest.State) {
		for name := range s.Filters {
			s.Filters[name] = ""
		}
	},
	"a firewall deletes all tables": func(_ *rand.Rand, s *hosttest.State) { clear(s.Filters) },
}

// onLink does something to our interface, where there is one.
func onLink(do func(*rand.Rand, *hosttest.Link)) func(*rand.Rand, *hosttest.State) {
	return func(rng *rand.Rand, s *hosttest.State) {
		if l, exists := s.Links[scope.Interface]; exists {
			do(rng, &l)
			s.Links[scope.Interface] = l
		}
	}
}

// deleteOne deletes one of those elements that fit, by chance.
func deleteOne[T any](rng *rand.Rand, list *[]T, fits func(T) bool) {
	var at []int
	for i, e := range *list {
		if fits(e) {
			at = append(at, i)
		}
	}
	if len(at) > 0 {
		i := at[rng.IntN(len(at))]
		*list = slices.Delete(*list, i, i+1)
	}
}

// otherPrograms is a host where others have rules and routes as like ours as can be.
func otherPrograms() hosttest.State {
	return hosttest.State{
		Links: map[string]hosttest.Link{"tun0": {Index: 7}},
		Rules: []hosttest.Rule{
			{Table: 255}, {Table: 254, Rule: hostnet.Rule{Priority: 32766}},
			{Table: scope.Table(), Rule: hostnet.Rule{Priority: 5000}}, // without our mark
		},
		Routes:  []hosttest.Route{{Table: 254, Dev: "tun0", Route: hostnet.Route{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}},
		Filters: map[string]string{},
	}
}

// TestSetWalksThroughRandomStates goes from any state to any other, with failures on the way and with
// other programs at work, and compares what the host prints with what was wanted. What is not ours
// stays as it was, line by line.
func TestSetWalksThroughRandomStates(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	host := hosttest.New(otherPrograms())
	var done []string // by us, since the last state was asked for
	ill := false      // changes fail by chance
	host.Around = func(step string, after bool) error {
		if !after && ill && rng.IntN(4) == 0 {
			return errFake
		}
		if after {
			done = append(done, step)
		}
		return nil
	}
	acts := slices.Sorted(maps.Keys(interference))
	for step := range 5000 {
		done = nil
		for range rng.IntN(4) {
			act := acts[rng.IntN(len(acts))]
			done = append(done, "# "+act)
			host.Change(func(s *hosttest.State) { interference[act](rng, s) })
		}
		want := randomState(rng)
		if _, exists := host.State().Links[scope.Interface]; !exists && want.Interface != "" {
			ill = false
			if _, _, err := host.CreateTUN(scope); err != nil {
				t.Fatal(err)
			}
		}
		before := host.State()
		if ill = rng.IntN(3) == 0; ill {
			_, _ = hostnet.Set(t.Context(), host, scope, want)
		}
		ill = false
		if _, err := hostnet.Set(t.Context(), host, scope, want); err != nil {
			t.Fatalf("step %d: %v after\n%s", step, err, strings.Join(done, "\n"))
		}
		if problem := compare(before, host.State(), want); problem != "" {
			t.Fatalf("step %d: %s\nfrom\n%s\n\nby\n%s", step, problem, before, strings.Join(done, "\n"))
		}
		if again, err := hostnet.Set(t.Context(), host, scope, want); err != nil || len(again) > 0 {
			t.Fatalf("step %d: setting the same again changes %v (%v)", step, again, err)
		}
	}
}

// compare says what is not as it should be, "" for nothing.
func compare(before, after hosttest.State, want hostnet.State) string {
	foreign := lines(before, func(line string) bool { return !hosttest.Ours(line) })
	if now := lines(after, func(line string) bool { return !hosttest.Ours(line) }); now != foreign {
		return fmt.Sprintf("what is not ours is now\n%s\nand was\n%s", now, foreign)
	}
	ours := lines(after, func(line string) bool { return hosttest.Ours(line) && !strings.Contains(line, " = ") })
	if wanted := printed(want); ours != wanted {
		return fmt.Sprintf("ours is\n%s\nwant\n%s", ours, wanted)
	}
	if l, exists := after.Links[scope.Interface]; exists {
		if l.Settings["ipv4/rp_filter"] != "2" || len(want.Addresses) > 1 && l.Settings["ipv6/disable_ipv6"] != "0" {
			return fmt.Sprintf("settings are %v", l.Settings)
		}
	}
	return ""
}

// lines returns the lines that fit, without the order of rules of one priority.
func lines(s hosttest.State, fits func(string) bool) string {
	out := slices.DeleteFunc(strings.Split(s.String(), "\n"), func(line string) bool { return !fits(line) })
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// printed writes down how a state looks on a host, without the planner's help.
func printed(want hostnet.State) string {
	if want.Interface == "" {
		return ""
	}
	out := []string{fmt.Sprintf("culvert3: mtu %d state UP lab", want.MTU), "table inet culvert_culvert3 replies only"}
	for _, a := range want.Addresses {
		out = append(out, "culvert3: inet "+a.String())
	}
	for _, r := range want.Routes {
		line := r.Prefix.String() + " dev culvert3 table 7833 proto 202"
		if r.Throw {
			line = "throw " + r.Prefix.String() + " table 7833 proto 202"
		}
		out = append(out, line)
	}
	for family, rule := range map[string]struct {
		priority int
		marks    []hostnet.Mark
	}{"-4": {want.Priority.V4, want.SkipMarks.V4}, "-6": {want.Priority.V6, want.SkipMarks.V6}} {
		if rule.priority != 0 {
			out = append(out, fmt.Sprintf("ip %s rule %d: %s lookup 7833 proto 202", family, rule.priority, selector(rule.marks)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// selector writes down which packets a rule takes that leaves marks alone.
func selector(marks []hostnet.Mark) string {
	switch len(marks) {
	case 0:
		return "from all"
	case 1:
		return fmt.Sprintf("not from all fwmark %#x/%#x", marks[0].Value, marks[0].Mask)
	}
	mask := uint32(0)
	for _, m := range marks {
		if m.Value&mask == 0 {
			mask |= 1 << (31 - bits.LeadingZeros32(m.Value))
		}
	}
	return fmt.Sprintf("from all fwmark 0x0/%#x", mask)
}

// upLink is a host with our interface, up, behind its filter.
func upLink(routes ...string) hosttest.State {
	s := hosttest.State{
		Links:   map[string]hosttest.Link{scope.Interface: {Index: 3, Connection: scope.Name, Link: hostnet.Link{MTU: 1500, Up: true}}},
		Filters: map[string]string{scope.Interface: ""},
	}
	for _, p := range routes {
		s.Routes = append(s.Routes, hosttest.Route{Route: through(p)[0], Dev: scope.Interface, Table: scope.Table(), Protocol: hostnet.Protocol})
	}
	return s
}

// through builds routes.
func through(texts ...string) (out []hostnet.Route) {
	for _, p := range texts {
		out = append(out, hostnet.Route{Prefix: netip.MustParsePrefix(p)})
	}
	return out
}

// recording returns a host that fails where asked to, and what was done on it.
func recording(s hosttest.State, fail func(step string) bool) (*hosttest.Host, *[]string) {
	host, done := hosttest.New(s), new([]string)
	host.Around = func(step string, after bool) error {
		if after {
			*done = append(*done, step)
		} else if fail(step) {
			return errFake
		}
		return nil
	}
	return host, done
}

func TestFailures(t *testing.T) {
	desired := hostnet.State{Interface: "culvert3", MTU: 1400, Routes: through("10.1.0.0/16", "10.2.0.0/16"), Priority: hostnet.Priority{V4: 10}}
	for name, row := range map[string]struct {
		fail    string
		present []string
		absent  []string
	}{
		"no filter, no traffic":                 {"nft add table", nil, []string{"mtu", "route", "rule"}},
		"a failed route does not stop the next": {"ip route replace 10.1.", []string{"route replace 10.2.0.0/16", "rule add"}, []string{"10.9.0.0"}},
		"a failed removal is told":              {"ip route del", []string{"route replace 10.1.0.0/16", "rule add"}, []string{"10.9.0.0"}},
		"a failed addition stops every removal": {"ip rule add", []string{"route replace 10.1.0.0/16"}, []string{"10.9.0.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			host, did := recording(upLink("10.9.0.0/16"), func(step string) bool { return strings.HasPrefix(step, row.fail) })
			if _, err := hostnet.Set(context.Background(), host, scope, desired); !errors.Is(err, errFake) {
				t.Fatalf("error %v, want the host's", err)
			}
			done := strings.Join(*did, "\n")
			for _, w := range row.present {
				if !strings.Contains(done, w) {
					t.Errorf("%q was not done:\n%s", w, done)
				}
			}
			for _, w := range row.absent {
				if strings.Contains(done, w) {
					t.Errorf("%q was done:\n%s", w, done)
				}
			}
		})
	}
}

func TestRemoveKeepsTheFilterAsLongAsTheInterface(t *testing.T) {
	start := upLink()
	start.Rules = []hosttest.Rule{{Rule: hostnet.Rule{Priority: 1}, Table: scope.Table(), Protocol: hostnet.Protocol}}
	host, _ := recording(start, func(step string) bool { return strings.HasPrefix(step, "ip link del") })
	if _, err := hostnet.Remove(host, scope); !errors.Is(err, errFake) {
		t.Fatalf("error %v, want the host's", err)
	}
	if left := host.State(); len(left.Rules) != 0 || len(left.Filters) != 1 {
		t.Errorf("left %s, want the interface behind its filter and no rule", left)
	}
	host.Around = nil
	if _, err := hostnet.Remove(host, scope); err != nil || host.State().String() != "" {
		t.Errorf("left %s, error %v", host.State(), err)
	}
}

func TestCancelledSetStopsBetweenTwoChanges(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	changes := 0
	host, _ := recording(upLink(), func(string) bool {
		if changes++; changes == 4 {
			cancel()
		}
		return false
	})
	desired := hostnet.State{Interface: "culvert3", Routes: through("10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16")}
	done, err := hostnet.Set(ctx, host, scope, desired)
	if !errors.Is(err, context.Canceled) || len(done) != 4 {
		t.Errorf("%d changes and error %v, want 4 and the cancellation", len(done), err)
	}
}
