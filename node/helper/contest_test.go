package helper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/hostnet/hosttest"
)

// fight is a session without its loop, so that the test says when what happens.
type fight struct {
	*session
	host *hosttest.Host
	now  time.Time
	end  *net.UnixConn // the user half's
}

// startFight opens and applies a state, which it returns.
func startFight(t *testing.T) (*fight, hostnet.State) {
	t.Helper()
	pair, err := socketPair("helper")
	if err != nil {
		t.Fatal(err)
	}
	f := &fight{host: hosttest.New(otherPrograms()), now: time.Unix(1000, 0), end: unixConn(t, pair[1])}
	conn := unixConn(t, pair[0])
	t.Cleanup(func() { _, _ = conn.Close(), f.end.Close() })
	f.session, err = newSession(Options{Name: DefaultName, Conn: conn, Host: f.host, Paths: pathsIn(t), Log: discard, listenDNS: noSockets})
	if err != nil {
		t.Fatal(err)
	}
	open, state := fine()
	_, _, files, err := f.handleOpen(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(files) })
	f.apply(t, state)
	t.Cleanup(func() {
		if err := f.restore(); err != nil || f.host.Watchers() != 0 {
			t.Errorf("restore: %v, %d still watch", err, f.host.Watchers())
		}
	})
	return f, state
}

func (f *fight) apply(t *testing.T, s hostnet.State) {
	t.Helper()
	if err := f.handleApply(t.Context(), s, f.now); err != nil {
		t.Fatal(err)
	}
}

// look compares as the loop does: after a signal of the kernel's, and else from time to time.
func (f *fight) look(t *testing.T, later time.Duration) {
	t.Helper()
	f.now = f.now.Add(later)
	var err error
	if later < resyncEvery {
		_, err = f.compare(t.Context(), f.now)
	} else {
		err = f.resync(t.Context(), f.now)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// contests ends the conversation and returns what the user half was told.
func (f *fight) contests(t *testing.T) []Contested {
	t.Helper()
	_ = f.Conn.Close()
	var out []Contested
	for {
		var head [4]byte
		if _, err := io.ReadFull(f.end, head[:]); errors.Is(err, io.EOF) {
			return out
		}
		body, err := readBody(f.end, binary.BigEndian.Uint32(head[:]))
		if err != nil {
			t.Fatal(err)
		}
		var r response
		if err := json.Unmarshal(body, &r); err != nil {
			t.Fatal(err)
		}
		if r.Event != nil && r.Event.Contested != nil {
			out = append(out, *r.Event.Contested)
		}
	}
}

func TestProgramThatKeepsUndoingIsGivenWayTo(t *testing.T) {
	f, state := startFight(t)
	foreign := foreignLines(f.host.State())
	undo := func() { f.host.Change(deleteOurRules) }
	back := func() bool { return slices.Equal(ourRules(f.host.State(), false), []int{state.Priority.V4}) }
	for n := range putBackBurst {
		undo()
		if f.look(t, settleFor); !back() {
			t.Fatalf("time %d: the rule is not put back", n+1)
		}
	}
	undo()
	f.look(t, settleFor)
	since := f.now
	if back() || !f.repairs.contested() {
		t.Fatal("no limit to putting back")
	}
	answers := 0
	for range 30 { // a minute
		if f.look(t, resyncEvery); back() {
			answers++
		}
		undo()
	}
	if answers != 6 {
		t.Errorf("%d tries in a minute, want one every %v", answers, putBackEvery)
	}
	for f.repairs.contested() { // the other program has ended
		f.look(t, resyncEvery)
		if f.now.Sub(since) > 90*time.Second {
			t.Fatal("the fight does not end")
		}
	}
	if !back() || foreignLines(f.host.State()) != foreign {
		t.Errorf("the host is\n%s", f.host.State())
	}
	begin := Contested{Kind: ContestUndone, What: "keeps undoing the IPv4 rule at priority 5000", Since: since, RetryEvery: putBackEvery}
	over := begin
	over.Over = true
	checkContests(t, f.contests(t), begin, over)
}

func TestOccasionalRepairsAreNoFight(t *testing.T) {
	f, state := startFight(t)
	for range 20 {
		f.host.Change(deleteOurRules)
		f.look(t, putBackEvery)
		if !slices.Equal(ourRules(f.host.State(), true), []int{state.Priority.V6}) {
			t.Fatal("the rule is not put back")
		}
	}
	checkContests(t, f.contests(t))
}

func TestProgramThatKeepsOvertakingIsGivenWayTo(t *testing.T) {
	f, state := startFight(t)
	forward := func() {
		state.Priority.V4--
		f.now = f.now.Add(time.Millisecond)
		f.apply(t, state)
	}
	for range putBackBurst {
		if forward(); !slices.Equal(ourRules(f.host.State(), false), []int{state.Priority.V4}) {
			t.Fatalf("our rules are %v, want %d", ourRules(f.host.State(), false), state.Priority.V4)
		}
	}
	reached := state.Priority.V4
	forward()
	since := f.now
	state.Routes = state.Routes[1:] // the rest of a state is not held back
	forward()
	if got := f.host.State(); !slices.Equal(ourRules(got, false), []int{reached}) || strings.Contains(got.String(), "10.0.0.0/8 dev culvert0") {
		t.Fatalf("want the rule to stay at %d and the route gone:\n%s", reached, got)
	}
	for f.forward.contested() {
		f.look(t, resyncEvery)
		if f.now.Sub(since) > time.Minute {
			t.Fatal("the fight does not end")
		}
	}
	if got := ourRules(f.host.State(), false); !slices.Equal(got, []int{state.Priority.V4}) {
		t.Errorf("our rules are %v in the end, want %d", got, state.Priority.V4)
	}
	begin := Contested{Kind: ContestOvertaken, What: "keeps moving its rules in front of ours", Since: since, RetryEvery: putBackEvery}
	over := begin
	over.Over = true
	checkContests(t, f.contests(t), begin, over)
}

func TestFlappingVPNIsNoFight(t *testing.T) {
	f, state := startFight(t)
	for range 30 {
		for _, p := range []int{4998, 4997, 5000} {
			state.Priority.V4 = p
			f.now = f.now.Add(time.Second)
			if f.apply(t, state); !slices.Equal(ourRules(f.host.State(), false), []int{p}) {
				t.Fatalf("our rules are %v, want %d", ourRules(f.host.State(), false), p)
			}
		}
	}
	checkContests(t, f.contests(t))
}

func TestRetreatEndsTheFight(t *testing.T) {
	f, state := startFight(t)
	for range putBackBurst + 1 {
		state.Priority.V6--
		f.apply(t, state)
	}
	state.Priority.V6 = 32765
	f.apply(t, state)
	told := f.contests(t)
	if len(told) != 2 || told[0].Over || !told[1].Over || !slices.Equal(ourRules(f.host.State(), true), []int{32765}) {
		t.Errorf("told %+v, rules %v", told, ourRules(f.host.State(), true))
	}
}

func checkContests(t *testing.T, got []Contested, want ...Contested) {
	t.Helper()
	same := func(a, b Contested) bool {
		at := a.Since.Equal(b.Since)
		a.Since = b.Since
		return at && reflect.DeepEqual(a, b)
	}
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("told %+v\nwant %+v", got, want)
	}
}

// TestChangesByOthersArePutBackAtOnce runs the loop: what the kernel tells of is repaired long before
// the slow comparison, and our own changes, of which it tells as well, cause no further one.
func TestChangesByOthersArePutBackAtOnce(t *testing.T) {
	host := hosttest.New(otherPrograms())
	var steps []string
	host.Around = func(step string, after bool) error {
		if after {
			steps = append(steps, step) // of the loop alone; read once it has ended
		}
		return nil
	}
	s := serveHost(t, host, pathsIn(t))
	c := s.client(t)
	open, state := fine()
	opened, err := c.Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if err := c.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	host.Change(deleteOurRules)
	reads := 0
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if reads == 0 && len(ourRules(host.State(), false)) == 1 {
			reads = host.Reads()
		}
		if reads > 0 && host.Reads() > reads { // our own change was looked at
			break
		}
		if time.Now().After(until) {
			t.Fatal("the rules are not put back, or that is not looked at")
		}
	}
	t.Logf("put back and looked at within %v", time.Since(began))
	if err := c.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(t); err != nil {
		t.Fatal(err)
	}
	added := func(step string) bool { return strings.Contains(step, "rule add") }
	if n := len(slices.DeleteFunc(steps, func(step string) bool { return !added(step) })); n != 4 {
		t.Errorf("%d rules were added, want two twice", n)
	}
	if host.Watchers() != 0 {
		t.Error("the ended helper still watches")
	}
}

// foreignLines are those of what is not ours.
func foreignLines(s hosttest.State) string {
	return strings.Join(slices.DeleteFunc(strings.Split(s.String(), "\n"), hosttest.Ours), "\n")
}
