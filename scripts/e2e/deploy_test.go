//go:build lab

package e2e

import (
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// TestDeploy runs the tests of deploy/install that need an API server, on the workstation: it is where
// the lab's API server can be reached.
func TestDeploy(t *testing.T) {
	l := shared
	binary := t.TempDir() + "/install.test"
	must(t, labctl.Run(5*time.Minute, "", "go", "test", "-c", "-tags", "lab", "-o", binary, "../../deploy/install"), "build the tests of deploy/install")
	r := l.WSEnv(5*time.Minute, []string{"CULVERT_TEST_KUBECONFIG=" + l.Kubeconfig}, "env", "-C", "../../deploy/install", binary, "-test.v", "-test.run", "OnACluster")
	must(t, r, "tests of deploy/install", "PASS")
	t.Log(r.Out)
}
