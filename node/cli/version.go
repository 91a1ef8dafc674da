package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/failure"
)

func newVersion() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Example: "  culvert version\n  culvert version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == jsonOutput {
				return writeJSON(cmd.OutOrStdout(), map[string]string{
					"version": version.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "culvert %s\n", version.Version)
			return err
		},
	}
	output.bind(cmd)
	return cmd
}

// outputFormat is the value of -o: "text" (or empty) or "json".
type outputFormat string

const jsonOutput outputFormat = "json"

func (o *outputFormat) bind(cmd *cobra.Command) {
	cmd.Flags().VarP(o, "output", "o", "output format: text or json")
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)) //nolint:errcheck // the flag exists
}

// String is part of pflag.Value.
func (o *outputFormat) String() string { return string(*o) }

// Type is part of pflag.Value.
func (o *outputFormat) Type() string { return "format" }

// Set is part of pflag.Value.
func (o *outputFormat) Set(s string) error {
	if s != "text" && s != "json" {
		return failure.Newf(failure.Usage, "unknown format %q: use text or json", s)
	}
	*o = outputFormat(s)
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
