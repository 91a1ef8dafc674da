package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/node/config"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/report"
)

// bindRequest adds the flags that say which cluster, as whom and with which settings.
func bindRequest(cmd *cobra.Command, r *report.Request) {
	flags := cmd.Flags()
	flags.StringVarP(&r.ConfigFile, "config", "f", "", "file with settings; see config.example.yaml")
	config.BindFlags(flags)
	for flag, values := range config.Offers() {
		cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) //nolint:errcheck // the flag exists
	}
	r.Kube.BindFlags(flags)
}

// completeRequest checks the name and reads the settings of flags and environment.
func completeRequest(cmd *cobra.Command, r *report.Request) (err error) {
	if err := checkName(r.Name); err != nil {
		return err
	}
	r.Flags, r.Environment, err = config.FromCommand(cmd.Flags())
	if err != nil {
		return failure.New(failure.Usage, err, "")
	}
	return nil
}

// asksForAnother reports whether flags say anything that could make for another plan.
func asksForAnother(cmd *cobra.Command) bool {
	another := false
	cmd.Flags().Visit(func(f *pflag.Flag) {
		another = another || f.Name != "name" && f.Name != "output" && f.Name != "diff"
	})
	return another
}

// lookTimeout bounds commands that look and change nothing; a name that nobody answers takes a while.
const lookTimeout = 25 * time.Second

func looking(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), lookTimeout)
}
