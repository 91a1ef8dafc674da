package api

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test program runs itself with these, as another user.
const (
	helperSocket = "CULVERT_TEST_SOCKET"
	otherUID     = 65534
)

func TestMain(m *testing.M) {
	if path := os.Getenv(helperSocket); path != "" {
		os.Exit(asOther(path))
	}
	goleak.VerifyTestMain(m)
}

// asOther reads the status, which anyone may, and tries to quit. It returns 0 if that is refused.
func asOther(path string) int {
	c := NewClient(path)
	if _, err := c.Status(context.Background()); err != nil {
		println("status:", err.Error())
		return 1
	}
	if why, err := c.Why(context.Background(), "a b&c"); err != nil || why.Target != "a b&c" {
		println("why:", why.Target)
		return 3
	}
	if _, err := c.Plan(context.Background()); err == nil || !strings.Contains(err.Error(), "nothing is decided") {
		println("plan: not the connection's own error")
		return 4
	}
	if err := c.Quit(context.Background()); err == nil || !strings.Contains(err.Error(), "only the connection's owner") {
		println("quit is not refused")
		return 2
	}
	return 0
}

type fakeConnection struct {
	quit chan struct{}
	err  error
}

func (*fakeConnection) Status() Status {
	return Status{Version: StatusVersion, Name: "x", State: Connected}
}

func (*fakeConnection) Plan() (Plan, error) { return Plan{}, errors.New("nothing is decided yet") }

func (*fakeConnection) Why(_ context.Context, target string) (Why, error) {
	return Why{Version: WhyVersion, Target: target}, nil
}

func (f *fakeConnection) Quit(context.Context) error {
	close(f.quit)
	return f.err
}

// serve serves f for owner until the test ends.
func serve(t *testing.T, owner int, f *fakeConnection) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "culvert-api")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", path)
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o666))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, uint32(owner), f) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	})
	return path
}

func TestOwnerReadsAndQuits(t *testing.T) {
	f := &fakeConnection{quit: make(chan struct{})}
	c := NewClient(serve(t, os.Getuid(), f))
	if s, err := c.Status(t.Context()); err != nil || s.Name != "x" || s.State != Connected {
		t.Errorf("%+v, %v", s, err)
	}
	if err := c.Quit(t.Context()); err != nil {
		t.Error(err)
	}
	<-f.quit
}

func TestQuitTellsWhatWentWrong(t *testing.T) {
	f := &fakeConnection{quit: make(chan struct{}), err: errors.New("restore the host: no")}
	if err := NewClient(serve(t, os.Getuid(), f)).Quit(t.Context()); err == nil || err.Error() != "restore the host: no" {
		t.Errorf("%v", err)
	}
}

// TestOthersReadOnly runs a client as another user, which only root can.
func TestOthersReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: WHAT ANOTHER USER MAY DO, FOR WANT OF ROOT")
	}
	f := &fakeConnection{quit: make(chan struct{})}
	path := serve(t, 12345, f)
	program, err := os.ReadFile("/proc/self/exe") // where it lies, others may not get at it
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(filepath.Dir(path), "client")
	if err := os.WriteFile(own, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(own)
	cmd.Env = []string{helperSocket + "=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUID, Gid: otherUID}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as user %s: %v: %s", strconv.Itoa(otherUID), err, out)
	}
	select {
	case <-f.quit:
		t.Error("another user ended the connection")
	default:
	}
	if err := NewClient(path).Quit(t.Context()); err != nil { // root, who is not the owner
		t.Error(err)
	}
}

func TestNothingRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() //nolint:errcheck // left behind, as by a crash
	if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a socket that nobody serves: %v", err)
	}
}

func TestServeEndsWithAClientThatSaysNothing(t *testing.T) {
	f := &fakeConnection{quit: make(chan struct{})}
	path := serve(t, os.Getuid(), f)
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) //nolint:errcheck // before the server's end is awaited
}
