package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/kube"
	release "helm.sh/helm/v4/pkg/release/v1"

	"github.com/culvert-dev/culvert/deploy"
	"github.com/culvert-dev/culvert/node/failure"
)

// ReleaseName is Helm's name for the gateway; there is one per namespace.
const ReleaseName = "culvert"

// fieldManager is whose fields these are in server-side apply.
const fieldManager = "culvert"

// oldestKubernetes is the first version that serves ValidatingAdmissionPolicy as v1.
const oldestKubernetes = "1.30"

func init() { kube.ManagedFieldsManager = fieldManager }

// Render returns the chart's objects as YAML for values over the chart's defaults, without asking a
// cluster. Values that the schema refuses are an error with the exit code of a wrong usage.
func Render(ctx context.Context, namespace string, values map[string]any) (string, error) {
	loaded, err := loadChart()
	if err != nil {
		return "", err
	}
	kubernetes, err := common.ParseKubeVersion("v" + oldestKubernetes + ".0")
	if err != nil {
		return "", err
	}
	rendered, err := render(ctx, loaded, namespace, values, kubernetes)
	if err != nil {
		return "", err
	}
	return rendered.Manifest, nil
}

// render prepares a first release without a cluster.
func render(ctx context.Context, loaded *chart.Chart, namespace string, values map[string]any, kubernetes *common.KubeVersion) (*release.Release, error) {
	quiet := action.ConfigurationSetLogger(slog.DiscardHandler)
	install := action.NewInstall(action.NewConfiguration(quiet))
	install.DryRunStrategy = action.DryRunClient
	install.ReleaseName = ReleaseName
	install.Namespace = namespace
	install.WaitStrategy = kube.HookOnlyStrategy
	install.KubeVersion = kubernetes
	install.Timeout = time.Minute
	prepared, err := install.RunWithContext(ctx, loaded, values)
	if err != nil {
		return nil, valuesFailure(err)
	}
	return asRelease(prepared)
}

// asRelease returns Helm's release as the type of its current chart version.
func asRelease(r any) (*release.Release, error) {
	switch r := r.(type) {
	case *release.Release:
		if r != nil {
			return r, nil
		}
	case release.Release:
		return &r, nil
	}
	return nil, fmt.Errorf("unexpected type %T of a release from Helm", r)
}

// schemaPreamble is what Helm puts before the list of values its schema refuses.
const schemaPreamble = "values don't meet the specifications of the schema(s) in the following chart(s):\nculvert:\n"

// valuesFailure gives an error of preparing a release its exit code: values that do not fit are a
// wrong usage.
func valuesFailure(err error) error {
	if refused, found := strings.CutPrefix(err.Error(), schemaPreamble); found {
		lines := strings.Split(strings.TrimSpace(refused), "\n")
		return failure.New(failure.Usage, errors.New("chart values refused:\n  "+strings.Join(lines, "\n  ")),
			"all values and their meaning: culvert gateway values")
	}
	return failure.New(failure.Usage, fmt.Errorf("prepare the release: %w", err), "")
}

// crdManifests returns the custom resource definitions as YAML, sorted by file name.
func crdManifests() ([][]byte, error) {
	names, err := fs.Glob(deploy.CRDs(), "*.yaml")
	if err != nil {
		return nil, err
	}
	var manifests [][]byte
	for _, name := range names {
		data, err := fs.ReadFile(deploy.CRDs(), name)
		if err != nil {
			return nil, fmt.Errorf("read the embedded definition %s: %w", name, err)
		}
		manifests = append(manifests, data)
	}
	return manifests, nil
}
