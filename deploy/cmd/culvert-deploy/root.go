package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth/exec" // credential plugins of a kubeconfig

	"github.com/culvert-dev/culvert/deploy/install"
	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

const long = `Install the gateway in the cluster, change it, look at it, remove it. An administrator
does this once per cluster; users then need the Role culvert-user alone.`

// commands are the subcommands' common ground: the cluster's flags and the streams.
type commands struct {
	streams
	cluster *genericclioptions.ConfigFlags
}

// newRoot returns the command tree under name, such as "culvert gateway".
func newRoot(name string, s streams) *cobra.Command {
	c := &commands{streams: s, cluster: genericclioptions.NewConfigFlags(true)}
	*c.cluster.Namespace = v1alpha1.DefaultNamespace
	root := &cobra.Command{
		Use:           "culvert-deploy",
		Short:         "Install the gateway in the cluster, change it, look at it, remove it",
		Long:          long,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: name},
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Example: fmt.Sprintf(`  %[1]s install
  %[1]s status
  %[1]s upgrade --set client.routing.allowConflictingSubnets="{10.128.0.0/9}"
  %[1]s uninstall`, name),
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return failure.New(failure.Usage, err, fmt.Sprintf("see `%s --help`", cmd.CommandPath()))
	})
	c.cluster.AddFlags(root.PersistentFlags())
	root.PersistentFlags().Lookup("namespace").Usage = "Namespace of the gateway"
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "culvert-namespace" { // its name in culvert's other commands, where --namespace is the user's
			name = "namespace"
		}
		return pflag.NormalizedName(name)
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(c.newInstall(), c.newUpgrade(), c.newUninstall(), c.newStatus(), c.newValues())
	return root
}

// installer connects the flags to package install.
func (c *commands) installer() (*install.Installer, error) {
	return install.New(c.cluster, *c.cluster.Namespace, c.err)
}

// usageArgs gives errors about arguments the exit code of a wrong usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return failure.New(failure.Usage, err, fmt.Sprintf("see `%s --help`", cmd.CommandPath()))
		}
		return nil
	}
}
