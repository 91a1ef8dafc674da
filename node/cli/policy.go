package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/culvert-dev/culvert/node/connection"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/node/report"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// policyVersion is the version of what the commands below print as JSON.
const policyVersion = 1

func newPolicy() *cobra.Command {
	return newGroup("policy", "Show, check and compare the team's Policy",
		"  culvert policy show\n  culvert policy validate policy.yaml\n  culvert policy diff policy.yaml",
		newPolicyShow(), newPolicyValidate(), newPolicyDiff())
}

// shownPolicy is what `culvert policy show -o json` prints.
type shownPolicy struct {
	Version   int                   `json:"version"`
	Name      string                `json:"name"` // NAMESPACE/NAME
	Spec      v1alpha1.Settings     `json:"spec"`
	Status    v1alpha1.PolicyStatus `json:"status"`
	Agreement connection.Agreement  `json:"agreement,omitempty"`
	// Unknown says why Agreement is absent.
	Unknown string `json:"unknown,omitempty"`
}

func newPolicyShow() *cobra.Command {
	var options kube.Options
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the cluster's Policy: settings, subnets, problems, what is enforced",
		Long: `Show the cluster's Policy: its settings, the subnets that the gateway found, what the
gateway finds wrong, which keys are enforced, and whether you agreed to what it takes
from this host. Run it as yourself, without sudo.`,
		Example: "  culvert policy show\n  culvert policy show --context staging -o json | jq .spec",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := looking(cmd)
			defer cancel()
			client, team, err := readPolicy(ctx, options)
			if err != nil {
				return err
			}
			shown := shownPolicy{Version: policyVersion, Name: team.Namespace + "/" + team.Name, Spec: team.Spec, Status: team.Status}
			shown.Agreement, err = connection.AgreementTo(report.Request{Name: defaultName, Kube: options}, client, team)
			if err != nil {
				shown.Unknown = err.Error()
			}
			if output == jsonOutput {
				return writeJSON(cmd.OutOrStdout(), shown)
			}
			return renderPolicy(cmd.OutOrStdout(), shown)
		},
	}
	output.bind(cmd)
	options.BindFlags(cmd.Flags())
	return cmd
}

func readPolicy(ctx context.Context, options kube.Options) (*kube.Client, *v1alpha1.Policy, error) {
	client, err := kube.Load(options)
	if err != nil {
		return nil, nil, err
	}
	team, err := client.Policy(ctx)
	return client, team, err
}

// renderPolicy writes p for people: a heading per part, settings as YAML.
func renderPolicy(w io.Writer, p shownPolicy) error {
	spec, err := settingLines(p.Spec)
	if err != nil {
		return err
	}
	var b strings.Builder
	part := func(heading string, lines ...string) {
		if len(lines) == 0 {
			lines = []string{"none"}
		}
		fmt.Fprintf(&b, "%s\n  %s\n", heading, strings.Join(lines, "\n  "))
	}
	fmt.Fprintf(&b, "Policy %s\n", p.Name)
	part("settings", spec...)
	part("services", subnetLines(p.Status.Subnets.Services)...)
	part("pods", subnetLines(p.Status.Subnets.Pods)...)
	part("enforced", p.Spec.Enforce...)
	part("problems", p.Status.Problems...)
	if p.Unknown != "" {
		part("consent", "not known: "+p.Unknown)
	} else {
		part("consent", string(p.Agreement))
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// settingLines returns settings as YAML, without the sections that say nothing; none for no settings.
func settingLines(s v1alpha1.Settings) ([]string, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	maps.DeleteFunc(tree, func(_ string, v any) bool {
		section, ok := v.(map[string]any)
		return ok && len(section) == 0
	})
	if len(tree) == 0 {
		return nil, nil
	}
	text, err := yaml.Marshal(tree)
	return strings.Split(strings.TrimSpace(string(text)), "\n"), err
}

func subnetLines(subnets []v1alpha1.Subnet) []string {
	var out []string
	for _, s := range subnets {
		out = append(out, strings.TrimSpace(s.CIDR+"  "+s.Source))
	}
	return out
}

// validated is what `culvert policy validate -o json` prints.
type validated struct {
	Version int    `json:"version"`
	File    string `json:"file"`
	// Kind is "settings" or "Policy".
	Kind     string   `json:"kind"`
	Valid    bool     `json:"valid"`
	Problems []string `json:"problems,omitempty"`
}

func newPolicyValidate() *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a file with settings, or the manifest of a Policy",
		Long: `Check a file with settings, or the manifest of a Policy (kind: Policy). What is wrong is
named with file, line, key and the accepted values; the exit code is then 2. No cluster
is asked.`,
		Example: "  culvert policy validate ~/.config/culvert/config.yaml\n  culvert policy validate policy.yaml -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, _, err := readSettings(args[0])
			if output != jsonOutput {
				if err == nil {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: valid (%s)\n", args[0], kind)
				}
				return err
			}
			result := validated{Version: policyVersion, File: args[0], Kind: kind, Valid: err == nil}
			if err == nil {
				return writeJSON(cmd.OutOrStdout(), result)
			}
			result.Problems = strings.Split(err.Error(), "\n")
			if err := writeJSON(cmd.OutOrStdout(), result); err != nil {
				return err
			}
			return exitCode(failure.Usage)
		},
	}
	output.bind(cmd)
	return cmd
}

// settingsKind is what a file that is no manifest holds.
const settingsKind = "settings"

// readSettings reads and checks a file with settings or the manifest of a Policy, and says which it is.
// Errors have exit code 2.
func readSettings(path string) (kind string, settings v1alpha1.Settings, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return settingsKind, settings, usage(err)
	}
	layer := policy.Layer{Source: policy.SourceFile, Name: path}
	decode := policy.Decode
	if kind = settingsKind; policy.IsManifest(data) {
		kind, layer.Source, decode = policy.PolicyKind, policy.SourcePolicy, policy.DecodeManifest
	}
	if layer.Settings, layer.Positions, err = decode(path, data); err == nil {
		_, _, err = policy.Merge(layer) // what only one kind may say
	}
	if err != nil {
		return kind, settings, usage(err)
	}
	return kind, layer.Settings, nil
}

// settingsDiff is what `culvert policy diff -o json` prints.
type settingsDiff struct {
	Version int    `json:"version"`
	From    string `json:"from"`
	To      string `json:"to"`
	// Changes are the keys that differ.
	Changes []policy.SettingChange `json:"changes"`
}

func newPolicyDiff() *cobra.Command {
	var options kube.Options
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "diff FILE",
		Short: "Compare the settings in a file with the cluster's Policy",
		Long: `Compare the settings in a file, or in the manifest of a Policy, with the cluster's
Policy, key by key: "-" is what the Policy says, "+" what the file says. The order
within a list is no difference.`,
		Example: "  culvert policy diff policy.yaml\n  culvert policy diff policy.yaml -o json | jq .changes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, settings, err := readSettings(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := looking(cmd)
			defer cancel()
			_, team, err := readPolicy(ctx, options)
			if err != nil {
				return err
			}
			diff := settingsDiff{Version: policyVersion, From: "Policy " + team.Namespace + "/" + team.Name, To: args[0]}
			if diff.Changes, err = policy.DiffSettings(team.Spec, settings); err != nil {
				return fmt.Errorf("%s: %w", diff.From, err)
			}
			if output == jsonOutput {
				return writeJSON(cmd.OutOrStdout(), diff)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), diff.text())
			return err
		},
	}
	output.bind(cmd)
	options.BindFlags(cmd.Flags())
	return cmd
}

// text is the difference as people read it.
func (d settingsDiff) text() string {
	if len(d.Changes) == 0 {
		return d.To + " says what " + d.From + " says\n"
	}
	lines := []string{"--- " + d.From, "+++ " + d.To}
	for _, c := range d.Changes {
		for _, side := range []struct{ op, value string }{{"-", c.From}, {"+", c.To}} {
			if side.value != "" {
				lines = append(lines, side.op+" "+c.Key+": "+side.value)
			}
		}
	}
	return strings.Join(slices.Concat(lines, []string{""}), "\n")
}
