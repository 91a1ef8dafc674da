package install

import (
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

// String is the right as RBAC would put it: "create statefulsets.apps in namespace culvert".
func (r right) String() string {
	text := r.verb + " " + schema.GroupResource{Group: r.group, Resource: r.resource}.String()
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

// rightsFor returns what applying the objects needs, and what keeping a release in Secrets needs.
func rightsFor(objects []*unstructured.Unstructured, namespace string) []right {
	needed := map[right]bool{}
	for _, object := range objects {
		gvk := object.GroupVersionKind()
		for _, verb := range []string{"get", "create", "patch"} {
			needed[right{verb, gvk.Group, pluralOf(gvk.Kind), object.GetNamespace()}] = true
		}
	}
	for _, verb := range []string{"get", "list", "create", "update", "delete"} {
		needed[right{verb, "", "secrets", namespace}] = true
	}
	var sorted []right
	for r := range needed {
		sorted = append(sorted, r)
	}
	slices.SortFunc(sorted, func(a, b right) int {
		return strings.Compare(a.namespace+" "+a.group+" "+a.resource+" "+a.verb, b.namespace+" "+b.group+" "+b.resource+" "+b.verb)
	})
	return sorted
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
	var last right
	for n, r := range needed {
		if !denied[n] {
			continue
		}
		verb := r.verb
		if r.verb = last.verb; r == last && len(lines) > 0 {
			lines[len(lines)-1] = verb + ", " + lines[len(lines)-1]
			continue
		}
		r.verb = verb
		lines = append(lines, r.String())
		last = r
	}
	if len(lines) == 0 {
		return nil
	}
	return failure.New(failure.Permission, errors.New("you may not do what this takes; missing rights:\n  "+strings.Join(lines, "\n  ")),
		"run it as a cluster administrator, or ask one for these rights; nothing was changed")
}
