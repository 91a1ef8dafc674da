package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/scripts/lab/internal/build"
	"github.com/culvert-dev/culvert/scripts/lab/internal/cluster"
	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// The workstation's unprivileged user.
const (
	devName = "dev"
	devUID  = 1000
	devHome = "/home/dev"
)

func (a *app) exec() *cobra.Command {
	var userName string
	var uid int
	cmd := &cobra.Command{
		Use:   "exec [--user dev | --uid N] HOST -- COMMAND [ARGS]",
		Short: "run a command on a host (ws, router, public, vpn, corp, node1, ...)",
		Long: `exec runs a command inside a host: its network, its files under /etc, /run and
so on, its host name. Standard streams, terminal, signals and exit code are the
command's own. The working directory stays where it exists on the host.

Exit codes besides the command's: 127 no such program, 125 the lab's own failure.`,
		Example: `  lab exec ws -- ping -c1 10.20.0.80
  lab exec ws                          # a shell
  lab exec --user dev ws -- id
  lab exec node1 -- nft list ruleset`,
		Args: needArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			user, err := parseUser(userName, uid)
			if err != nil {
				return err
			}
			argv := args[1:]
			if len(argv) > 0 && argv[0] == "--" {
				argv = argv[1:] // cobra leaves it after the first plain argument
			}
			if len(argv) == 0 {
				argv = []string{"/bin/bash"}
			}
			return a.enter(args[0], host.All, user, argv, os.Environ())
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&userName, "user", "", "run as root or dev (uid 1000, home /home/dev)")
	cmd.Flags().IntVar(&uid, "uid", 0, "run as this user id, with the same group id")
	return cmd
}

func parseUser(name string, uid int) (host.User, error) {
	switch {
	case name == devName || (name == "" && uid == devUID):
		return host.User{UID: devUID, GID: devUID, Name: devName, Home: devHome}, nil
	case name != "" && name != "root":
		return host.User{}, usageError{fmt.Errorf("--user %s: want root or %s", name, devName)}
	case uid < 0:
		return host.User{}, usageError{fmt.Errorf("--uid %d: want 0 or more", uid)}
	}
	return host.User{UID: uid, GID: uid, Name: fmt.Sprint(uid), Home: "/"}, nil
}

// enter becomes argv inside a host, in the lab's cgroup, so that `lab down` also
// ends what it leaves behind.
func (a *app) enter(hostName string, kind host.Kind, user host.User, argv, env []string) error {
	if err := requireRoot(); err != nil {
		return err
	}
	l, err := a.open()
	if err != nil {
		return err
	}
	h, err := l.Host(hostName)
	if err != nil {
		return err
	}
	if !h.Holder.Alive() {
		return fmt.Errorf("host %s of lab %q is gone: run `lab down --name %[2]s`, then `lab up`", hostName, l.Name)
	}
	group, err := proc.OpenCgroup(l.Name)
	if err != nil {
		return err
	}
	if err := group.Add(0); err != nil {
		return err
	}
	err = host.Exec(h.Holder.PID, kind, user, argv, env)
	fmt.Fprintf(os.Stderr, "lab: error: %v\n", err)
	if errors.Is(err, exec.ErrNotFound) {
		os.Exit(127)
	}
	os.Exit(125)
	return nil
}

func (a *app) kubectl() *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl ARGS",
		Short: "run kubectl as the cluster's administrator, whatever the VPN does",
		Long: `kubectl runs the cluster's own kubectl with the administrator's kubeconfig, from
the first node's network and with this machine's files. A first argument
--name NAME chooses the lab.`,
		Example: `  lab kubectl get nodes -o wide
  lab kubectl --name other apply -f manifest.yaml`,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			args = a.takeName(args)
			l, err := a.open()
			if err != nil {
				return err
			}
			bin, _, err := build.Find()
			if err != nil {
				return err
			}
			argv := append([]string{bin["kubectl"]}, args...)
			env := append(without(os.Environ(), "KUBECONFIG"), "KUBECONFIG="+cluster.AdminKubeconfig(l))
			return a.enter(topology.Node(1), host.Net, host.User{}, argv, env)
		},
	}
}

// takeName takes a leading --name off args, whose other flags are kubectl's.
func (a *app) takeName(args []string) []string {
	switch {
	case len(args) >= 2 && args[0] == "--name":
		a.name = args[1]
		return args[2:]
	case len(args) >= 1 && strings.HasPrefix(args[0], "--name="):
		a.name = strings.TrimPrefix(args[0], "--name=")
		return args[1:]
	}
	return args
}

func without(env []string, name string) []string {
	var kept []string
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			kept = append(kept, e)
		}
	}
	return kept
}

func (a *app) kubeconfig() *cobra.Command {
	var user string
	var groups []string
	cmd := &cobra.Command{
		Use:   "kubeconfig [--user NAME [--group GROUP]...]",
		Short: "print the path of a kubeconfig that works on ws",
		Long: `kubeconfig prints the path of the administrator's kubeconfig (group
system:masters), or with --user makes one with a client certificate for that
user, who has no rights until somebody grants some. Root and the workstation's
user dev can read it.`,
		Example: `  export KUBECONFIG=$(lab kubeconfig)
  lab exec --user dev ws -- culvert connect --kubeconfig $(lab kubeconfig --user alice --group team)`,
		Args: needArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			path := cluster.AdminKubeconfig(l)
			if user != "" {
				path, err = cluster.UserKubeconfig(l, user, groups)
			}
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "make one for this user")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "the user's groups, with --user")
	return cmd
}

func (a *app) load() *cobra.Command {
	return &cobra.Command{
		Use:   "load IMAGE.tar",
		Short: "load a container image (docker-archive or OCI) into every node",
		Example: `  lab load culvert-gateway.tar
  # pods then use it with imagePullPolicy: Never`,
		Args: needArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			if _, err := os.Stat(args[0]); err != nil {
				return err
			}
			bin, _, err := build.Find()
			if err != nil {
				return err
			}
			printed, err := cluster.LoadImage(cmd.Context(), l, bin, args[0])
			fmt.Fprint(cmd.OutOrStdout(), printed)
			return err
		},
	}
}
