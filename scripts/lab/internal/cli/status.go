package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/scripts/lab/internal/build"
	"github.com/culvert-dev/culvert/scripts/lab/internal/cluster"
	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
	"github.com/culvert-dev/culvert/scripts/lab/internal/snapshot"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
	"github.com/culvert-dev/culvert/scripts/lab/internal/workloads"
)

// Status is what `lab status -o json` prints.
type Status struct {
	Name       string            `json:"name"`
	Ready      bool              `json:"ready"`
	Reason     string            `json:"reason,omitempty"` // why not ready
	Options    state.Options     `json:"options"`
	VPN        vpnStatus         `json:"vpn"`
	Hosts      []hostStatus      `json:"hosts"`
	APIServer  string            `json:"apiServer"` // URL
	Kubeconfig string            `json:"kubeconfig"`
	Services   []netip.Prefix    `json:"services"`
	Pods       []netip.Prefix    `json:"pods"`
	ClusterDNS []netip.Addr      `json:"clusterDNS"`
	Loopback   string            `json:"loopbackName"` // answers 127.0.0.1 and ::1
	Resolver   netip.Addr        `json:"resolver"`
	Corporate  site              `json:"corporate"`
	Public     site              `json:"public"`
	Versions   map[string]string `json:"versions"`
	Cache      string            `json:"cache"`
	Directory  string            `json:"directory"`
	Processes  []processStatus   `json:"processes"`
}

type vpnStatus struct {
	state.VPN
	ClientPID int `json:"clientPid,omitempty"`
	ServerPID int `json:"serverPid,omitempty"`
}

type hostStatus struct {
	Name      string       `json:"name"`
	PID       int          `json:"pid"` // of the holder: nsenter -t PID -n
	Addresses []netip.Addr `json:"addresses"`
}

// site is a web server outside the cluster.
type site struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	URL     string     `json:"url"` // by address
}

type processStatus struct {
	Name  string `json:"name"`
	Host  string `json:"host"`
	PID   int    `json:"pid"`
	Alive bool   `json:"alive"`
	Log   string `json:"log,omitempty"`
}

func (a *app) status() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "status [-o json]",
		Short: "show whether a lab is ready, its addresses and its processes",
		Long:  "status shows a lab. Its exit code is 1 unless the lab is ready, in both formats.",
		Example: `  lab status
  lab status -o json | jq -r .apiServer`,
		Args: needArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "" && format != "json" {
				return usageError{fmt.Errorf("-o %s: want json", format)}
			}
			l, err := a.open()
			if errors.Is(err, state.ErrNoLab) {
				l, err = &state.Lab{Name: a.name, VPN: state.VPN{Kind: state.VPNNone}}, nil
			}
			if err != nil {
				return err
			}
			s, err := gather(cmd.Context(), l)
			if err != nil {
				return err
			}
			if err := s.write(cmd.OutOrStdout(), format); err != nil {
				return err
			}
			if !s.Ready {
				return errors.New("the lab is not ready: " + s.Reason)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "", "json, or empty for people")
	return cmd
}

func (s Status) write(w io.Writer, format string) error {
	if format != "json" {
		return s.print(w)
	}
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(s)
}

func gather(ctx context.Context, l *state.Lab) (Status, error) {
	s := Status{
		Name: l.Name, Options: l.Options, VPN: vpnStatus{VPN: l.VPN},
		APIServer: "https://" + topology.APIServer().String(), Kubeconfig: cluster.AdminKubeconfig(l),
		Services: l.Options.Services, Pods: l.Options.Pods,
		Loopback: workloads.LoopbackName, Resolver: topology.CorpResolver,
		Corporate: site{topology.CorpName, topology.CorpWeb, "http://" + topology.CorpWeb.String() + "/"},
		Public:    site{topology.PublicName, topology.PublicAddr, "http://" + topology.PublicAddr.String() + "/"},
		Versions:  map[string]string{}, Directory: l.Dir(),
	}
	for _, p := range l.Options.Services {
		s.ClusterDNS = append(s.ClusterDNS, cluster.DNSAddr(p))
	}
	for _, p := range build.Parts() {
		s.Versions[p.Name] = p.Version
	}
	for _, h := range l.Hosts {
		s.Hosts = append(s.Hosts, hostStatus{Name: h.Name, PID: h.Holder.PID, Addresses: h.Addresses})
	}
	for _, p := range l.Book().All() {
		s.addProcess(p)
	}
	var err error
	if s.Cache, err = build.CacheDir(); err != nil {
		return s, err
	}
	if reason := notReady(ctx, l, s); reason != nil {
		s.Reason = reason.Error()
	}
	s.Ready = s.Reason == ""
	return s, nil
}

func (s *Status) addProcess(p proc.Process) {
	s.Processes = append(s.Processes, processStatus{Name: p.Name, Host: p.Host, PID: p.PID, Alive: p.Alive(), Log: p.Log})
	switch p.Name {
	case "vpn-client":
		s.VPN.ClientPID = p.PID
	case "vpn-server":
		s.VPN.ServerPID = p.PID
	}
}

// notReady is the first reason why the lab is not ready.
func notReady(ctx context.Context, l *state.Lab, s Status) error {
	if len(l.Hosts) == 0 {
		return errors.New("it is not up")
	}
	if !l.Complete {
		return errors.New("`lab up` has not finished")
	}
	for _, p := range s.Processes {
		if !p.Alive {
			return fmt.Errorf("%s has ended, see %s", p.Name, p.Log)
		}
	}
	return cluster.Ready(ctx, l)
}

func (s Status) print(out io.Writer) error {
	ready := "ready"
	if !s.Ready {
		ready = "not ready: " + s.Reason
	}
	fmt.Fprintf(out, "lab %s  %s\n\n", s.Name, ready)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "API server\t%s\nkubeconfig\t%s\n", s.APIServer, s.Kubeconfig)
	fmt.Fprintf(w, "services\t%s\npods\t%s\n", text(s.Services), text(s.Pods))
	vpnText := s.VPN.Kind + ", down"
	if s.VPN.Up {
		vpnText = fmt.Sprintf("%s, up on %s, takes %s", s.VPN.Kind, s.VPN.Interface, text(s.VPN.Routes))
	}
	fmt.Fprintf(w, "VPN\t%s\nresolver\t%s\n", vpnText, s.Resolver)
	fmt.Fprintf(w, "corporate\t%s\t%s\npublic\t%s\t%s\n", s.Corporate.URL, s.Corporate.Name, s.Public.URL, s.Public.Name)
	fmt.Fprintln(w)
	for _, h := range s.Hosts {
		fmt.Fprintf(w, "%s\t%v\n", h.Name, h.Addresses)
	}
	return w.Flush()
}

func (a *app) snapshot() *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot HOST",
		Short: "print a host's network state in a form two of which compare with diff",
		Long: `snapshot prints links, addresses, rules, the routes of all tables, the resolver's
files and the nftables rule set of a host, sorted, without counters, caches,
expiry times and numbers the kernel gives out. Two snapshots of an unchanged host
are equal byte by byte.`,
		Example: `  lab snapshot ws > before
  ...
  lab snapshot ws | diff before -`,
		Args: needArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := requireRoot(); err != nil {
				return err
			}
			l, err := a.open()
			if err != nil {
				return err
			}
			text, err := snapshot.Take(cmd.Context(), l, args[0])
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
}
