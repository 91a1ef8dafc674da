package agents

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
)

// replaced is the time in which a lost agent is to be replaced.
const replaced = 10 * time.Second

func TestAgentIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("a", "b")
		w := start(t, c)
		var phases []Phase
		s, _ := w.until("up", func(s State) bool {
			if len(phases) == 0 || phases[len(phases)-1] != s.Phase {
				phases = append(phases, s.Phase)
			}
			return s.Phase == Up
		})
		if want := []Phase{Seeking, Placing, Enrolling, Up}; !slices.Equal(phases, want) {
			t.Errorf("phases %v, want %v", phases, want)
		}
		if s.Workload.String() != "shop/deployment/echo" || s.Agent.Pod != "a" || s.Key != (wgtypes.Key{1}) || s.Since.IsZero() || s.Attempts != 0 || !reflect.DeepEqual(s.Twins, oneTwin) {
			t.Errorf("state %+v", s)
		}
		w.pass(time.Hour)
		asked := w.asked("a")
		if len(asked) < 30 || len(asked) > 61 { // every one to two minutes
			t.Errorf("enrolled %d times in an hour", len(asked))
		}
		for _, r := range asked {
			r.Version = ""
			if want := w.config.Request; !reflect.DeepEqual(r, want) {
				t.Fatalf("asked %+v, want %+v", r, want)
			}
		}
		if again := w.State(); again.Since != s.Since || again.Phase != Up {
			t.Errorf("an hour later: %+v", again)
		}
		w.end()
		if all := w.asked("a"); byes(all) != 1 || !all[len(all)-1].Bye {
			t.Errorf("%d goodbyes in %d requests", byes(all), len(all))
		}
		if n := get(c, func() int { return c.pod("a").placed + c.pod("b").placed }); n != 1 {
			t.Errorf("%d containers", n)
		}
	})
}

func TestAgentThatRunsIsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("a")
		c.pods[0].state = kube.AgentState{Phase: kube.AgentRunning, Since: time.Now()}
		w := start(t, c)
		w.up("a")
		w.end()
		if n := get(c, func() int { return c.pods[0].placed }); n != 0 {
			t.Errorf("%d containers were added", n)
		}
	})
}

func TestLostAgentIsReplaced(t *testing.T) {
	for _, row := range []struct {
		name   string
		up     time.Duration // before the loss
		lose   func(p *fakePod)
		next   string
		gone   bool // no goodbye can be said
		placed int  // in the first pod, at last
	}{
		{"pod is being deleted", time.Hour, func(p *fakePod) { p.leaves = true }, "b", true, 1},
		{"pod is gone", time.Hour, func(p *fakePod) { p.gone = true }, "b", true, 1},
		{"pod is gone soon", time.Second, func(p *fakePod) { p.gone = true }, "b", true, 1},
		{"container ended after an hour", time.Hour, func(p *fakePod) { p.state = kube.AgentState{Phase: kube.AgentEnded, ExitCode: 137} }, "a", true, 2},
		{"container ended after a second", time.Second, func(p *fakePod) { p.state = kube.AgentState{Phase: kube.AgentEnded, ExitCode: 137} }, "b", true, 1},
		{"agent does not answer", time.Hour, func(p *fakePod) { p.silent = true }, "b", false, 1},
		{"nobody listens", time.Hour, func(p *fakePod) { p.deaf = true }, "b", false, 1},
		{"agent of another version", time.Hour, func(p *fakePod) { p.refusal = &enrol.Refusal{Reason: enrol.Incompatible, Message: "no"} }, "b", false, 1},
		{"agent is full", time.Hour, func(p *fakePod) { p.refusal = &enrol.Refusal{Reason: enrol.TooManyNodes, Message: "no"} }, "b", false, 1},
		{"another pod of that name", time.Hour, func(p *fakePod) { p.podUID, p.unready = "another", true }, "b", false, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("a", "b")
				w := start(t, c)
				w.up("a")
				w.pass(row.up)
				before := len(w.asked("a"))
				c.set(func() { row.lose(c.pod("a")) })
				if row.gone { // which is seen by itself
					synctest.Wait()
				} else {
					w.Kick() // as the carrier's loss does
				}
				s, took := w.until("up again", func(s State) bool { return s.Phase == Seeking || s.Phase == Waiting })
				if s.Err == nil || s.Agent.Pod != "a" {
					t.Errorf("the loss: %+v", s)
				}
				s, more := w.up(row.next)
				if took += more; took > replaced || s.Final || s.Attempts != 0 {
					t.Errorf("replaced after %v: %+v", took, s)
				}
				w.end()
				if got := byes(w.asked(row.next)); got != 1 {
					t.Errorf("%d goodbyes to the agent in use", got)
				}
				if row.gone && row.next == "b" && len(w.asked("a")) != before {
					t.Errorf("the lost agent was asked")
				}
				if n := get(c, func() int { return c.pod("a").placed }); n != row.placed {
					t.Errorf("%d containers in the first pod, want %d", n, row.placed)
				}
			})
		})
	}
}

func TestAgentThatEndsAtOnce(t *testing.T) {
	end := func(p *fakePod) func() error {
		return func() error { p.state = kube.AgentState{Phase: kube.AgentEnded, ExitCode: 2}; return nil }
	}
	t.Run("another pod's does not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster("a", "b")
			c.pod("a").placing = end(c.pod("a"))
			w := start(t, c)
			if _, took := w.up("b"); took > replaced {
				t.Errorf("after %v", took)
			}
			w.pass(time.Hour)
			w.end()
			if n := get(c, func() int { return c.pod("a").placed }); n != 1 {
				t.Errorf("%d containers in the first pod", n)
			}
		})
	})
	t.Run("there is no other pod", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster("a")
			c.pod("a").placing = end(c.pod("a"))
			w := start(t, c)
			w.pass(time.Hour)
			if s := w.State(); s.Err == nil || s.Final || failure.Of(s.Err).Hint == "" || s.Attempts < 10 {
				t.Errorf("after an hour %+v", s)
			}
			if n := get(c, func() int { return c.pod("a").placed }); n < 10 || n > 35 { // none of them ever leaves the pod
				t.Errorf("%d containers in an hour", n)
			}
			c.set(func() { c.pod("a").placing = nil })
			w.Kick()
			if _, took := w.up("a"); took > replaced {
				t.Errorf("up %v after somebody has helped", took)
			}
			w.end()
		})
	})
}

func TestRefusals(t *testing.T) {
	for _, row := range []struct {
		reason string
		code   failure.Code
		final  bool // with a single pod
		moves  bool // to another pod, if there is one
	}{
		{enrol.Conflict, failure.General, false, true},
		{enrol.TooManyNodes, failure.General, false, true},
		{enrol.Incompatible, failure.GatewayState, true, true},
		{enrol.Stopping, failure.General, false, true},
		{enrol.Failed, failure.General, false, true},
		{enrol.Invalid, failure.General, true, false},
	} {
		t.Run(row.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("a", "b")
				c.set(func() {
					c.pod("a").refusal = &enrol.Refusal{Reason: row.reason, Message: "not you"}
					c.pod("b").unready = true
				})
				w := start(t, c)
				w.until("told", func(s State) bool { return s.Phase == Waiting && s.Final == row.final })
				w.pass(10 * time.Minute)
				var no *enrol.Refusal
				if s := w.State(); s.Final != row.final || failure.Of(s.Err).Code != row.code || !errors.As(s.Err, &no) || no.Reason != row.reason {
					t.Errorf("%+v", s)
				}
				c.set(func() { c.pod("b").unready = false })
				w.Kick()
				if row.moves {
					w.up("b")
				} else {
					w.SetTwins(twoTwins) // which it may not mind
					c.set(func() { c.pod("a").refusal = nil })
					w.up("a")
				}
				w.end()
			})
		})
	}
}

func TestWaitForAgentToListen(t *testing.T) {
	for _, row := range []struct {
		name      string
		not, then func(p *fakePod)
	}{
		{"it does not listen yet", func(p *fakePod) { p.deaf = true }, func(p *fakePod) { p.deaf = false }},
		{"it has a fault", func(p *fakePod) { p.refusal = &enrol.Refusal{Reason: enrol.Failed} }, func(p *fakePod) { p.refusal = nil }},
		{"it stops, and its container with it", func(p *fakePod) { p.refusal = &enrol.Refusal{Reason: enrol.Stopping} },
			func(p *fakePod) { p.refusal, p.state = nil, kube.AgentState{Phase: kube.AgentEnded} }},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("a")
				row.not(c.pods[0])
				w := start(t, c)
				w.until("enrolling", func(s State) bool { return s.Phase == Enrolling && s.Err != nil })
				w.pass(3 * time.Second)
				c.set(func() { row.then(c.pods[0]) })
				if _, took := w.up("a"); took > 2*time.Second {
					t.Errorf("%v after it could be had", took)
				}
				w.end()
			})
		})
	}
}

func TestWhatIsInTheWay(t *testing.T) {
	for _, row := range []struct {
		name        string
		break_, fix func(c *fakeCluster)
		code        failure.Code
		final       bool
		within      time.Duration // of being fixed after five seconds
	}{
		{"no ready pod", func(c *fakeCluster) { c.pods[0].unready = true }, func(c *fakeCluster) { c.pods[0].unready = false }, failure.General, false, time.Second},
		{"image missing", func(c *fakeCluster) {
			c.pods[0].placing = func() error { return failure.Newf(failure.General, "image is not to be had").WithHint("load it") }
		}, func(c *fakeCluster) { c.pods[0].placing = nil }, failure.General, false, 10 * time.Second},
		{"the API is away", func(c *fakeCluster) { c.outage = errOutage }, func(c *fakeCluster) { c.outage = nil }, failure.Unreachable, false, time.Second},
		{"unknown", func(c *fakeCluster) {
			c.unknown = failure.Newf(failure.Usage, "no such workload").WithHint("did you mean ech?")
		},
			func(c *fakeCluster) { c.unknown = nil }, failure.Usage, true, time.Minute},
		{"not permitted", func(c *fakeCluster) {
			c.pods[0].placing = func() error { return failure.Newf(failure.Permission, "not permitted").WithHint("a Role") }
		}, func(c *fakeCluster) { c.pods[0].placing = nil }, failure.Permission, true, time.Minute},
		{"refused by a policy", func(c *fakeCluster) {
			c.pods[0].placing = func() error { return failure.Newf(failure.Refused, "denied").WithHint("an exception") }
		}, func(c *fakeCluster) { c.pods[0].placing = nil }, failure.Refused, true, time.Minute},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("a")
				row.break_(c)
				w := start(t, c)
				w.pass(5 * time.Second)
				s := w.State()
				if f := failure.Of(s.Err); s.Phase != Waiting || f == nil || f.Code != row.code || f.Hint == "" || s.Final != row.final || s.Attempts == 0 {
					t.Errorf("after five seconds: %+v", s)
				}
				if s.Final && s.Attempts != 1 {
					t.Errorf("tried %d times", s.Attempts)
				}
				c.set(func() { row.fix(c) })
				if s, took := w.up("a"); took > row.within || s.Final || s.Attempts != 0 {
					t.Errorf("up after %v: %+v", took, s)
				}
				w.end()
			})
		})
	}
}

func TestTwinsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("a")
		c.pods[0].silent = true
		w := start(t, c)
		w.until("enrolling", func(s State) bool { return s.Phase == Enrolling })
		synctest.Wait()
		w.SetTwins(twoTwins) // while the first request waits for its answer
		c.set(func() { c.pods[0].silent = false })
		if s, took := w.until("taken up", func(s State) bool { return s.Phase == Up && len(s.Twins) == 2 }); took > time.Second || !reflect.DeepEqual(s.Twins, twoTwins) {
			t.Errorf("after %v: %+v", took, s)
		}
		w.SetTwins(oneTwin)
		if _, took := w.until("taken up", func(s State) bool { return s.Phase == Up && len(s.Twins) == 1 }); took > time.Second {
			t.Errorf("after %v", took)
		}
		c.set(func() { c.pods[0].refusal = &enrol.Refusal{Reason: enrol.Invalid, Message: "never"} })
		w.SetTwins(twoTwins)
		if s, _ := w.until("told", func(s State) bool { return s.Err != nil }); s.Phase != Up || !s.Final || len(s.Twins) != 1 {
			t.Errorf("refused twins: %+v", s)
		}
		w.end()
	})
}

func TestOutageOfTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("a", "b")
		w := start(t, c)
		first, _ := w.up("a")
		c.set(func() { c.outage = errOutage })
		w.Kick()
		w.pass(30 * time.Minute)
		if s := w.State(); s.Phase != Up || s.Since != first.Since || failure.Of(s.Err).Code != failure.Unreachable {
			t.Errorf("during the outage: %+v", s)
		}
		c.set(func() { c.outage = nil })
		w.Kick()
		if s, took := w.up("a"); took > time.Second || s.Since != first.Since {
			t.Errorf("after the outage: %v, %+v", took, s)
		}
		w.end()
	})
}

func TestSilentAgentOfTheOnlyPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("a")
		w := start(t, c)
		w.up("a")
		c.set(func() { c.pods[0].deaf = true })
		w.pass(10 * time.Minute)
		if s := w.State(); s.Phase != Up || s.Err == nil {
			t.Errorf("there is nothing better, but %+v", s)
		}
		c.set(func() { c.pods = append(c.pods, &fakePod{name: "b", key: wgtypes.Key{2}}) })
		if _, took := w.up("b"); took > time.Minute {
			t.Errorf("another pod is used after %v", took)
		}
		w.end()
	})
}

func TestSidecarRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("a")
		w := start(t, c)
		w.up("a")
		w.pass(time.Second)
		c.set(func() { c.pods[0].state.Since, c.pods[0].key = time.Now(), wgtypes.Key{8} })
		if _, took := w.until("the new key", func(s State) bool { return s.Phase == Up && s.Key == wgtypes.Key{8} }); took > time.Second {
			t.Errorf("after %v", took)
		}
		w.end()
	})
}

func TestContainerThatCannotBeWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("a")
		w := start(t, c)
		w.up("a")
		c.set(func() { c.pods[0].trouble = failure.Newf(failure.Permission, "not permitted") })
		s, _ := w.until("told", func(s State) bool { return s.Err != nil })
		if s.Phase != Up || !s.Final {
			t.Errorf("%+v", s)
		}
		w.pass(10 * time.Minute) // enrolling again does not make it well
		if s := w.State(); s.Phase != Up || !s.Final || s.Err == nil {
			t.Errorf("later: %+v", s)
		}
		c.set(func() { c.pods[0].trouble = nil })
		w.up("a")
		w.end()
	})
}

func TestEndInEachPhase(t *testing.T) {
	enrolled := func(w *walk) { w.up("a") }
	for _, row := range []struct {
		name   string
		before func(c *fakeCluster)
		reach  func(w *walk)
		after  func(c *fakeCluster) // when reached
		byes   int
		within time.Duration
	}{
		{"seeking the workload", func(c *fakeCluster) { c.hang = "resolve" }, nil, nil, 0, 0},
		{"seeking a pod", func(c *fakeCluster) { c.hang = "pick" }, nil, nil, 0, 0},
		{"placing", func(c *fakeCluster) { c.hang = "place" }, nil, nil, 0, 0},
		{"dialling", func(c *fakeCluster) { c.hang = "dial" }, nil, nil, 0, 0},
		{"enrolling, listening nobody", func(c *fakeCluster) { c.pods[0].deaf = true }, nil, nil, 0, 0},
		{"enrolling, asked already", func(c *fakeCluster) { c.pods[0].silent = true }, nil, func(c *fakeCluster) { c.pods[0].silent = false }, 1, 0},
		{"waiting", func(c *fakeCluster) { c.unknown = failure.Newf(failure.Usage, "no such workload") }, nil, nil, 0, 0},
		{"up", nil, enrolled, nil, 1, 0},
		{"up, nobody answers", nil, enrolled, func(c *fakeCluster) { c.pods[0].silent = true }, 1, byePatience},
		{"up, the API is away", nil, enrolled, func(c *fakeCluster) { c.outage = errOutage }, 0, 0},
		{"up, the API hangs", nil, enrolled, func(c *fakeCluster) { c.hang = "dial" }, 0, byePatience},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("a")
				if row.before != nil {
					row.before(c)
				}
				w := start(t, c)
				if row.reach != nil {
					row.reach(w)
				}
				synctest.Wait()
				if row.after != nil {
					w.stop()
					c.set(func() { row.after(c) })
				}
				if took := w.end(); took > row.within {
					t.Errorf("it took %v", took)
				}
				if got := byes(w.asked("a")); got != row.byes {
					t.Errorf("%d goodbyes, want %d", got, row.byes)
				}
			})
		})
	}
}
