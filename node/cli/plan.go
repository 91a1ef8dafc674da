package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/connection"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/report"
	"github.com/culvert-dev/culvert/policy"
)

type planOptions struct {
	request report.Request
	diff    bool
	output  outputFormat
}

func newPlan() *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what connecting would do to the host's routes, and why",
		Long: `Show what connecting would do to the host's routes, and why: every prefix with its
reason, the routing rules, overlaps with other networks and what becomes of them.
Nothing is changed, and no root is needed: run it as yourself, without sudo.

While a connection runs, the plan in force is shown, unless flags ask for another.
With --diff, what would change against the plan in force is shown: what connecting
anew with these flags (and not those it was started with) would come to.

The exit code is 3 if connecting would be refused over a conflict, else 0.`,
		Example: `  culvert plan
  culvert plan --on-conflict virtualize
  culvert plan --vnat service,pods
  culvert plan --diff --never-proxy 10.130.7.9/32
  culvert plan -o json | jq .plan.routes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	bindRunning(cmd, &o.request.Name)
	cmd.Flags().BoolVar(&o.diff, "diff", false, "show what would change against the plan in force")
	o.output.bind(cmd)
	bindRequest(cmd, &o.request)
	return cmd
}

func (o *planOptions) run(cmd *cobra.Command) error {
	if err := completeRequest(cmd, &o.request); err != nil {
		return err
	}
	ctx, cancel := looking(cmd)
	defer cancel()
	running, err := runningPlan(ctx, o.request.Name)
	if err != nil {
		return err
	}
	if running != nil && !o.diff && !asksForAnother(cmd) {
		return o.show(cmd.OutOrStdout(), *running)
	}
	warnRoot(cmd.ErrOrStderr())
	preview, err := connection.NewPreview(ctx, o.request, basisOf(running))
	if err != nil {
		return err
	}
	plan := preview.Plan()
	if o.diff {
		var before policy.Plan
		if running != nil {
			before = running.Plan
		}
		plan.Diff = policy.DiffPlans(before, plan.Plan)
	}
	return o.show(cmd.OutOrStdout(), plan)
}

// runningPlan returns the plan that a connection follows; nil if there is no such connection.
func runningPlan(ctx context.Context, name string) (*api.Plan, error) {
	plan, err := api.NewClient(socketPath(name)).Plan(ctx)
	switch {
	case errors.Is(err, api.ErrNotRunning):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("plan of connection %s: %w", name, err)
	}
	return &plan, nil
}

func basisOf(running *api.Plan) *api.Basis {
	if running == nil {
		return nil
	}
	return running.Basis
}

// show writes a plan. Its error has exit code 3 if the plan is one to refuse.
func (o *planOptions) show(w io.Writer, plan api.Plan) error {
	var err error
	if o.output == jsonOutput {
		err = writeJSON(w, plan)
	} else {
		_, err = io.WriteString(w, planText(plan))
	}
	if err != nil || !plan.Refused {
		return err
	}
	if o.output == jsonOutput {
		return exitCode(failure.Conflict)
	}
	return &failure.Failure{Code: failure.Conflict, Text: plan.Plan.ConflictReport(), Raw: true}
}

// planText is a plan as people read it.
func planText(plan api.Plan) string {
	var b strings.Builder
	if plan.Diff != nil {
		for _, c := range plan.Diff {
			fmt.Fprintln(&b, c)
		}
		if len(plan.Diff) == 0 {
			b.WriteString("nothing would change\n")
		}
	} else {
		fmt.Fprintf(&b, "%s\n\n%s", planHeadline(plan), plan.Plan.Text())
	}
	for _, n := range plan.Narrowed {
		fmt.Fprintf(&b, "enforced\n  %s\n", n)
	}
	if len(plan.Consent) > 0 {
		fmt.Fprintf(&b, "consent\n  connect asks first, since the cluster's Policy would\n  %s\n", strings.Join(plan.Consent, "\n  "))
	}
	return b.String()
}

func planHeadline(plan api.Plan) string {
	if plan.InForce {
		return "connection " + plan.Name + " follows this plan"
	}
	if plan.Refused {
		return "connecting would be refused, and nothing changed"
	}
	return "connecting would come to this; nothing was changed"
}

// warnRoot says on w that the command reads the settings of the user it runs as.
func warnRoot(w io.Writer) {
	if os.Geteuid() == 0 && os.Getenv("SUDO_USER") != "" {
		fmt.Fprintln(w, "note: under sudo the kubeconfig and settings of root are read; run it as yourself") //nolint:errcheck // the terminal is gone
	}
}
