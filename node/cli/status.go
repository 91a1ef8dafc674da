package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
)

// bindName adds the flag that tells connections apart.
func bindName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", defaultName, "name of the connection")
}

// bindRunning is bindName for commands about connections that run; the shell offers those.
func bindRunning(cmd *cobra.Command, name *string) {
	bindName(cmd, name)
	offer := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return runningNames(), cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RegisterFlagCompletionFunc("name", offer) //nolint:errcheck // the flag exists
}

func newStatus() *cobra.Command {
	var name string
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the connection: state, gateway, carrier, routes, names",
		Long: `Show the connection: state, gateway, carrier, routes, names. Where several run and
--name chooses none, all of them are shown, as JSON one object after the other.

The exit code is 0 while connected, 1 otherwise, so a shell prompt can use it.`,
		Example: "  culvert status\n  culvert status -o json | jq .carrier\n  culvert status >/dev/null 2>&1 && echo in the cluster",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{name}
			if !cmd.Flags().Changed("name") {
				names = statusNames(runningNames())
			}
			statuses, err := readStatuses(cmd.Context(), names)
			if err != nil {
				return err
			}
			return showStatuses(cmd.OutOrStdout(), output, statuses)
		},
	}
	bindRunning(cmd, &name)
	output.bind(cmd)
	return cmd
}

// meant returns which connection a command is about: the one named or, if none was, the only one that runs where
// that is not the default.
func meant(cmd *cobra.Command, name string, running []string) string {
	if !cmd.Flags().Changed("name") && len(running) == 1 {
		return running[0]
	}
	return name
}

// statusNames returns whose status is shown when none is named: those that run, else the default's,
// which may have left a last word.
func statusNames(running []string) []string {
	if len(running) == 0 {
		return []string{defaultName}
	}
	return running
}

// readStatuses asks the connections called names. Where several were found, one that is just ending is
// left out.
func readStatuses(ctx context.Context, names []string) ([]api.Status, error) {
	var out []api.Status
	var errs []error
	for _, name := range names {
		status, err := readStatus(ctx, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, status)
	}
	if len(out) == 0 {
		return nil, errs[0]
	}
	return out, nil
}

// showStatuses writes all of them; its error has exit code 1 unless all are connected.
func showStatuses(w io.Writer, output outputFormat, statuses []api.Status) error {
	var result error
	for i, status := range statuses {
		var err error
		if output == jsonOutput {
			err = writeJSON(w, status)
		} else {
			if i > 0 {
				fmt.Fprintln(w) //nolint:errcheck // the next write tells
			}
			err = renderStatus(w, status, time.Now())
		}
		if err != nil {
			return err
		}
		if status.State != api.Connected {
			result = exitCode(failure.General)
		}
	}
	return result
}

// readStatus asks the running connection, or what the last one left behind when it was closed.
func readStatus(ctx context.Context, name string) (api.Status, error) {
	if err := checkName(name); err != nil {
		return api.Status{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := api.NewClient(socketPath(name)).Status(ctx)
	switch {
	case err == nil:
		return status, nil
	case !errors.Is(err, api.ErrNotRunning):
		return status, fmt.Errorf("status of connection %s: %w", name, err)
	}
	if closed, ok := lastWords(name); ok {
		return closed, nil
	}
	return api.Status{}, failure.Newf(failure.General, "no connection called %s runs on this machine", name).
		WithHint("start one with `sudo culvert connect`%s", othersText(name))
}

// othersText names the connections that run beside name, for a hint; "" for none.
func othersText(name string) string {
	others := slices.DeleteFunc(runningNames(), func(other string) bool { return other == name })
	if len(others) == 0 {
		return ""
	}
	return "; running: " + strings.Join(others, ", ") + " (choose with --name)"
}

func newQuit() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:     "quit",
		Short:   "End the connection and leave the host as it was",
		Example: "  culvert quit\n  culvert quit --name staging",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkName(name); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), quitTimeout)
			defer cancel()
			switch err := api.NewClient(socketPath(name)).Quit(ctx); {
			case errors.Is(err, api.ErrNotRunning):
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "no connection called %s runs: nothing to do%s\n", name, othersText(name))
				return err
			case err != nil:
				return fmt.Errorf("quit connection %s: %w", name, err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "disconnected; the host's routes and resolver are as before\n")
			return err
		},
	}
	bindRunning(cmd, &name)
	return cmd
}
