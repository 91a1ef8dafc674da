package install

import (
	"context"
	"fmt"
	"io"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	chartutil "helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	release "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// planned is what is about to be applied.
type planned struct {
	chart   *chart.Chart
	values  map[string]any // over the chart's defaults, those of the release before included
	crds    []*unstructured.Unstructured
	release *release.Release
	objects []*unstructured.Unstructured
}

// plan renders what would be applied and checks the values. It changes nothing.
func (i *Installer) plan(ctx context.Context, current *release.Release, kubernetes *common.KubeVersion, values map[string]any, o Options) (*planned, error) {
	loaded, err := loadChart()
	if err != nil {
		return nil, err
	}
	if current != nil && !o.ResetValues {
		values = chartutil.CoalesceTables(values, current.Config)
	}
	p := &planned{chart: loaded, values: values}
	if p.release, err = render(ctx, loaded, i.namespace, values, kubernetes); err != nil {
		return nil, err
	}
	if err := checkValues(loaded, values); err != nil {
		return nil, err
	}
	if p.crds, err = definitions(); err != nil {
		return nil, err
	}
	p.objects, err = documents(p.release.Manifest)
	return p, err
}

// rights returns what applying the plan takes.
func (p *planned) rights(namespace string, namespaceMissing bool) []right {
	needed := rightsFor(append(p.crds[:len(p.crds):len(p.crds)], p.objects...), namespace, "get", "create", "patch")
	if namespaceMissing {
		needed = append(needed, right{"create", "", "namespaces", ""})
	}
	return append(needed, right{"get", "", "namespaces", namespace})
}

// print writes the plan as YAML that kubectl could apply.
func (p *planned) print(w io.Writer, namespace string, withNamespace bool) error {
	var out strings.Builder
	for _, crd := range p.crds {
		encoded, err := yaml.Marshal(crd.Object)
		if err != nil {
			return fmt.Errorf("print %s: %w", crd.GetName(), err)
		}
		fmt.Fprintf(&out, "---\n%s", encoded)
	}
	if withNamespace {
		encoded, err := yaml.Marshal(newNamespace(namespace))
		if err != nil {
			return fmt.Errorf("print the namespace %s: %w", namespace, err)
		}
		fmt.Fprintf(&out, "---\n%s", encoded)
	}
	out.WriteString(p.release.Manifest)
	_, err := io.WriteString(w, out.String())
	return err
}
