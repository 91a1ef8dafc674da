package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
)

// ownedPod is a pod of a workload.
type ownedPod struct {
	*corev1.Pod
	revision int // of a Deployment's ReplicaSet; the greatest is the current one
}

// PickPod returns the pod of w to reach a subnet through: that with UID keep as long as it is ready, so that
// the choice lasts as long as the pod. Else it is a ready pod of the current revision, rather one with an
// agent that runs, and the oldest: two users choose the same. Pods with UIDs to avoid, where an agent could
// not be had, come last: the image may be missing on one node alone. Where none can be used the failure says
// why.
func (c *Client) PickPod(ctx context.Context, w *Workload, keep types.UID, avoid ...types.UID) (*corev1.Pod, error) {
	owned, err := c.workloadPods(ctx, w)
	if err != nil {
		return nil, c.agentFailure(ctx, w.Namespace, "look for the pods of workload "+w.String(), err)
	}
	return pick(w, owned, keep, avoid)
}

// workloadPods returns the pods that w keeps running. Labels alone do not tell: selectors of several
// workloads may match one pod.
func (c *Client) workloadPods(ctx context.Context, w *Workload) ([]ownedPod, error) {
	revisions, err := c.revisions(ctx, w)
	if err != nil {
		return nil, err
	}
	list, err := c.dynamic.Resource(pods).Namespace(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: w.selector.String()})
	if err != nil {
		return nil, err
	}
	var out []ownedPod
	for i := range list.Items {
		owner := metav1.GetControllerOf(&list.Items[i])
		if owner == nil {
			continue
		}
		revision, ours := revisions[owner.UID]
		if !ours {
			continue
		}
		pod, err := decode[corev1.Pod](&list.Items[i])
		if err != nil {
			return nil, err
		}
		out = append(out, ownedPod{pod, revision})
	}
	return out, nil
}

// revisionAnnotation is a ReplicaSet's place in the history of its Deployment, a number.
const revisionAnnotation = "deployment.kubernetes.io/revision"

// revisions returns the objects that own the pods of w, with their revisions: w itself, or the ReplicaSets
// of a Deployment.
func (c *Client) revisions(ctx context.Context, w *Workload) (map[types.UID]int, error) {
	if w.Kind != policy.KindDeployment {
		return map[types.UID]int{w.UID: 0}, nil
	}
	list, err := c.dynamic.Resource(kindResource(policy.KindReplicaSet)).Namespace(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: w.selector.String()})
	if err != nil {
		return nil, err
	}
	out := map[types.UID]int{}
	for i := range list.Items {
		set := &list.Items[i]
		if metav1.IsControlledBy(set, &metav1.ObjectMeta{UID: w.UID}) {
			out[set.GetUID()], _ = strconv.Atoi(set.GetAnnotations()[revisionAnnotation]) // without one it is the oldest
		}
	}
	return out, nil
}

// pick is PickPod without the cluster.
func pick(w *Workload, owned []ownedPod, keep types.UID, avoid []types.UID) (*corev1.Pod, error) {
	if slices.ContainsFunc(owned, func(p ownedPod) bool { return p.Spec.HostNetwork }) {
		return nil, failure.Newf(failure.Refused, "workload %s: its pods use the network of their nodes (hostNetwork), where an agent would be open to everything on the node", w).
			WithHint("choose a workload without hostNetwork, or %s", policy.WorkloadGateway)
	}
	var ready []ownedPod
	var states []string
	for _, p := range owned {
		if why := unusable(p.Pod); why != "" {
			states = append(states, why)
			continue
		}
		ready = append(ready, p)
	}
	if len(ready) == 0 {
		return nil, noPod(w, states)
	}
	best := slices.MinFunc(ready, func(a, b ownedPod) int {
		return cmp.Or(
			first(!slices.Contains(avoid, a.UID), !slices.Contains(avoid, b.UID)),
			first(a.UID == keep, b.UID == keep),
			cmp.Compare(b.revision, a.revision),
			first(runsAgent(a.Pod), runsAgent(b.Pod)),
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return best.Pod, nil
}

// first orders what is true before what is not.
func first(a, b bool) int {
	switch {
	case a && !b:
		return -1
	case b && !a:
		return 1
	}
	return 0
}

// unusable says why a pod cannot be used now, or "".
func unusable(pod *corev1.Pod) string {
	if pod.DeletionTimestamp == nil && isReady(pod) {
		return ""
	}
	if state := podState(pod); state != "" {
		return state
	}
	return fmt.Sprintf("pod %s is %s but not ready", pod.Name, pod.Status.Phase)
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// noPod is the failure of a workload without a ready pod; states are those of the pods it has.
func noPod(w *Workload, states []string) error {
	describe := fmt.Sprintf("`kubectl -n %s describe %s/%s`", w.Namespace, w.Kind, w.Name)
	switch {
	case len(states) > 0:
		slices.Sort(states)
		return failure.Newf(failure.General, "workload %s has no ready pod: %s", w, strings.Join(states, "; ")).
			WithHint("see %s, or use another workload or %s", describe, policy.WorkloadGateway)
	case w.idle:
		return failure.Newf(failure.General, "workload %s has no pod: it is scaled to zero", w).
			WithHint("scale it up, or use another workload or %s", policy.WorkloadGateway)
	}
	return failure.Newf(failure.General, "workload %s has no pod", w).
		WithHint("see %s, or use another workload or %s", describe, policy.WorkloadGateway)
}
