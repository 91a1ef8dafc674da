package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/node/failure"
)

// deployProgram installs the gateway. It is a program of its own because it links Helm, which would
// cost every long-lived culvert process memory and start-up time.
const deployProgram = "culvert-deploy"

func newGateway() *cobra.Command {
	return &cobra.Command{
		Use:   "gateway install|upgrade|uninstall|status [flags]",
		Short: "Install the gateway in the cluster, change it, look at it, remove it",
		Long: `Install the gateway in the cluster, change it, look at it, remove it. An administrator
does this once per cluster. The commands run culvert-deploy, which comes with culvert.`,
		Example: `  culvert gateway install
  culvert gateway status
  culvert gateway upgrade --set client.routing.allowConflictingSubnets="{10.128.0.0/9}"
  culvert gateway uninstall`,
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return execDeploy(args) },
	}
}

// execDeploy becomes culvert-deploy; it returns only if that fails.
func execDeploy(args []string) error {
	path, err := findDeploy()
	if err != nil {
		return err
	}
	env := append(os.Environ(), "CULVERT_COMMAND_NAME=culvert gateway")
	return failure.New(failure.General, syscall.Exec(path, append([]string{deployProgram}, args...), env), "could not start "+path)
}

func findDeploy() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), deployProgram)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	path, err := exec.LookPath(deployProgram)
	if errors.Is(err, exec.ErrNotFound) {
		return "", failure.New(failure.General, errors.New("culvert-deploy is neither beside culvert nor in PATH"),
			"install it from the same release as culvert")
	}
	return path, err
}
