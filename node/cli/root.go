package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/failure"
)

const longHelp = `Culvert connects this workstation to a Kubernetes cluster over one WireGuard tunnel
and gets along with the VPN that is already here: it finds every overlap between the
two, says who owns it, and settles it as you or your team decide.`

const rootExamples = `  # once per cluster, by an administrator
  culvert gateway install

  # connect, look, use, leave
  sudo culvert connect
  culvert status
  curl http://echo.default
  culvert quit`

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		var exit exitCode
		if errors.As(err, &exit) {
			return int(exit)
		}
		f := failure.Of(err)
		printFailure(os.Stderr, f)
		if f.Code == failure.OK {
			return int(failure.General)
		}
		return int(f.Code)
	}
	return 0
}

// exitCode ends the program with a code and nothing more to say.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "culvert",
		Short:         "A WireGuard tunnel to a Kubernetes cluster that gets along with your VPN",
		Long:          longHelp,
		Example:       rootExamples,
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(usageFailure)
	root.AddCommand(newConnect(), newPlan(), newWhy(), newStatus(), newQuit(), newConfig(), newPolicy(), newLogs(), newCleanup(), newGateway(), newVersion())
	root.AddCommand(internalCommands()...)
	checkArgs(root)
	return root
}

// checkArgs gives wrong arguments of cmd and the commands below it their exit code.
func checkArgs(cmd *cobra.Command) {
	if cmd.Args != nil {
		cmd.Args = usageArgs(cmd.Args)
	}
	for _, sub := range cmd.Commands() {
		checkArgs(sub)
	}
}

func usageFailure(cmd *cobra.Command, err error) error {
	return failure.New(failure.Usage, err, fmt.Sprintf("see `%s --help`", cmd.CommandPath()))
}

// usageArgs gives the errors of an argument check the exit code for wrong usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageFailure(cmd, err)
		}
		return nil
	}
}

func printFailure(w io.Writer, f *failure.Failure) {
	if f.Raw {
		fmt.Fprintln(w, f.Text) //nolint:errcheck // the terminal is gone
		return
	}
	fmt.Fprintf(w, "error: %s\n", f.Text) //nolint:errcheck // the terminal is gone
	if f.Hint != "" {
		fmt.Fprintf(w, "hint:  %s\n", f.Hint) //nolint:errcheck // the terminal is gone
	}
}
