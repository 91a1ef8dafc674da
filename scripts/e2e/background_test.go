//go:build lab

package e2e

import (
	"os/exec"
	"testing"
	"time"
)

// serveOnWorkstation runs the lab's server on the workstation until stop is called.
func (l *lab) serveOnWorkstation(t *testing.T) (stop func()) {
	t.Helper()
	// `lab exec` becomes the command, so that the process started here is the server.
	argv := l.WSCommand(nil, "lab", "labnet", "server")
	cmd := exec.Command(argv[0], argv[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
	}
	eventually(t, 5*time.Second, "server on the workstation", func() error {
		return l.Labnet(5*time.Second, "pingpong", "--count", "1", "127.0.0.1:7000").OK()
	})
	return stop
}
