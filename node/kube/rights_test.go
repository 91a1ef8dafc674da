package kube

import (
	"slices"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/culvert-dev/culvert/deploy"
)

// shippedRules are the rules of the Role that the chart makes.
func shippedRules(t *testing.T) []authorizationv1.ResourceRule {
	t.Helper()
	var role rbacv1.Role
	if err := yaml.UnmarshalStrict([]byte(deploy.UserRole("culvert")), &role); err != nil {
		t.Fatal(err)
	}
	var rules []authorizationv1.ResourceRule
	for _, r := range role.Rules {
		rules = append(rules, authorizationv1.ResourceRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	return rules
}

func TestShippedRoleSuffices(t *testing.T) {
	if missing := missingRights(shippedRules(t)); len(missing) > 0 {
		t.Errorf("the Role culvert-user lacks %v", missing)
	}
}

func TestMissingRights(t *testing.T) {
	all := []authorizationv1.ResourceRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}}
	if missing := missingRights(all); len(missing) > 0 {
		t.Errorf("an administrator lacks %v", missing)
	}
	if missing := missingRights(nil); len(missing) != len(neededRights) {
		t.Errorf("a stranger lacks only %v", missing)
	}
	rules := shippedRules(t)
	for i := range rules {
		if slices.Contains(rules[i].Resources, "peers") {
			rules[i].ResourceNames = []string{"mine"}
		}
	}
	if missing := missingRights(rules); !slices.Contains(missing, "watch peers") {
		t.Errorf("a rule for one object alone counts for all: missing %v", missing)
	}
}
