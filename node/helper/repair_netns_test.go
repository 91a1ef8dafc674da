//go:build netns

package helper

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// guardPID finds the guard of a helper: its only child.
func guardPID(t testing.TB, helper int) int {
	t.Helper()
	var pid int
	out, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", helper, helper))
	for _, f := range strings.Fields(string(out)) {
		_, _ = fmt.Sscan(f, &pid)
	}
	if pid == 0 { // the child was started by another thread
		out, _ := exec.Command("pgrep", "-P", fmt.Sprint(helper)).Output()
		_, _ = fmt.Sscan(string(out), &pid)
	}
	return pid
}

func TestKilledProcessesAreCleanedUpAfter(t *testing.T) {
	for name, kill := range map[string]func(t *testing.T, c *connection){
		"helper killed":     func(t *testing.T, c *connection) { sendSignal(t, c.HelperPID, unix.SIGKILL) },
		"helper terminated": func(t *testing.T, c *connection) { sendSignal(t, c.HelperPID, unix.SIGTERM) },
		"user half killed":  func(t *testing.T, c *connection) { sendSignal(t, c.NodePID, unix.SIGKILL) },
		"guard killed, then the helper": func(t *testing.T, c *connection) {
			first := guardPID(t, c.HelperPID)
			sendSignal(t, first, unix.SIGKILL)
			eventually(t, 3*time.Second, "another guard", func() bool {
				pid := guardPID(t, c.HelperPID)
				return pid != 0 && pid != first
			})
			sendSignal(t, c.HelperPID, unix.SIGKILL)
		},
		"guard asked to end, then the helper killed": func(t *testing.T, c *connection) {
			sendSignal(t, guardPID(t, c.HelperPID), unix.SIGTERM)
			sendSignal(t, c.HelperPID, unix.SIGKILL)
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := snapshot(t)
			c := connect(t, LaunchOptions{})
			if c.report.Error != "" {
				t.Fatal(c.report.Error)
			}
			kill(t, c)
			t.Logf("restored after %v", restoredWithin(t, before, time.Second))
			_ = c.Wait()
			eventually(t, 10*time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
		})
	}
}

// A stopped process holds its descriptors; the helper restores without the user half's help.
func TestStoppedUserHalfDoesNotDelayTheRestore(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	sendSignal(t, c.NodePID, unix.SIGSTOP)
	sendSignal(t, c.HelperPID, unix.SIGKILL)
	t.Logf("restored after %v", restoredWithin(t, before, time.Second))
}

func sendSignal(t testing.TB, pid int, sig unix.Signal) {
	t.Helper()
	if pid <= 0 {
		t.Fatal("no process to signal")
	}
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatal(err)
	}
}

func TestKillAtRandomInstants(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	before := snapshot(t)
	var worst time.Duration
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	for range rounds {
		c := launch(t, LaunchOptions{})
		delay := time.Duration(rng.Int64N(int64(150 * time.Millisecond)))
		time.Sleep(delay)
		victim := c.HelperPID
		if rng.IntN(2) == 0 {
			victim = c.NodePID
		}
		sendSignal(t, victim, unix.SIGKILL)
		worst = max(worst, restoredWithin(t, before, time.Second))
		c.end(t)
		eventually(t, 10*time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
		restoredWithin(t, before, 50*time.Millisecond)
	}
	t.Logf("%d rounds, restored within %v at worst", rounds, worst)
}

func TestEverythingKilledIsRepairedByTheNextStart(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	killAll(t, c)
	if snapshot(t) == before {
		t.Fatal("nothing was left to repair; the test proves nothing")
	}
	again := connect(t, LaunchOptions{})
	if again.report.Error != "" {
		t.Fatalf("start after a crash: %s", again.report.Error)
	}
	again.command(t, "close")
	restoredWithin(t, before, time.Second)
}

// killAll kills all three processes at once: the guard first, stopped beforehand so that nobody acts.
func killAll(t testing.TB, c *connection) {
	t.Helper()
	guard := guardPID(t, c.HelperPID)
	for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} {
		for _, pid := range []int{guard, c.HelperPID, c.NodePID} {
			sendSignal(t, pid, sig)
		}
	}
	_ = c.Wait()
	eventually(t, 10*time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
}

func TestEverythingKilledIsRepairedByCleanup(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	killAll(t, c)
	done, err := CleanupAll(t.Context(), Paths{}, testLog(t))
	if err != nil || len(done) == 0 {
		t.Fatalf("cleanup did %q, error %v", done, err)
	}
	restoredWithin(t, before, 50*time.Millisecond)
	if done, err := CleanupAll(t.Context(), Paths{}, testLog(t)); err != nil || len(done) != 0 {
		t.Fatalf("a second cleanup did %q, error %v", done, err)
	}
}

// Without the journal the kernel's part is found by marker; what the resolver file said is lost, which
// is said.
func TestCleanupWithoutJournal(t *testing.T) {
	before := snapshot(t)
	sh(t, "cp -a /etc/resolv.conf /mnt/resolv.conf")
	c := connect(t, LaunchOptions{})
	killAll(t, c)
	sh(t, "rm -r /var/lib/culvert")
	done, err := CleanupAll(t.Context(), Paths{}, testLog(t))
	if len(done) == 0 || err == nil || !strings.Contains(err.Error(), "/etc/resolv.conf was written by connection") {
		t.Fatalf("cleanup did %q, error %v", done, err)
	}
	sh(t, "mv /mnt/resolv.conf /etc/resolv.conf")
	restoredWithin(t, before, 50*time.Millisecond)
}

func TestWhatOtherProgramsUndoIsPutBack(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	for _, line := range []string{
		"ip rule del priority 5000 lookup 7830",
		"ip -6 rule del priority 5000 lookup 7830",
		"nft flush table inet culvert_culvert0",
		"nft delete table inet culvert_culvert0",
		"ip route del 10.130.0.0/16 table 7830",
		"ip link set culvert0 mtu 1300",
	} {
		connected := snapshot(t)
		sendSignal(t, c.HelperPID, unix.SIGSTOP) // it would be faster than the look
		sh(t, line)
		changed := snapshot(t) != connected
		sendSignal(t, c.HelperPID, unix.SIGCONT)
		if !changed {
			t.Fatalf("%s changes nothing", line)
		}
		equalWithin(t, connected, resyncEvery+2*time.Second)
	}
	c.command(t, "close")
	restoredWithin(t, before, time.Second)
}

// TestKernelTellsOfWhatOthersUndo measures how long the host is without what another program removed.
func TestKernelTellsOfWhatOthersUndo(t *testing.T) {
	before := snapshot(t)
	client := serveInProcess(t)
	open, state := testState("1")
	opened, err := client.Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	state.Interface = opened.Interface
	if err := client.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	host, closeHost, err := hostnet.New()
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost()
	scope := hostnet.Scope{Interface: opened.Interface, Name: DefaultName}
	var worst time.Duration
	for _, line := range []string{
		"ip rule del priority 5000 lookup 7830",
		"ip -6 rule flush", // all of them, also the host's own
		"ip route flush table 7830",
		"ip link set culvert0 down",
		"ip address del 245.1.2.10/32 dev culvert0",
		"nft delete table inet culvert_culvert0",
	} {
		began := time.Now()
		sh(t, line)
		eventually(t, resyncEvery/2, "put back after "+line, func() bool {
			actual, err := host.Read(scope)
			return err == nil && len(hostnet.Plan(scope, state, actual)) == 0
		})
		took := time.Since(began)
		t.Logf("%v: %s", took, line)
		worst = max(worst, took)
	}
	t.Logf("put back within %v at worst, the removing command included", worst)
	sh(t, "ip -6 rule add priority 32766 lookup main")
	client.Disconnect()
	restoredWithin(t, before, time.Second)
}

// TestProgramThatKeepsRemovingOurRule ends in a condition that the user half hears of.
func TestProgramThatKeepsRemovingOurRule(t *testing.T) {
	before := snapshot(t)
	client := serveInProcess(t)
	open, state := testState("1")
	opened, err := client.Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	state.Interface = opened.Interface
	if err := client.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	removed := 0
	for told := false; !told; {
		select {
		case e := <-client.Events():
			told = e.Contested != nil && !e.Contested.Over
			if told && (e.Contested.Kind != ContestUndone || e.Contested.What != "keeps undoing the IPv4 rule at priority 5000") {
				t.Errorf("told %+v", e.Contested)
			}
		default:
			if exec.Command("ip", "rule", "del", "priority", "5000", "lookup", "7830").Run() == nil {
				removed++
			}
		}
		if removed > 3*putBackBurst {
			t.Fatalf("put back %d times and still fighting", removed)
		}
	}
	if removed != putBackBurst+1 {
		t.Errorf("gave way after %d removals, want %d", removed, putBackBurst+1)
	}
	client.Disconnect()
	restoredWithin(t, before, time.Second)
}

func TestRemovedInterfaceEndsTheConnection(t *testing.T) {
	before := snapshot(t)
	connect(t, LaunchOptions{})
	sh(t, "ip link del culvert0")
	restoredWithin(t, before, resyncEvery+2*time.Second)
}

func TestRestoreSurvivesAnotherBoot(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	killAll(t, c)
	// What another boot leaves is the files; the kernel starts afresh, here by hand.
	sh(t, "ip rule del priority 5000; ip -6 rule del priority 5000; ip route flush table 7830; ip -6 route flush table 7830")
	sh(t, "nft delete table inet culvert_culvert0; rm /run/wireguard/culvert0.sock")
	sh(t, `sed -i 's/"bootID": ".*"/"bootID": "another"/' /var/lib/culvert/default/journal.json`)
	sh(t, "ip rule add priority 5000 lookup 7830 protocol 202") // somebody's, in this boot
	defer sh(t, "ip rule del priority 5000")
	if err := Cleanup(Paths{}, DefaultName, discard); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(sh(t, "ip rule"), "7830") {
		t.Error("a journal of another boot had the network changed")
	}
	sh(t, "ip rule del priority 5000")
	restoredWithin(t, before, 50*time.Millisecond)
	sh(t, "ip rule add priority 5000 lookup 7830")
}
