//go:build netns

package helper

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// crashCommand is a helper without a guard that kills itself at a given step.
const crashCommand = "__crash"

func init() { roles[crashCommand] = crashMain }

// crashingHost kills the process before its step "at" is made, or after it when "after" is set.
type crashingHost struct {
	hostnet.Host
	at    int
	after bool
	step  int
}

func (h *crashingHost) Do(c hostnet.Change) error {
	h.pass(false)
	err := h.Host.Do(c)
	h.pass(true)
	return err
}

func (h *crashingHost) CreateTUN(s hostnet.Scope) (*os.File, int, error) {
	h.pass(false)
	f, index, err := h.Host.CreateTUN(s)
	h.pass(true)
	return f, index, err
}

// pass kills the process at its step.
func (h *crashingHost) pass(after bool) {
	if !after {
		h.step++
	}
	if h.step == h.at && after == h.after {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {} // not one instruction more
	}
}

// crashMain runs the helper with a crashing host: args are the step and "before" or "after".
func crashMain(args []string) int {
	at, _ := strconv.Atoi(args[0])
	conn, lock, err := inherited()
	if err != nil {
		return 1
	}
	defer lock.Close()
	host, closeHost, err := hostnet.New()
	if err != nil {
		return 1
	}
	defer closeHost()
	err = Run(noSignals, Options{Name: DefaultName, Conn: conn, Log: discard,
		Host: &crashingHost{Host: host, at: at, after: args[1] == "after"}})
	if err != nil {
		return 1
	}
	return 0
}

// crashAt runs a connection whose helper crashes at a step, and reports whether it did.
func crashAt(t *testing.T, at int, when string) bool {
	t.Helper()
	lock, err := (Paths{}).lock(DefaultName)
	if err != nil {
		t.Fatal(err)
	}
	partners, err := socketPair("helper")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", crashCommand, strconv.Itoa(at), when)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{partners[0], lock}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = partners[0].Close()
	_ = lock.Close()
	failed := exchange(t, partners[1])
	err = cmd.Wait()
	if crashed := err != nil; crashed != (failed != nil) {
		t.Fatalf("helper ended with %v, the client saw %v", err, failed)
	}
	if failed != nil && !errors.Is(failed, ErrHelperGone) {
		t.Fatalf("the client saw %v, want ErrHelperGone", failed)
	}
	return failed != nil
}

// exchange opens, applies two states and closes.
func exchange(t *testing.T, partner *os.File) error {
	client, err := NewClient(t.Context(), partner)
	if err != nil {
		return err
	}
	defer client.Disconnect()
	open, state := testState("1")
	opened, err := client.Open(t.Context(), open)
	if err != nil {
		return err
	}
	defer opened.Close()
	state.Interface = opened.Interface
	if err := client.Apply(t.Context(), state); err != nil {
		return err
	}
	state.Routes, state.Priority.V4, state.MTU = state.Routes[1:], 4000, 1300
	state.SkipMarks.V6 = []hostnet.Mark{wgQuickMark, tailscaleMark} // at the priority the rule has
	if err := client.Apply(t.Context(), state); err != nil {
		return err
	}
	return client.Close(t.Context(), nil)
}

func TestCrashAtEveryStepIsRepaired(t *testing.T) {
	before := snapshot(t)
	crashes, dirty := 0, 0
	for _, when := range []string{"before", "after"} {
		for at := 1; ; at++ {
			crashed := crashAt(t, at, when)
			if snapshot(t) != before {
				dirty++
			}
			if !crashed {
				restoredWithin(t, before, 50*time.Millisecond)
				break
			}
			crashes++
			repair(t, at)
			if now := snapshot(t); now != before {
				t.Fatalf("crash %s step %d is not repaired:\n%s", when, at, diff(t, before, now))
			}
		}
	}
	t.Logf("%d crashes, %d of them left something behind", crashes, dirty)
	if crashes < 40 || dirty < 30 {
		t.Error("too few crashes to prove anything")
	}
}

// repair does so by the next start or by cleanup, in turns.
func repair(t *testing.T, at int) {
	t.Helper()
	if at%2 == 0 {
		if _, err := CleanupAll(t.Context(), Paths{}, discard); err != nil {
			t.Fatal(err)
		}
		return
	}
	c := connect(t, LaunchOptions{})
	if c.report.Error != "" {
		t.Fatalf("start after a crash at step %d: %s", at, c.report.Error)
	}
	c.command(t, "close")
	_ = c.Wait()
	eventually(t, 10*time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
}
