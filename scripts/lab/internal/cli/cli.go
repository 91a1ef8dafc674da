// Package cli is the lab's command line.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
	"github.com/culvert-dev/culvert/scripts/lab/internal/labnet"
	"github.com/culvert-dev/culvert/scripts/lab/internal/serve"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/vpn"
)

// usageError is an error about how the command was called: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Main runs the lab's command line and returns its exit code: 0 done, 1 failed,
// 2 wrong usage.
func Main(args []string) int {
	if code, hidden := hiddenMain(args); hidden {
		return code
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "lab: error: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown ") {
		return 2
	}
	return 1
}

// hiddenMain runs what the lab starts itself as.
func hiddenMain(args []string) (code int, hidden bool) {
	if len(args) == 0 {
		return 0, false
	}
	var err error
	switch args[0] {
	case host.HoldCommand:
		return host.Hold(args[1:]), true
	case serve.Command:
		err = serve.Main(args[1:])
	case vpn.WireGuardCommand:
		err = vpn.WireGuardMain(args[1:])
	case vpn.PumpCommand:
		err = vpn.PumpMain(args[1:])
	case "labnet":
		return labnet.Main(args[1:]), true
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1, true
	}
	return 0, true
}

// app is what all subcommands share.
type app struct{ name string }

func newRoot() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:   "lab",
		Short: "a real Kubernetes cluster, a workstation and a corporate VPN in network namespaces",
		Long: `lab brings up, on one Linux machine as root, a workstation (ws), a router with a
public host behind it, a company's network with its VPN, and a real Kubernetes
cluster, all in namespaces of their own, and takes them down without a trace.

scripts/lab/README.md draws the network.`,
		Example: `  lab up --vpn openvpn
  lab exec ws -- curl http://intranet.corp.example/
  lab kubectl get pods -A
  lab down`,
		SilenceUsage: true, SilenceErrors: true,
	}
	name := os.Getenv("CULVERT_LAB_NAME")
	if name == "" {
		name = "lab"
	}
	root.PersistentFlags().StringVar(&a.name, "name", name, "which lab; several may be up (default from $CULVERT_LAB_NAME, else lab)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(a.up(), a.down(), a.status(), a.exec(), a.kubectl(), a.kubeconfig(), a.join(), a.vpn(), a.load(), a.snapshot(), a.build(), a.deps(), labnetHelp())
	return root
}

// labnetHelp shows the command in lists; hiddenMain runs it.
func labnetHelp() *cobra.Command {
	return &cobra.Command{
		Use: "labnet COMMAND", Short: "network load and figures; the program inside the workload image",
		DisableFlagParsing: true, Run: func(*cobra.Command, []string) {},
	}
}

// open reads the lab named by --name.
func (a *app) open() (*state.Lab, error) { return state.Open(a.name) }

func requireRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes network namespaces, mounts and cgroups: run it as root (sudo)")
	}
	return nil
}

// needArgs checks the number of arguments as a usage error.
func needArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
		}
		return nil
	}
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...)
}
