package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
)

var namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

// kindResource is the resource of a kind of workload.
func kindResource(kind policy.WorkloadKind) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: string(kind) + "s"}
}

// Workload is a workload that was found in the cluster.
type Workload struct {
	policy.Workload // with namespace and kind
	UID             types.UID

	selector labels.Selector
	idle     bool // scaled to zero
}

// workloadObject is what all kinds have in common.
type workloadObject struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Replicas *int32               `json:"replicas"` // nil for a DaemonSet
		Selector metav1.LabelSelector `json:"selector"`
	} `json:"spec"`
}

// Resolve looks for the workload that w names; namespace is that of one without. A name without a kind is
// looked for among all kinds. Failures name the candidates of an ambiguous name, what is near an unknown
// one, and the Role that a user without rights needs.
func (c *Client) Resolve(ctx context.Context, w policy.Workload, namespace string) (*Workload, error) {
	if w.Namespace == "" {
		w.Namespace = namespace
	}
	kinds := policy.WorkloadKinds()
	if w.Kind != "" {
		kinds = []policy.WorkloadKind{w.Kind}
	}
	found, err := c.lookUp(ctx, w, kinds)
	switch {
	case len(found) > 1:
		return nil, ambiguous(w, found)
	case len(found) == 1 && (err == nil || notAuthorised(err)): // who may see one kind has the choice of one
		return found[0], nil
	case err != nil:
		return nil, c.agentFailure(ctx, w.Namespace, "look for workload "+w.String(), err)
	}
	return nil, c.unknown(ctx, w, kinds)
}

// lookUp asks for the name among all kinds at once. The error is the weightiest: who lacks a right for one
// kind hears of it only if nothing worse has happened.
func (c *Client) lookUp(ctx context.Context, w policy.Workload, kinds []policy.WorkloadKind) ([]*Workload, error) {
	found, errs := make([]*Workload, len(kinds)), make([]error, len(kinds))
	var all sync.WaitGroup
	for i, kind := range kinds {
		all.Go(func() {
			object, err := c.dynamic.Resource(kindResource(kind)).Namespace(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
			if err == nil {
				found[i], err = newWorkload(object, kind)
			}
			if !apierrors.IsNotFound(err) {
				errs[i] = err
			}
		})
	}
	all.Wait()
	found = slices.DeleteFunc(found, func(w *Workload) bool { return w == nil })
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	worst := slices.IndexFunc(errs, func(err error) bool { return !notAuthorised(err) })
	if len(errs) == 0 {
		return found, nil
	}
	return found, errs[max(worst, 0)]
}

func newWorkload(object *unstructured.Unstructured, kind policy.WorkloadKind) (*Workload, error) {
	o, err := decode[workloadObject](object)
	if err != nil {
		return nil, err
	}
	w := &Workload{
		Workload: policy.Workload{Namespace: o.Namespace, Kind: kind, Name: o.Name}, UID: o.UID,
		idle: o.Spec.Replicas != nil && *o.Spec.Replicas == 0,
	}
	if w.selector, err = metav1.LabelSelectorAsSelector(&o.Spec.Selector); err != nil {
		return nil, fmt.Errorf("selector of workload %s: %w", w, err)
	}
	return w, nil
}

// ambiguous is the failure of a name that several workloads have.
func ambiguous(w policy.Workload, found []*Workload) error {
	var candidates []string
	for _, f := range found {
		candidates = append(candidates, f.String())
	}
	return failure.Newf(failure.Usage, "workload %s could be any of %s", w, strings.Join(candidates, ", ")).
		WithHint("write the kind as well, such as %s", candidates[0])
}

// unknown is the failure of a name that no workload has.
func (c *Client) unknown(ctx context.Context, w policy.Workload, kinds []policy.WorkloadKind) error {
	if there, known := c.namespaceNames(ctx); known && !slices.Contains(there, w.Namespace) {
		return failure.Newf(failure.Usage, "workload %s: there is no namespace %s in this cluster (context %q)", w, w.Namespace, c.Context).
			WithHint("%s", nearNamespace(w, there))
	}
	var words []string
	for _, kind := range kinds {
		words = append(words, string(kind))
	}
	return failure.Newf(failure.Usage, "workload %s: no %s of that name is in namespace %s", w, strings.Join(words, ", "), w.Namespace).
		WithHint("%s", nearWorkload(w, c.workloadNames(ctx, w.Namespace)))
}

// namespaceNames are the cluster's namespaces, if the user may know them.
func (c *Client) namespaceNames(ctx context.Context) (names []string, known bool) {
	list, err := c.dynamic.Resource(namespaces).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, false
	}
	for i := range list.Items {
		names = append(names, list.Items[i].GetName())
	}
	return names, true
}

// nearNamespace says what may have been meant by a namespace that is not there.
func nearNamespace(w policy.Workload, there []string) string {
	var kinds []string
	for _, kind := range policy.WorkloadKinds() {
		kinds = append(kinds, string(kind))
	}
	if kind := policy.Suggest(w.Namespace, kinds); kind != "" && w.Kind == "" {
		return fmt.Sprintf("did you mean the kind? write %s/%s", kind, w.Name)
	}
	if near := policy.Suggest(w.Namespace, there); near != "" {
		w.Namespace = near
		return fmt.Sprintf("did you mean %s?", w)
	}
	return "see `kubectl get namespaces`"
}

// workloadNames are the workloads of a namespace as KIND/NAME, without the ReplicaSets that a Deployment
// makes, as far as the user may know them.
func (c *Client) workloadNames(ctx context.Context, namespace string) []policy.Workload {
	var out []policy.Workload
	for _, kind := range policy.WorkloadKinds() {
		list, err := c.dynamic.Resource(kindResource(kind)).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			continue // they are for a hint only
		}
		for i := range list.Items {
			if metav1.GetControllerOf(&list.Items[i]) == nil {
				out = append(out, policy.Workload{Namespace: namespace, Kind: kind, Name: list.Items[i].GetName()})
			}
		}
	}
	return out
}

// maxListed is how many workloads of a namespace an error message names.
const maxListed = 10

// nearWorkload says which of the workloads there may have been meant.
func nearWorkload(w policy.Workload, there []policy.Workload) string {
	var names, all []string
	for _, t := range there {
		names, all = append(names, t.Name), append(all, t.String())
	}
	near := policy.Suggest(w.Name, names)
	switch {
	case near != "":
		return fmt.Sprintf("did you mean %s?", all[slices.Index(names, near)])
	case len(all) == 0:
		return fmt.Sprintf("see `kubectl -n %s get deployments,statefulsets,daemonsets,replicasets`", w.Namespace)
	case len(all) > maxListed:
		return fmt.Sprintf("there are %s and %d more", strings.Join(all[:maxListed], ", "), len(all)-maxListed)
	}
	return "there are " + strings.Join(all, ", ")
}
