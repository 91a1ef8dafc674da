package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/dns/vip"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/connection"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/report"
	"github.com/culvert-dev/culvert/policy"
)

func newWhy() *cobra.Command {
	var request report.Request
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "why NAME|IP",
		Short: "Explain which way packets to a name or an address go",
		Long: `Explain which way packets to an address go: what becomes of them and why, our route
and rule, who else claims the address, the route without us, and what the kernel says
at this moment. For a name, first who answers it, with which addresses, and which of
them are withheld.

A name needs a connection, whose resolver is asked: that of --name or, without it, the
only one that runs. An address is explained without a connection too: then by the plan
that connecting would come to.`,
		Example: `  culvert why echo.default
  culvert why 10.130.5.6
  culvert why 10.130.5.6 -o json | jq '.addresses[].outcome'`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = meant(cmd, request.Name, runningNames())
			if err := completeRequest(cmd, &request); err != nil {
				return err
			}
			ctx, cancel := looking(cmd)
			defer cancel()
			why, err := askWhy(ctx, cmd, request, args[0])
			if err != nil {
				return err
			}
			if output == jsonOutput {
				return writeJSON(cmd.OutOrStdout(), why)
			}
			return renderWhy(cmd.OutOrStdout(), why)
		},
	}
	bindRunning(cmd, &request.Name)
	output.bind(cmd)
	bindRequest(cmd, &request)
	return cmd
}

// askWhy asks the running connection or, about an address while there is none or flags ask for another,
// a preview.
func askWhy(ctx context.Context, cmd *cobra.Command, request report.Request, target string) (api.Why, error) {
	var basis *api.Basis
	addr, notAddr := netip.ParseAddr(target)
	client := api.NewClient(socketPath(request.Name))
	if another := asksForAnother(cmd); !another || notAddr != nil {
		if another {
			return api.Why{}, usageFailure(cmd, errors.New("flags that make for another plan go with an address only"))
		}
		why, err := client.Why(ctx, target)
		switch {
		case err == nil:
			return why, nil
		case !errors.Is(err, api.ErrNotRunning):
			return why, fmt.Errorf("ask connection %s: %w", request.Name, err)
		case notAddr != nil:
			return why, failure.Newf(failure.General, "%s is a name, and no connection called %s runs whose resolver could be asked", target, request.Name).
				WithHint("connect first, or give an address%s", othersText(request.Name))
		}
	} else {
		running, err := runningPlan(ctx, request.Name)
		if err != nil {
			return api.Why{}, err
		}
		basis = basisOf(running)
	}
	warnRoot(cmd.ErrOrStderr())
	preview, err := connection.NewPreview(ctx, request, basis)
	if err != nil {
		return api.Why{}, err
	}
	return preview.Why(ctx, addr)
}

// renderWhy writes w for people.
func renderWhy(out io.Writer, w api.Why) error {
	var b strings.Builder
	if !w.InForce {
		b.WriteString("connecting would come to this; nothing was changed\n\n")
	}
	if w.Trace != nil {
		b.WriteString(traceText(*w.Trace) + "\n")
	}
	for i, e := range w.Addresses {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(e.Text())
		switch {
		case e.Lease != nil:
			fmt.Fprintf(&b, "  %-10s  %s\n", "the pool", leaseText(*e.Lease))
		case w.InForce && e.Pooled && e.Pool.Contains(e.Addr):
			fmt.Fprintf(&b, "  %-10s  leases it to nothing now: who sends there is told at once that nobody can be reached\n", "the pool")
		}
		fmt.Fprintf(&b, "  %-10s  %s\n", "the kernel", kernelText(e, w.InForce))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// kernelText is what the kernel says, and whether that is what is planned.
func kernelText(e api.Explained, inForce bool) string {
	k := e.Kernel
	switch {
	case k.Error != "":
		return "could not be asked: " + k.Error
	case k.Refusal != "":
		return "sends it nowhere: " + k.Refusal
	}
	text := "sends it to " + k.Interface
	if k.NextHop.IsValid() {
		text += " via " + k.NextHop.String()
	}
	if k.Table != 0 {
		text += fmt.Sprintf(", table %d", k.Table)
	}
	if through := e.Outcome == policy.OutcomeTunnel; inForce && through != (k.Interface == e.Interface) && !k.Local {
		text += "; that is not what is planned"
	}
	return text
}

// leaseText is what a leased virtual address stands for.
func leaseText(l vip.Info) string {
	text := fmt.Sprintf("%s stands for %s", l.VIP, l.Real)
	var names []string
	for _, name := range l.Names {
		names = append(names, strings.TrimSuffix(name, "."))
	}
	if len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	return text + ", last used " + l.Used.Format(time.DateTime)
}

// traceText is how a name is resolved, as people read it.
func traceText(t dns.Trace) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n", t.Name, traceOutcome(t))
	for _, l := range t.Lookups {
		who := whoAnswers(l.Source)
		if l.Workload != "" {
			who = whoAnswers(l.Source, l.Workload)
		}
		fmt.Fprintf(&b, "  %s  asked of %s: %s\n", l.Name, who, l.Reason)
		for _, q := range l.Questions {
			fmt.Fprintf(&b, "    %-4s  %s\n", q.Type, questionText(q))
		}
	}
	for _, x := range virtuals(t) {
		b.WriteString("  " + virtualText(x) + "\n")
	}
	for _, x := range t.Withheld() {
		fmt.Fprintf(&b, "  %s is withheld: %s is left to %s\n", x.Addr, x.Prefix, x.Owner)
	}
	return b.String()
}

// virtuals returns every virtual address given on the way, each once, in the order met.
func virtuals(t dns.Trace) []dns.VirtualAddr {
	var out []dns.VirtualAddr
	for _, l := range t.Lookups {
		for _, q := range l.Questions {
			for _, x := range q.Virtual {
				if !slices.Contains(out, x) {
					out = append(out, x)
				}
			}
		}
	}
	return out
}

// virtualText is what stands for an address of the cluster.
func virtualText(x dns.VirtualAddr) string {
	if !x.VIP.IsValid() {
		return fmt.Sprintf("%s has no virtual address: %s", x.Real, x.Error)
	}
	return fmt.Sprintf("%s stands for %s", x.VIP, x.Real)
}

func traceOutcome(t dns.Trace) string {
	switch {
	case len(t.Addresses) > 0:
		return "is " + join(t.Addresses)
	case len(t.Withheld()) > 0:
		return "has no address that a program gets: all are withheld"
	}
	return "has no address"
}

// whoAnswers spells out a source of the resolver. The workloads are those whose agents were asked.
func whoAnswers(source string, workloads ...string) string {
	agents := ""
	if len(workloads) > 0 {
		agents = "the agent in " + strings.Join(workloads, " and the agent in ")
	}
	switch source {
	case dns.SourceAgent.String():
		return agents
	case dns.SourceCluster.String():
		if agents != "" {
			return "the cluster and " + agents
		}
		return "the cluster"
	case dns.SourceUpstream.String():
		return "this host's own resolvers"
	}
	return "nobody"
}

// questionText is one answer: addresses or code, who gave it, and what it says beyond.
func questionText(q dns.Question) string {
	text := q.Rcode
	if len(q.Addresses) > 0 {
		text = join(q.Addresses)
	}
	text += ", answered by " + whoAnswers(q.AnsweredBy, q.Agents...)
	if q.Cached {
		text += ", remembered"
	}
	if len(q.Aliases) > 0 {
		text += ", by way of " + strings.Join(q.Aliases, ", ")
	}
	for _, e := range q.Errors {
		text += fmt.Sprintf("; %s (%d) %s", e.Meaning, e.Code, e.Text)
	}
	return text
}
