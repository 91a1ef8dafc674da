package cli

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
)

func newCleanup() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Repair the host after a crash: remove whatever no running connection owns",
		Long: `Repair the host after a crash: remove interfaces, routes, rules, filters and resolver
entries that Culvert made and no running connection owns. Running connections are left
alone; on a clean host nothing happens. A new connect does the same by itself.`,
		Example: "  sudo culvert cleanup",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return failure.New(failure.Permission, helper.ErrNotRoot, "run `sudo culvert cleanup`")
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			done, err := helper.CleanupAll(cmd.Context(), helper.Paths{}, log)
			for _, line := range done {
				fmt.Fprintln(cmd.OutOrStdout(), line) //nolint:errcheck // the terminal is gone
			}
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "clean: nothing of a dead connection remains")
			}
			return err
		},
	}
}
