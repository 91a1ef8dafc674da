package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/scripts/lab/internal/build"
)

func (a *app) build() *cobra.Command {
	return &cobra.Command{
		Use:     "build",
		Short:   "build the cluster's programs into the cache, without a lab",
		Example: "  lab build\n  CULVERT_LAB_CACHE=/srv/cache lab build",
		Args:    needArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if packages := build.MissingPackages(build.Building); len(packages) > 0 {
				return fmt.Errorf("this machine lacks %s: run `lab deps --install`, or %s", strings.Join(packages, ", "), build.InstallCommand(packages))
			}
			_, err := build.Ensure(cmd.Context(), os.Stderr)
			return err
		},
	}
}

func (a *app) deps() *cobra.Command {
	var install bool
	cmd := &cobra.Command{
		Use:     "deps",
		Short:   "name, or install, what the lab needs of Debian or Ubuntu",
		Example: "  lab deps\n  lab deps --install",
		Args:    needArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			missing := build.MissingPackages(build.Building, build.Tooling)
			switch {
			case len(missing) == 0:
				progress("nothing is missing")
				return nil
			case !install:
				return fmt.Errorf("missing: %s (`lab deps --install`, or %s)", strings.Join(missing, ", "), build.InstallCommand(missing))
			}
			if err := requireRoot(); err != nil {
				return err
			}
			progress("installing %s", strings.Join(missing, ", "))
			return build.Install(cmd.Context(), missing, os.Stderr)
		},
	}
	cmd.Flags().BoolVar(&install, "install", false, "install it with apt-get (as root)")
	return cmd
}
