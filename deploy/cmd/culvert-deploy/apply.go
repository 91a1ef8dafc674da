package main

import (
	"context"
	"io/fs"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/deploy"
	"github.com/culvert-dev/culvert/deploy/install"
)

// applyFlags are the flags that install and upgrade share.
type applyFlags struct {
	options install.Options
	dryRun  bool
}

func (f *applyFlags) bind(flags *pflag.FlagSet) {
	o := &f.options
	flags.StringArrayVar(&o.Values.Set, "set", nil, "Chart value, key=value or key={a,b} for a list; repeatable")
	flags.StringArrayVar(&o.Values.SetString, "set-string", nil, "Chart value that is always a string, key=value; repeatable")
	flags.StringArrayVarP(&o.Values.Files, "values", "f", nil, "File of chart values in YAML, - for standard input; repeatable")
	flags.StringVar(&o.Values.Image, "image", "", "Image of the gateway, REPOSITORY:TAG")
	flags.BoolVar(&o.Wait, "wait", true, "Wait until the gateway is ready")
	flags.DurationVar(&o.Timeout, "timeout", 3*time.Minute, "Limit for --wait")
	flags.BoolVar(&o.ForceConflicts, "force-conflicts", false, "Take over fields that someone else changed in the cluster")
	flags.BoolVar(&f.dryRun, "dry-run", false, "Print what would be applied and change nothing")
}

func (c *commands) newInstall() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the gateway, its definitions and its rights",
		Long: `Install the gateway, its definitions and its rights. On a gateway that is installed it
does what upgrade does.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.apply(cmd.Context(), &f, (*install.Installer).Install)
		},
	}
	f.bind(cmd.Flags())
	cmd.Flags().BoolVar(&f.options.CreateNamespace, "create-namespace", true, "Make the namespace if it is missing; it then enforces Pod Security restricted")
	return cmd
}

func (c *commands) newUpgrade() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Bring the gateway to this version, or change its values or the team's Policy",
		Long: `Bring the gateway to this version, or change its values or the team's Policy. Values
given earlier are kept; --set and --values change only what they name.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.apply(cmd.Context(), &f, (*install.Installer).Upgrade)
		},
	}
	f.bind(cmd.Flags())
	cmd.Flags().BoolVar(&f.options.ResetValues, "reset-values", false, "Forget the values given earlier")
	return cmd
}

// apply runs install or upgrade.
func (c *commands) apply(ctx context.Context, f *applyFlags, do func(*install.Installer, context.Context, install.Options) error) error {
	installer, err := c.installer()
	if err != nil {
		return err
	}
	if f.dryRun {
		f.options.DryRun = c.out
	}
	return do(installer, ctx, f.options)
}

func (c *commands) newValues() *cobra.Command {
	return &cobra.Command{
		Use:   "values",
		Short: "Print the chart's values, their defaults and what they mean",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			values, err := fs.ReadFile(deploy.Chart(), "values.yaml")
			if err != nil {
				return err
			}
			_, err = c.out.Write(values)
			return err
		},
	}
}
