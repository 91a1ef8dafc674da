package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// proxyViaPath is the setting that --vnat is short for.
const proxyViaPath = "proxyVia"

// vnatFlag is a flag without a setting of its own: --vnat SUBNET is --proxy-via SUBNET=gateway.
const vnatFlag = "vnat"

func bindVNAT(flags *pflag.FlagSet) {
	flags.StringSlice(vnatFlag, nil, "short for --proxy-via SUBNET="+policy.WorkloadGateway+", which it adds to")
}

// addVNAT puts the entries of --vnat behind those of --proxy-via, without a workload, as [Layers] knows
// them by. An entry of --proxy-via without one is an error.
func addVNAT(flags *pflag.FlagSet, s *v1alpha1.Settings) error {
	for _, v := range s.ProxyVia {
		if v.Workload == "" {
			_, err := policy.Values(policy.SourceFlag, policy.Value{Key: proxyViaPath, Text: v.Subnet, Name: "--proxy-via"})
			return err
		}
	}
	subnets, err := flags.GetStringSlice(vnatFlag)
	if err != nil {
		return err
	}
	for _, subnet := range subnets {
		if before, workload, named := strings.Cut(subnet, "="); named {
			return fmt.Errorf("--%s: %q names a workload; write --%s %s, or --proxy-via %s=%s", vnatFlag, subnet, vnatFlag, before, before, workload)
		}
		if subnet = strings.TrimSpace(subnet); subnet != "" {
			s.ProxyVia = append(s.ProxyVia, v1alpha1.ProxyVia{Subnet: subnet})
		}
	}
	return nil
}

// withVNAT returns the entries of the command line with the workload of those from --vnat, and puts down in
// at which these are.
func withVNAT(entries []v1alpha1.ProxyVia, at policy.Positions) []v1alpha1.ProxyVia {
	entries = slices.Clone(entries)
	short := 0
	for i := range entries {
		if entries[i].Workload == "" {
			entries[i].Workload = policy.WorkloadGateway
			at[fmt.Sprintf("%s[%d]", proxyViaPath, i)] = policy.Position{Name: "--" + vnatFlag}
			short++
			continue
		}
		at[fmt.Sprintf("%s[%d]", proxyViaPath, i)] = at[proxyViaPath]
	}
	switch {
	case short == 0:
	case short == len(entries):
		at[proxyViaPath] = policy.Position{Name: "--" + vnatFlag}
	default:
		at[proxyViaPath] = policy.Position{Name: at[proxyViaPath].Name + " and --" + vnatFlag}
	}
	return entries
}
