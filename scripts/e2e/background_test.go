//go:build lab

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// serveOnWorkstation runs the lab's server on the workstation until stop is called.
func (l *lab) serveOnWorkstation(t *testing.T) (stop func()) {
	t.Helper()
	// `lab exec` becomes the command, so that the process started here is the server.
	cmd := exec.Command(filepath.Join(l.bin, "lab"), l.wsArgs(nil, "lab", "labnet", "server")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
	}
	eventually(t, 5*time.Second, "server on the workstation", func() error {
		return ok(l.labnet(5*time.Second, "pingpong", "--count", "1", "127.0.0.1:7000"))
	})
	return stop
}
