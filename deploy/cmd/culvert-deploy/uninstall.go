package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/culvert-dev/culvert/deploy/install"
	"github.com/culvert-dev/culvert/node/failure"
)

func (c *commands) newUninstall() *cobra.Command {
	var options install.UninstallOptions
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the gateway and say what remains",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.CRDs = options.CRDs || all
			options.Namespace = all
			options.Confirm = func(question string) error { return c.confirm(question, yes) }
			installer, err := c.installer()
			if err != nil {
				return err
			}
			return installer.Uninstall(cmd.Context(), options)
		},
	}
	cmd.Flags().BoolVar(&options.CRDs, "crds", false, "Remove the custom resource definitions too, and with them every Peer and Policy of the cluster")
	cmd.Flags().BoolVar(&all, "all", false, "Remove the definitions and the namespace too, if install made it")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask")
	return cmd
}

// confirm asks on a terminal; elsewhere only --yes will do.
func (c *commands) confirm(question string, yes bool) error {
	if yes {
		return nil
	}
	if file, ok := c.in.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		return install.NotConfirmed(question)
	}
	fmt.Fprintf(c.err, "This will %s. Go on? [y/N] ", question)
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return failure.Newf(failure.General, "nothing was removed")
}
