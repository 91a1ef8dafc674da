package install

import (
	"fmt"
	"strings"

	chartloader "helm.sh/helm/v4/pkg/chart/v2/loader"
	clivalues "helm.sh/helm/v4/pkg/cli/values"

	"github.com/culvert-dev/culvert/node/failure"
)

// Values are chart values as a command line gives them: later fields win over earlier ones, and
// later entries of a field over earlier ones.
type Values struct {
	Files     []string // paths of YAML files; "-" is standard input
	Set       []string // key=value with Helm's syntax of --set
	SetString []string // the same, every value a string
	Image     string   // REPOSITORY:TAG; "" leaves the image to the other fields
}

// Merge returns the values as one tree, without the chart's defaults. Errors have the exit code of
// a wrong usage.
func (v Values) Merge() (map[string]any, error) {
	options := clivalues.Options{ValueFiles: v.Files, Values: v.Set, StringValues: v.SetString}
	merged, err := options.MergeValues(nil)
	if err != nil {
		return nil, failure.New(failure.Usage, fmt.Errorf("chart values: %w", err), "")
	}
	emptyLists(merged)
	if v.Image == "" {
		return merged, nil
	}
	repository, tag, err := splitImage(v.Image)
	if err != nil {
		return nil, err
	}
	image := map[string]any{"repository": repository, "tag": tag}
	return chartloader.MergeMaps(merged, map[string]any{"image": image}), nil
}

// emptyLists makes the lists that --set key={} gives, Helm's one empty text, the empty lists that were
// meant.
func emptyLists(values map[string]any) {
	for key, value := range values {
		switch value := value.(type) {
		case map[string]any:
			emptyLists(value)
		case []any:
			if len(value) == 1 && value[0] == "" {
				values[key] = []any{}
			}
		}
	}
}

// splitImage splits REPOSITORY:TAG; the repository may hold a port.
func splitImage(image string) (repository, tag string, err error) {
	slash := strings.LastIndex(image, "/")
	colon := strings.LastIndex(image, ":")
	if colon <= slash || colon == len(image)-1 || colon == 0 {
		return "", "", failure.Newf(failure.Usage, "image %q is not of the form REPOSITORY:TAG", image)
	}
	return image[:colon], image[colon+1:], nil
}
