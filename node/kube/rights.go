package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/deploy"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// right is a verb on a resource of a namespace.
type right struct{ group, resource, verb string }

func (r right) String() string { return r.verb + " " + r.resource }

// neededRights are those without which a connection cannot be made or kept. The Role that is shipped
// grants a few more, for looking into what is wrong.
var neededRights = []right{
	{v1alpha1.Group, v1alpha1.PeerResource, "create"},
	{v1alpha1.Group, v1alpha1.PeerResource, "list"},
	{v1alpha1.Group, v1alpha1.PeerResource, "watch"},
	{v1alpha1.Group, v1alpha1.PeerResource, "patch"},
	{v1alpha1.Group, v1alpha1.PeerResource, "delete"},
	{v1alpha1.Group, v1alpha1.PolicyResource, "list"},
	{v1alpha1.Group, v1alpha1.PolicyResource, "watch"},
	{"", "pods/portforward", "create"},
}

// agentRights are those without which no agent can be put into some workload of a namespace, or reached.
// The Role of [deploy.AgentRole] grants a few more, for suggestions.
var agentRights = []right{
	{"apps", "deployments", "get"},
	{"apps", "statefulsets", "get"},
	{"apps", "daemonsets", "get"},
	{"apps", "replicasets", "get"},
	{"apps", "replicasets", "list"},
	{"", "pods", "get"},
	{"", "pods", "list"},
	{"", "pods", "watch"},
	{"", "pods/ephemeralcontainers", "patch"},
	{"", "pods/portforward", "create"},
}

var rulesReviews = schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectrulesreviews"}

// CheckRights asks the API server what the user may do in the gateway's namespace and returns a
// failure that names all that is missing, before anything is tried. Where the server cannot tell
// (authorizers that do not list their rules) it returns nil, and what is missing shows later.
func (c *Client) CheckRights(ctx context.Context) error {
	missing, err := c.missingRights(ctx, c.namespace, neededRights)
	if err != nil || len(missing) == 0 {
		return err
	}
	return failure.New(failure.Permission, c.notPermitted(c.namespace, missing), c.roleHint())
}

func (c *Client) notPermitted(namespace string, missing []string) error {
	return fmt.Errorf("not permitted in namespace %s as the user of context %q: %s", namespace, c.Context, strings.Join(missing, ", "))
}

// missingRights returns which of the rights needed in a namespace the user has not, as far as the API
// server can tell.
func (c *Client) missingRights(ctx context.Context, namespace string, needed []right) ([]string, error) {
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
		"spec": map[string]any{"namespace": namespace},
	}}
	got, err := c.dynamic.Resource(rulesReviews).Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return nil, c.explain("ask the API server what you may do", err)
	}
	rules, err := decode[authorizationv1.SelfSubjectRulesReview](got)
	if err != nil || rules.Status.Incomplete {
		return nil, err
	}
	return missingRights(rules.Status.ResourceRules, needed), nil
}

// agentFailure is explain for what an agent takes in a namespace: a missing right is told together with all
// others that are missing there, and with the Role to ask for.
func (c *Client) agentFailure(ctx context.Context, namespace, doing string, err error) error {
	if !notAuthorised(err) {
		return c.explain(doing, err)
	}
	hint := fmt.Sprintf("ask an administrator to bind you to this Role in namespace %s:\n\n%s", namespace, deploy.AgentRole(namespace))
	missing, reviewErr := c.missingRights(ctx, namespace, agentRights)
	if reviewErr != nil || len(missing) == 0 { // what was refused is told anyway
		return failure.New(failure.Permission, fmt.Errorf("%s: not permitted: %w", doing, err), hint)
	}
	return failure.New(failure.Permission, fmt.Errorf("%s: %w", doing, c.notPermitted(namespace, missing)), hint)
}

// missingRights returns which of the rights needed the rules do not grant.
func missingRights(rules []authorizationv1.ResourceRule, needed []right) []string {
	var missing []string
	for _, need := range needed {
		if !slices.ContainsFunc(rules, func(r authorizationv1.ResourceRule) bool { return grants(r, need) }) {
			missing = append(missing, need.String())
		}
	}
	return missing
}

// grants reports whether a rule gives a right for objects of every name.
func grants(rule authorizationv1.ResourceRule, need right) bool {
	has := func(list []string, want string) bool {
		return slices.Contains(list, want) || slices.Contains(list, "*")
	}
	_, sub, isSub := strings.Cut(need.resource, "/")
	return len(rule.ResourceNames) == 0 && has(rule.Verbs, need.verb) && has(rule.APIGroups, need.group) &&
		(has(rule.Resources, need.resource) || isSub && slices.Contains(rule.Resources, "*/"+sub))
}
