package kube

import (
	"slices"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/culvert-dev/culvert/deploy"
)

// rulesOf are the rules of a Role in YAML.
func rulesOf(t *testing.T, text string) []authorizationv1.ResourceRule {
	t.Helper()
	var role rbacv1.Role
	if err := yaml.UnmarshalStrict([]byte(text), &role); err != nil {
		t.Fatal(err)
	}
	var rules []authorizationv1.ResourceRule
	for _, r := range role.Rules {
		rules = append(rules, authorizationv1.ResourceRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	return rules
}

func TestShippedRolesSuffice(t *testing.T) {
	if missing := missingRights(rulesOf(t, deploy.UserRole("culvert")), neededRights); len(missing) > 0 {
		t.Errorf("the Role culvert-user lacks %v", missing)
	}
	if missing := missingRights(rulesOf(t, deploy.AgentRole("shop")), agentRights); len(missing) > 0 {
		t.Errorf("the Role culvert-agent-user lacks %v", missing)
	}
}

func TestMissingRights(t *testing.T) {
	all := []authorizationv1.ResourceRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}}
	if missing := missingRights(all, neededRights); len(missing) > 0 {
		t.Errorf("an administrator lacks %v", missing)
	}
	if missing := missingRights(nil, neededRights); len(missing) != len(neededRights) {
		t.Errorf("a stranger lacks only %v", missing)
	}
	rules := rulesOf(t, deploy.UserRole("culvert"))
	for i := range rules {
		if slices.Contains(rules[i].Resources, "peers") {
			rules[i].ResourceNames = []string{"mine"}
		}
	}
	if missing := missingRights(rules, neededRights); !slices.Contains(missing, "watch peers") {
		t.Errorf("a rule for one object alone counts for all: missing %v", missing)
	}
}
