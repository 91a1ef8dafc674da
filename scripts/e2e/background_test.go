//go:build lab

package e2e

import (
	"bytes"
	"io"
	"os/exec"
	"testing"
	"time"
)

// background starts a command on the workstation, its standard output going to out (nil: nowhere), and
// returns what ends it and waits.
func (l *lab) background(t *testing.T, out io.Writer, argv ...string) (stop func()) {
	t.Helper()
	return l.backgroundOn(t, "ws", out, argv...)
}

// backgroundOn is background on any host of the lab.
func (l *lab) backgroundOn(t *testing.T, host string, out io.Writer, argv ...string) (stop func()) {
	t.Helper()
	// `lab exec` becomes the command, so that the process started here is the command.
	argv = l.HostCommand(host, nil, argv...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
	}
}

// serveOnWorkstation runs the lab's server on the workstation until stop is called.
func (l *lab) serveOnWorkstation(t *testing.T) (stop func()) {
	t.Helper()
	stop = l.background(t, nil, "lab", "labnet", "server")
	eventually(t, 5*time.Second, "server on the workstation", func() error {
		return l.Labnet(5*time.Second, "pingpong", "--count", "1", "127.0.0.1:7000").OK()
	})
	return stop
}

// running is a command on the workstation that is waited for later.
type running struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

// start starts one; it does not outlive the test.
func (l *lab) start(t *testing.T, argv ...string) *running {
	t.Helper()
	r := &running{}
	argv = l.WSCommand(nil, argv...)
	r.cmd = exec.Command(argv[0], argv[1:]...)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.cmd.Process.Kill() //nolint:errcheck // it has ended unless the test failed
		r.cmd.Wait()         //nolint:errcheck // the same
	})
	return r
}
