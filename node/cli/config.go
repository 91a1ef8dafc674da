package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/node/connection"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/report"
	"github.com/culvert-dev/culvert/policy"
)

// newGroup returns a command that only holds others.
func newGroup(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

func newConfig() *cobra.Command {
	return newGroup("config", "Show settings and where they come from", "  culvert config explain", newConfigExplain())
}

// settingsVersion is the version of explainedSettings as JSON.
const settingsVersion = 1

// explainedSettings is what `culvert config explain -o json` prints.
type explainedSettings struct {
	Version  int                `json:"version"`
	Settings []policy.Effective `json:"settings"`
	// Missing has a sentence for each source that could not be read.
	Missing []string `json:"missing,omitempty"`
}

func newConfigExplain() *cobra.Command {
	request := report.Request{Name: defaultName}
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "explain [KEY]",
		Short: "Show each setting with its value and its source",
		Long: `Show each setting with the value that a connection would use and the source it comes
from: flag, environment, file named with --config, your own file, kubeconfig, the
cluster's Policy, default. What a source of lower precedence says in vain, and what
was cut back because the Policy enforces a key, is listed below the value.

KEY is one key or a section. Run it as yourself, without sudo. Where the cluster does
not answer, its Policy's layer is missing, and that is said.`,
		Example: `  culvert config explain
  culvert config explain routing.allowConflictingSubnets
  culvert config explain routing --never-proxy 10.130.7.9/32
  culvert config explain transport.mtu -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := keysNamed(args)
			if err != nil {
				return usageFailure(cmd, err)
			}
			if err := completeRequest(cmd, &request); err != nil {
				return err
			}
			warnRoot(cmd.ErrOrStderr())
			ctx, cancel := looking(cmd)
			defer cancel()
			settings, missing, err := connection.EffectiveSettings(ctx, request)
			if err != nil {
				return err
			}
			settings = slices.DeleteFunc(settings, func(e policy.Effective) bool { return !slices.Contains(keys, e.Key) })
			return showSettings(cmd.OutOrStdout(), output, explainedSettings{settingsVersion, settings, missing})
		},
	}
	output.bind(cmd)
	bindRequest(cmd, &request)
	return cmd
}

func showSettings(w io.Writer, output outputFormat, x explainedSettings) error {
	if output == jsonOutput {
		return writeJSON(w, x)
	}
	text := policy.EffectiveText(x.Settings)
	for _, sentence := range x.Missing {
		text += "\n" + sentence + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// keysNamed returns the keys that an optional argument names: one, or those of a section.
func keysNamed(args []string) ([]string, error) {
	var all, named []string
	for _, k := range policy.Keys() {
		all = append(all, k.Path)
		if len(args) == 0 || k.Path == args[0] || strings.HasPrefix(k.Path, args[0]+".") {
			named = append(named, k.Path)
		}
	}
	if len(named) == 0 {
		return nil, fmt.Errorf("there is no setting %q; the settings are %s", args[0], strings.Join(all, ", "))
	}
	return named, nil
}

func completeKeys(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	keys, _ := keysNamed(nil)
	return keys, cobra.ShellCompDirectiveNoFileComp
}

// usage makes an error one of wrong usage or configuration.
func usage(err error) error { return failure.New(failure.Usage, err, "") }
