package main

import (
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/deploy/install"
	"github.com/culvert-dev/culvert/node/failure"
)

func (c *commands) newStatus() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the gateway's release, pods, Policy and peers; exit code 6 if it does not serve",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return failure.Newf(failure.Usage, "output format %q is not known: accepted is json", output)
			}
			installer, err := c.installer()
			if err != nil {
				return err
			}
			status, err := installer.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.print(status, output); err != nil {
				return err
			}
			return status.Err()
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Output format: json")
	return cmd
}

// print writes the status as text or as JSON.
func (c *commands) print(status *install.Status, output string) error {
	if output == "" {
		return status.WriteText(c.out, time.Now())
	}
	encoder := json.NewEncoder(c.out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(status)
}
