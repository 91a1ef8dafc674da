package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// options are the command line and the environment, checked.
type options struct {
	namespace, policy string
	carrierListen     string
	healthListen      string
	mtu, maxPeers     int
	clusterScope      bool
	services, pods    []netip.Prefix
	egressAllow       []netip.Prefix
	clusterDomain     string
	resolvConf        string
	nameservers       []netip.AddrPort // empty: those of resolvConf
	kubeconfig        string
	logging
	podName, podUID string
	podAddrs        []netip.Addr
	carrierPort     uint16
}

const header = `culvert-gateway serves the workstations connected to this cluster.

It watches the Peers of its namespace, answers each in its status, and carries their traffic to
services and pods. It runs in a pod, where the chart sets what it needs; ` + "`culvert gateway install`" + `
puts it there.

Usage:
  culvert-gateway [flags]
  culvert-gateway agent [flags]      the same inside one pod of a workload, see agent --help
  culvert-gateway version

Examples:
  # in a pod, with everything discovered
  culvert-gateway --namespace culvert

  # where the gateway may not read the whole cluster
  culvert-gateway --cluster-scope=false --service-subnets 10.96.0.0/12 --pod-subnets 10.244.0.0/16

  # with a database outside the cluster, for development outside a pod
  culvert-gateway --kubeconfig ~/.kube/config --egress-allow 10.8.4.0/24 --log-level debug

Flags (each also as CULVERT_NAME in the environment, --egress-allow as CULVERT_EGRESS_ALLOW):
`

const footer = `
Environment by the downward API: POD_NAME, POD_UID, POD_NAMESPACE, POD_IPS (or POD_IP). GOMEMLIMIT
defaults to nine tenths of the container's memory limit.
`

func usage() string { return header + flagSet(&raw{}).FlagUsagesWrapped(100) + footer }

// raw are the flags as text.
type raw struct {
	options
	service, pod, allow []string
	servers             []string
}

// flagSet binds the flags to r, with their defaults.
func flagSet(r *raw) *pflag.FlagSet {
	f := pflag.NewFlagSet("culvert-gateway", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringVar(&r.namespace, "namespace", "", "namespace of the Peers and the Policy (default POD_NAMESPACE, else culvert)")
	f.StringVar(&r.policy, "policy", v1alpha1.DefaultPolicyName, "name of the Policy whose status this gateway writes")
	f.StringVar(&r.carrierListen, "carrier-listen", "127.0.0.1:7831", "loopback `address` that port-forwards reach")
	f.StringVar(&r.healthListen, "health-listen", ":7832", "`address` of /healthz, /readyz and /metrics")
	f.IntVar(&r.mtu, "mtu", 1420, "largest inner IP packet in `bytes`, 1280 to 9000")
	f.IntVar(&r.maxPeers, "max-peers", 1000, "`number` of Peers served at most, shared fairly between users; 0 means any")
	f.BoolVar(&r.clusterScope, "cluster-scope", true, "read ServiceCIDRs, nodes and pods of the whole cluster")
	f.StringSliceVar(&r.service, "service-subnets", nil, "`prefixes` of services, instead of discovery")
	f.StringSliceVar(&r.pod, "pod-subnets", nil, "`prefixes` of pods, instead of discovery")
	f.StringSliceVar(&r.allow, "egress-allow", nil, "further `prefixes` that may be dialled")
	f.StringVar(&r.clusterDomain, "cluster-domain", "", "DNS suffix of services (default from the pod's resolv.conf)")
	f.StringSliceVar(&r.servers, "nameservers", nil, "`addresses` of the cluster's nameservers, with a port unless it is 53 (default from the pod's resolv.conf)")
	f.StringVar(&r.resolvConf, "resolv-conf", "/etc/resolv.conf", "the pod's resolv.conf, a `file`")
	f.StringVar(&r.kubeconfig, "kubeconfig", "", "`file` to reach the API server with, outside a pod")
	r.logging.flags(f)
	return f
}

// parseOptions reads args, and the environment for what args leave open.
func parseOptions(args []string, env func(string) (string, bool)) (options, error) {
	var r raw
	f := flagSet(&r)
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	if f.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	var problems []error
	f.VisitAll(func(flag *pflag.Flag) {
		name := "CULVERT_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		if v, ok := env(name); ok && v != "" && !flag.Changed {
			if err := flag.Value.Set(v); err != nil {
				problems = append(problems, fmt.Errorf("%s=%q: not a value of --%s", name, v, flag.Name))
			}
		}
	})
	if len(problems) == 0 {
		problems = append(problems, r.fromPod(env), r.check())
	}
	return r.options, errors.Join(problems...)
}

// fromPod takes up what the downward API says of the pod.
func (r *raw) fromPod(env func(string) (string, bool)) error {
	get := func(name, otherwise string) string {
		if v, ok := env(name); ok && v != "" {
			return v
		}
		return otherwise
	}
	if r.namespace == "" {
		r.namespace = get("POD_NAMESPACE", v1alpha1.DefaultNamespace)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "culvert-gateway"
	}
	r.podName, r.podUID = get("POD_NAME", host), get("POD_UID", "")
	for _, s := range strings.FieldsFunc(get("POD_IPS", get("POD_IP", "")), func(c rune) bool { return c == ',' || c == ' ' }) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("POD_IPS: %w", err)
		}
		r.podAddrs = append(r.podAddrs, a.Unmap())
	}
	return nil
}

// check parses and bounds the values.
func (r *raw) check() error {
	var problems []error
	for _, list := range []struct {
		flag string
		text []string
		to   *[]netip.Prefix
	}{{"service-subnets", r.service, &r.services}, {"pod-subnets", r.pod, &r.pods}, {"egress-allow", r.allow, &r.egressAllow}} {
		for _, s := range list.text {
			p, err := policy.ParsePrefix(strings.TrimSpace(s))
			if err != nil {
				problems = append(problems, fmt.Errorf("--%s: %w", list.flag, err))
				continue
			}
			*list.to = append(*list.to, p)
		}
	}
	if r.maxPeers < 0 {
		problems = append(problems, fmt.Errorf("--max-peers %d: accepted are 0 (any) and more", r.maxPeers))
	}
	problems = append(problems, checkMTU(r.mtu), r.logging.check(), r.checkNameservers(), r.checkCarrier())
	return errors.Join(problems...)
}

func checkMTU(mtu int) error {
	if mtu < 1280 || mtu > 9000 {
		return fmt.Errorf("--mtu %d: accepted are 1280 to 9000", mtu)
	}
	return nil
}

func (r *raw) checkNameservers() (err error) {
	r.nameservers, err = parseNameservers(r.servers)
	return err
}

// parseNameservers reads the values of --nameservers.
func parseNameservers(list []string) (out []netip.AddrPort, _ error) {
	var problems []error
	for _, s := range list {
		server, err := netip.ParseAddrPort(s)
		if a, e := netip.ParseAddr(s); e == nil {
			server, err = netip.AddrPortFrom(a, 53), nil
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("--nameservers %q: accepted are addresses such as 10.96.0.10 or [fd00::a]:53", s))
			continue
		}
		out = append(out, server)
	}
	return out, errors.Join(problems...)
}

// checkCarrier keeps the carrier off the network: whoever reaches it needs no credentials but a
// WireGuard key, and only the API server's port-forward checks who may.
func (r *raw) checkCarrier() error {
	a, err := netip.ParseAddrPort(r.carrierListen)
	if err != nil {
		return fmt.Errorf("--carrier-listen %q: accepted is an address and port, such as 127.0.0.1:7831", r.carrierListen)
	}
	if !a.Addr().IsLoopback() {
		return fmt.Errorf("--carrier-listen %s: accepted are loopback addresses, as only port-forwards may reach it", r.carrierListen)
	}
	r.carrierPort = a.Port()
	return nil
}
