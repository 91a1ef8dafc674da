package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/scripts/lab/internal/build"
	"github.com/culvert-dev/culvert/scripts/lab/internal/cluster"
	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
	"github.com/culvert-dev/culvert/scripts/lab/internal/serve"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
	"github.com/culvert-dev/culvert/scripts/lab/internal/vpn"
	"github.com/culvert-dev/culvert/scripts/lab/internal/workloads"
)

// upFlags are the flags of up as typed.
type upFlags struct {
	vpn, routes, services, pods string
	nodes                       int
	dual, light                 bool
}

func (a *app) up() *cobra.Command {
	d := state.Defaults()
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "bring a lab up; returns once everything in it is ready",
		Long: `up builds what is missing (once; about a quarter of an hour), makes the hosts and
the network, starts the cluster and its workloads, and the VPN if one is asked
for. Remains of an earlier run of the same name are removed first. Interrupted
or failed, it takes down what it had made.`,
		Example: `  lab up
  lab up --vpn openvpn
  lab up --vpn wireguard --vpn-routes 0.0.0.0/0
  lab up --name second --light --services 10.96.0.0/16 --pods 10.244.0.0/16
  lab up --nodes 2 --dual-stack`,
		Args: needArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := f.options()
			if err != nil {
				return usageError{err}
			}
			if err := state.CheckName(a.name); err != nil {
				return usageError{err}
			}
			if err := requireRoot(); err != nil {
				return err
			}
			return bringUp(cmd.Context(), a.name, options)
		},
	}
	cmd.Flags().StringVar(&f.vpn, "vpn", d.VPN, "VPN to have on: "+strings.Join(state.VPNKinds, ", "))
	cmd.Flags().StringVar(&f.routes, "vpn-routes", text(d.VPNRoutes), "prefixes the VPN takes; 0.0.0.0/0 for a full tunnel")
	cmd.Flags().StringVar(&f.services, "services", text(d.Services), "service prefix; with --dual-stack an IPv6 one may follow")
	cmd.Flags().StringVar(&f.pods, "pods", text(d.Pods), "pod prefix; with --dual-stack an IPv6 one may follow")
	cmd.Flags().IntVar(&f.nodes, "nodes", d.Nodes, fmt.Sprintf("nodes, 1 to %d", state.MaxNodes))
	cmd.Flags().BoolVar(&f.dual, "dual-stack", false, "IPv6 services and pods too")
	cmd.Flags().BoolVar(&f.light, "light", false, "one replica of each workload")
	return cmd
}

// options parses and checks the flags.
func (f upFlags) options() (state.Options, error) {
	o := state.Options{VPN: f.vpn, Nodes: f.nodes, DualStack: f.dual, Light: f.light}
	var errs [3]error
	o.VPNRoutes, errs[0] = state.ParsePrefixes(f.routes)
	o.Services, errs[1] = state.ParsePrefixes(f.services)
	o.Pods, errs[2] = state.ParsePrefixes(f.pods)
	for i, name := range []string{"--vpn-routes", "--services", "--pods"} {
		if errs[i] != nil {
			return o, fmt.Errorf("%s: %w", name, errs[i])
		}
	}
	return o, o.Complete()
}

func bringUp(ctx context.Context, name string, options state.Options) (err error) {
	begin := time.Now()
	bin, err := prerequisites(ctx)
	if err != nil {
		return err
	}
	unlock, err := state.Lock(name, false)
	if err != nil {
		return err
	}
	defer unlock()
	if done, err := alreadyUp(ctx, name, options); done || err != nil {
		return err
	}
	l := &state.Lab{Name: name, Options: options, VPN: state.VPN{Kind: state.VPNNone}}
	defer func() {
		if err == nil {
			return
		}
		keepLogs(l)
		progress("taking down what was made")
		err = errors.Join(err, teardown(l))
	}()
	if err := l.Save(); err != nil {
		return err
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"making the network", func() error { return makeHosts(l) }},
		{"starting the cluster", func() error { return startCluster(ctx, l, bin) }},
		{"starting the VPN", func() error { return startVPN(ctx, l) }},
		{"waiting for the workloads", func() error {
			return cluster.Cluster{Lab: l, Bin: bin, Out: os.Stderr}.WaitReady(ctx)
		}},
	}
	for _, s := range steps {
		progress("%4.1fs  %s", time.Since(begin).Seconds(), s.what)
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	l.Complete = true
	if err := l.Save(); err != nil {
		return err
	}
	progress("%4.1fs  lab %q is ready (`lab status`, `lab exec ws`, `lab down`)", time.Since(begin).Seconds(), name)
	return nil
}

// prerequisites checks the machine and builds the parts that are missing.
func prerequisites(ctx context.Context) (build.Binaries, error) {
	_, missing, err := build.Find()
	if err != nil {
		return nil, err
	}
	if packages := build.MissingForLab(missing); len(packages) > 0 {
		return nil, fmt.Errorf("this machine lacks %s: run `lab deps --install`, or %s",
			strings.Join(packages, ", "), build.InstallCommand(packages))
	}
	return build.Ensure(ctx, os.Stderr)
}

// alreadyUp reports whether the very lab asked for is there and ready. Remains
// of one that is not are removed; one with other options is an error.
func alreadyUp(ctx context.Context, name string, options state.Options) (bool, error) {
	l, err := state.Open(name)
	if errors.Is(err, state.ErrNoLab) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if l.Complete && !reflect.DeepEqual(l.Options, options) && cluster.Ready(ctx, l) == nil {
		return false, fmt.Errorf("lab %q is up with other options: run `lab down --name %[1]s` first", name)
	}
	if l.Complete && cluster.Ready(ctx, l) == nil {
		progress("lab %q is already up", name)
		return true, nil
	}
	progress("removing what an earlier run of lab %q left", name)
	return false, teardown(l)
}

func makeHosts(l *state.Lab) error {
	group, err := proc.OpenCgroup(l.Name)
	if err != nil {
		return err
	}
	if err := group.Create("procs"); err != nil {
		return err
	}
	plan := topology.Make(l.Options.Nodes, append(append([]netPrefix{}, l.Options.Services...), l.Options.Pods...))
	holders := map[string]int{}
	for _, h := range plan.Hosts {
		made, err := makeHost(l, h)
		if err != nil {
			return err
		}
		holders[h.Name] = made.Holder.PID
		l.Hosts = append(l.Hosts, made)
		if err := l.Save(); err != nil {
			return err
		}
	}
	if err := plan.Build(holders); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, name := range []string{topology.Corp, topology.Public} {
		if _, err := launch.Start(l, launch.Spec{Name: "serve-" + name, Host: name, Args: []string{self, serve.Command, name}}); err != nil {
			return err
		}
	}
	return nil
}

func startCluster(ctx context.Context, l *state.Lab, bin build.Binaries) error {
	v := workloads.Values{
		DNS: cluster.DNSAddr(l.Options.Services[0]).String(), Upstream: topology.CorpResolver.String(),
		Services: cluster.JoinPrefixes(l.Options.Services), Pods: cluster.JoinPrefixes(l.Options.Pods),
		Replicas: 2, DualStack: l.Options.DualStack,
	}
	if l.Options.Light {
		v.Replicas = 1
	}
	if l.Options.DualStack {
		v.DNS6 = cluster.DNSAddr(l.Options.Services[1]).String()
	}
	manifests, err := workloads.Render(v)
	if err != nil {
		return err
	}
	return cluster.Cluster{Lab: l, Bin: bin, Out: os.Stderr}.Up(ctx, manifests)
}

func startVPN(ctx context.Context, l *state.Lab) error {
	if l.Options.VPN == state.VPNNone {
		return nil
	}
	return vpn.Up(ctx, l, l.Options.VPN, l.Options.VPNRoutes)
}
