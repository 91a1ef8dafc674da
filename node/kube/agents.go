package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/culvert-dev/culvert/node/failure"
)

// AgentThere is an agent's container that stands in the cluster, with its state. Those that have ended stay
// in the specification of their pod, and are listed, as long as it lives.
type AgentThere struct {
	Agent
	AgentState
}

// pageSize is how many pods are asked for at once.
const pageSize = 500

// Agents returns the agents of namespaces, those of the whole cluster if none is named, sorted. Namespaces
// that the user may not look into are errors beside what the others have.
func (c *Client) Agents(ctx context.Context, namespaces ...string) ([]AgentThere, error) {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	var out []AgentThere
	var errs []error
	for _, namespace := range namespaces {
		found, err := c.agentsOf(ctx, namespace)
		out = append(out, found...)
		errs = append(errs, err)
	}
	slices.SortFunc(out, func(a, b AgentThere) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	return out, errors.Join(errs...)
}

// agentsOf lists a namespace, page by page.
func (c *Client) agentsOf(ctx context.Context, namespace string) ([]AgentThere, error) {
	var out []AgentThere
	options := metav1.ListOptions{Limit: pageSize}
	for {
		list, err := c.dynamic.Resource(pods).Namespace(namespace).List(ctx, options)
		if err != nil {
			return out, c.cannotList(ctx, namespace, err)
		}
		for i := range list.Items {
			found, err := agentsIn(&list.Items[i])
			if err != nil {
				return out, err
			}
			out = append(out, found...)
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return out, nil
		}
	}
}

// cannotList is the failure of a namespace whose pods cannot be listed.
func (c *Client) cannotList(ctx context.Context, namespace string, err error) error {
	if namespace != metav1.NamespaceAll {
		return c.agentFailure(ctx, namespace, "look for agents in namespace "+namespace, err)
	}
	const doing = "look for agents in all namespaces"
	if notAuthorised(err) {
		return failure.New(failure.Permission, fmt.Errorf("%s: not permitted: %w", doing, err), "name the namespaces to look into")
	}
	return c.explain(doing, err)
}

// agentsIn returns the agents of a pod.
func agentsIn(object *unstructured.Unstructured) ([]AgentThere, error) {
	pod, err := decode[corev1.Pod](object)
	if err != nil {
		return nil, err
	}
	var out []AgentThere
	for _, container := range agentContainers(pod) {
		out = append(out, AgentThere{agentIn(pod, container), agentState(pod, container.Name)})
	}
	return out, nil
}
