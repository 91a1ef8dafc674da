package install

import (
	"errors"
	"fmt"
	"strings"

	chartutil "helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"sigs.k8s.io/yaml"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// checkedValues are the values whose content the chart's schema cannot judge.
type checkedValues struct {
	Client    v1alpha1.Settings
	Egress    struct{ Allow []string }
	Discovery struct {
		ClusterScope               bool
		ServiceSubnets, PodSubnets []string
	}
}

// checkValues reports values that fit the schema and make no sense: what the team's settings may say
// is decided by package policy, as for every other source of settings. Nothing of it reaches the
// cluster, where the API server would refuse the Policy half way through an upgrade.
func checkValues(loaded *chart.Chart, values map[string]any) error {
	all, err := chartutil.CoalesceValues(loaded, values)
	if err != nil {
		return fmt.Errorf("chart values: %w", err)
	}
	encoded, err := yaml.Marshal(all)
	if err != nil {
		return fmt.Errorf("chart values: %w", err)
	}
	var v checkedValues
	if err := yaml.Unmarshal(encoded, &v); err != nil {
		return failure.New(failure.Usage, fmt.Errorf("chart values: %w", err), "")
	}
	var problems []error
	if _, err := policy.Validate("chart value client", v.Client); err != nil {
		problems = append(problems, err)
	}
	for key, list := range map[string][]string{
		"egress.allow":             v.Egress.Allow,
		"discovery.serviceSubnets": v.Discovery.ServiceSubnets,
		"discovery.podSubnets":     v.Discovery.PodSubnets,
	} {
		for n, entry := range list {
			if _, err := policy.ParsePrefix(entry); err != nil {
				problems = append(problems, fmt.Errorf("chart value %s[%d]: %w", key, n, err))
			}
		}
	}
	if d := v.Discovery; !d.ClusterScope && (len(d.ServiceSubnets) == 0 || len(d.PodSubnets) == 0) {
		problems = append(problems, errors.New("chart value discovery.clusterScope: is false, so "+
			"discovery.serviceSubnets and discovery.podSubnets have to name the cluster's subnets"))
	}
	return joinProblems(problems)
}

// joinProblems returns one usage failure that lists the problems, or nil.
func joinProblems(problems []error) error {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return failure.New(failure.Usage, problems[0], "")
	}
	lines := strings.ReplaceAll(errors.Join(problems...).Error(), "\n", "\n  ")
	return failure.New(failure.Usage, errors.New("chart values refused:\n  "+lines), "")
}
