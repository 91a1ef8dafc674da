package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
)

// bindName adds the flag that tells connections apart.
func bindName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", defaultName, "name of the connection")
}

func newStatus() *cobra.Command {
	var name string
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the connection: state, gateway, carrier, routes, names",
		Long: `Show the connection: state, gateway, carrier, routes, names.

The exit code is 0 while connected, 1 otherwise, so a shell prompt can use it.`,
		Example: "  culvert status\n  culvert status -o json | jq .carrier\n  culvert status >/dev/null 2>&1 && echo in the cluster",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := readStatus(cmd.Context(), name)
			if err != nil {
				return err
			}
			if output == jsonOutput {
				err = writeJSON(cmd.OutOrStdout(), status)
			} else {
				err = renderStatus(cmd.OutOrStdout(), status, time.Now())
			}
			if err == nil && status.State != api.Connected {
				return exitCode(failure.General)
			}
			return err
		},
	}
	bindName(cmd, &name)
	output.bind(cmd)
	return cmd
}

// readStatus asks the running connection, or what the last one left behind when it was closed.
func readStatus(ctx context.Context, name string) (api.Status, error) {
	if err := checkName(name); err != nil {
		return api.Status{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	status, err := api.NewClient(socketPath(name)).Status(ctx)
	if !errors.Is(err, api.ErrNotRunning) {
		return status, err
	}
	if closed, ok := lastWords(name); ok {
		return closed, nil
	}
	return api.Status{}, failure.Newf(failure.General, "no connection called %s runs on this machine", name).
		WithHint("start one with `sudo culvert connect`")
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
			ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Second)
			defer cancel()
			switch err := api.NewClient(socketPath(name)).Quit(ctx); {
			case errors.Is(err, api.ErrNotRunning):
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "no connection called %s runs: nothing to do\n", name)
				return err
			case err != nil:
				return fmt.Errorf("quit connection %s: %w", name, err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "disconnected; the host's routes and resolver are as before\n")
			return err
		},
	}
	bindName(cmd, &name)
	return cmd
}
