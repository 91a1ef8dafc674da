package kube

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/node/failure"
)

// gatewaySelector finds the gateway's pods; the chart sets these labels.
const gatewaySelector = "app.kubernetes.io/name=culvert,app.kubernetes.io/component=gateway"

// WhyNoGateway looks at the gateway's pods and returns a failure that says why none has answered.
func (c *Client) WhyNoGateway(ctx context.Context) error {
	const doing = "look for the gateway's pods"
	list, err := c.dynamic.Resource(pods).Namespace(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: gatewaySelector})
	if err != nil {
		return c.explain(doing, err)
	}
	if len(list.Items) == 0 {
		return failure.Newf(failure.GatewayState, "the gateway has no pod in namespace %s", c.namespace).
			WithHint("see `culvert gateway status`; an administrator installs it with `culvert gateway install`")
	}
	var states []string
	for i := range list.Items {
		pod, err := decode[corev1.Pod](&list.Items[i])
		if err != nil {
			return err
		}
		state := podState(pod)
		if state == "" {
			state = fmt.Sprintf("pod %s is %s but has not taken up the Peer", pod.Name, pod.Status.Phase)
		}
		states = append(states, state)
	}
	return failure.Newf(failure.GatewayState, "the gateway does not answer: %s", strings.Join(states, "; ")).
		WithHint("see `culvert gateway status` and `kubectl -n %s describe pods -l %s`", c.namespace, gatewaySelector)
}

// podState says in a few words what is wrong with a pod, such as "pod culvert-gateway-0 is waiting:
// ImagePullBackOff"; "" if nothing is.
func podState(pod *corev1.Pod) string {
	name := "pod " + pod.Name
	if pod.DeletionTimestamp != nil {
		return name + " is being deleted"
	}
	for _, status := range pod.Status.ContainerStatuses {
		switch {
		case status.State.Waiting != nil:
			return fmt.Sprintf("%s is waiting: %s %s", name, status.State.Waiting.Reason, status.State.Waiting.Message)
		case status.State.Terminated != nil:
			return fmt.Sprintf("%s ended with code %d: %s", name, status.State.Terminated.ExitCode, status.State.Terminated.Reason)
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Status != corev1.ConditionTrue && condition.Message != "" {
			return fmt.Sprintf("%s is %s: %s", name, pod.Status.Phase, condition.Message)
		}
	}
	return ""
}
