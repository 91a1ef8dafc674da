package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/culvert-dev/culvert/node/failure"
)

// right is one thing the user must be allowed to do; a comparable value.
type right struct {
	verb, group, resource, namespace string
}

// object is what the verb acts on, such as "statefulsets.apps in namespace culvert".
func (r right) object() string {
	text := schema.GroupResource{Group: r.group, Resource: r.resource}.String()
	if r.namespace != "" {
		text += " in namespace " + r.namespace
	}
	return text
}

// documents splits a manifest into objects; comments and empty documents are left out.
func documents(manifest string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, text := range strings.Split(manifest, "\n---") {
		object := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			return nil, fmt.Errorf("read a rendered object: %w", err)
		}
		if len(object) > 0 {
			objects = append(objects, &unstructured.Unstructured{Object: object})
		}
	}
	return objects, nil
}

// pluralOf returns the resource name of the kinds in the chart; all of them are regular.
func pluralOf(kind string) string {
	lower := strings.ToLower(kind)
	if strings.HasSuffix(lower, "y") {
		return strings.TrimSuffix(lower, "y") + "ies"
	}
	return lower + "s"
}

// rightsFor returns the verbs on each of the objects, and what keeping a release in Secrets needs.
func rightsFor(objects []*unstructured.Unstructured, namespace string, verbs ...string) []right {
	var needed []right
	add := func(group, resource, namespace string, verbs ...string) {
		for _, verb := range verbs {
			if r := (right{verb, group, resource, namespace}); !slices.Contains(needed, r) {
				needed = append(needed, r)
			}
		}
	}
	for _, object := range objects {
		gvk := object.GroupVersionKind()
		add(gvk.Group, pluralOf(gvk.Kind), object.GetNamespace(), verbs...)
	}
	add("", "secrets", namespace, "get", "list", "create", "update", "delete")
	slices.SortStableFunc(needed, func(a, b right) int {
		return cmp.Or(strings.Compare(a.namespace, b.namespace), strings.Compare(a.group, b.group), strings.Compare(a.resource, b.resource))
	})
	return needed
}

// checkRights asks the API server for each right and fails with all that are missing, so that
// nothing is installed by halves. Reviews that the server does not answer are passed over: the
// operation itself will say what is wrong.
func (i *Installer) checkRights(ctx context.Context, needed []right) error {
	defer i.out.waiting("the API server to say what you may do")()
	denied := make([]bool, len(needed))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for n, r := range needed {
		group.Go(func() error {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: r.verb, Group: r.group, Resource: r.resource, Namespace: r.namespace},
			}}
			answer, err := i.typed.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			denied[n] = err == nil && !answer.Status.Allowed
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return i.explain("ask the API server what you may do", err)
	}
	return missingRights(needed, denied)
}

// missingRights returns the failure that lists the denied ones of needed, verbs of one resource
// together, or nil.
func missingRights(needed []right, denied []bool) error {
	var lines []string
	var verbs []string // denied so far on the resource of the next line
	for n, r := range needed {
		if denied[n] {
			verbs = append(verbs, r.verb)
		}
		last := n == len(needed)-1 || needed[n+1].object() != r.object()
		if last && len(verbs) > 0 {
			lines = append(lines, strings.Join(verbs, ", ")+" "+r.object())
			verbs = nil
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return failure.New(failure.Permission, errors.New("you may not do what this takes; missing rights:\n  "+strings.Join(lines, "\n  ")),
		"run it as a cluster administrator, or ask one for these rights; nothing was changed")
}
