package deploy

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// role is a Role as far as it is compared here.
type role struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Rules    []struct{ APIGroups, Resources, Verbs, ResourceNames []string }
}

func TestUserRoleIsWhatTheChartGrants(t *testing.T) {
	rendered, err := os.ReadFile("install/testdata/defaults.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var inChart role
	for _, document := range strings.Split(string(rendered), "\n---\n") {
		var r role
		if err := yaml.Unmarshal([]byte(document), &r); err == nil && r.Kind == "Role" && r.Metadata.Name == UserRoleName {
			inChart = r
		}
	}
	var text role
	if err := yaml.UnmarshalStrict([]byte(UserRole("culvert")), &struct {
		APIVersion string `json:"apiVersion"`
		*role
	}{role: &text}); err != nil {
		t.Fatalf("%v in:\n%s", err, UserRole("culvert"))
	}
	if len(inChart.Rules) == 0 || !reflect.DeepEqual(text, inChart) {
		t.Errorf("UserRole differs from the chart:\n%+v\n%+v", text, inChart)
	}
}

func TestUserRoleGrantsNothingBeyondTheDesign(t *testing.T) {
	var r role
	if err := yaml.Unmarshal([]byte(UserRole("tunnels")), &r); err != nil {
		t.Fatal(err)
	}
	granted := map[string]string{}
	for _, rule := range r.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				granted[group+"/"+resource] = strings.Join(rule.Verbs, " ")
			}
		}
	}
	want := map[string]string{
		"culvert.dev/peers":    "get list watch create update patch delete",
		"culvert.dev/policies": "get list watch",
		"/pods":                "get list",
		"/pods/portforward":    "get create",
	}
	if !reflect.DeepEqual(granted, want) {
		t.Errorf("the Role grants %v, want %v", granted, want)
	}
	if r.Metadata.Namespace != "tunnels" {
		t.Errorf("namespace %q, want tunnels", r.Metadata.Namespace)
	}
}
