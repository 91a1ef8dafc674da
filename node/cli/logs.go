package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/node/failure"
)

func newLogs() *cobra.Command {
	var name string
	var follow bool
	cmd := &cobra.Command{
		Use:     "logs",
		Short:   "Show the log of the connection, also of one that has ended",
		Example: "  culvert logs\n  culvert logs --follow",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkName(name); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return showLogs(ctx, name, follow, cmd.OutOrStdout())
		},
	}
	bindRunning(cmd, &name)
	cmd.Flags().BoolVarP(&follow, "follow", "F", false, "go on with new lines until Ctrl-C")
	return cmd
}

// showLogs writes the helper's log, where it can be read, and then the user half's.
func showLogs(ctx context.Context, name string, follow bool, w io.Writer) error {
	shown := 0
	for _, path := range []string{helperLog(name), nodeLog(name)} {
		data, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission) && path == helperLog(name):
			continue
		case err != nil:
			return failure.New(failure.Permission, err, "the log belongs to the connection's owner; try sudo")
		}
		shown++
		if follow && path == nodeLog(name) {
			break
		}
		if _, err := fmt.Fprintf(w, "==> %s <==\n%s", path, data); err != nil {
			return err
		}
	}
	if shown == 0 {
		return failure.Newf(failure.General, "no log of a connection called %s on this machine", name)
	}
	if !follow {
		return nil
	}
	return followFile(ctx, nodeLog(name), w)
}

// followInterval is how often a followed file is looked at.
const followInterval = 250 * time.Millisecond

// followFile copies the file at path and what is appended to it until ctx ends.
func followFile(ctx context.Context, path string, w io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
