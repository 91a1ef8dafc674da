package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/culvert-dev/culvert/node/failure"
)

// workload is the name of the StatefulSet; podSelector finds its pods.
const (
	workload    = "culvert-gateway"
	podSelector = "app.kubernetes.io/name=culvert,app.kubernetes.io/component=gateway"
)

const (
	pollInterval = 250 * time.Millisecond
	goneTimeout  = time.Minute
)

// WaitReady waits until the gateway that was last installed is ready, at most timeout. Meanwhile it
// says what it waits for whenever that changes. The error has the exit code of a gateway that is not
// ready.
func (i *Installer) WaitReady(ctx context.Context, timeout time.Duration) error {
	started := time.Now()
	var state, said string
	spoke := started
	err := wait.PollUntilContextTimeout(ctx, pollInterval, timeout, true, func(ctx context.Context) (bool, error) {
		ready, now, err := i.rollout(ctx)
		if err != nil || ready {
			return ready, err
		}
		state = now
		if time.Since(started) > patience && (state != said || time.Since(spoke) > patienceAgain) {
			said, spoke = state, time.Now()
			i.out.step("waiting for %s (%s)", state, time.Since(started).Round(time.Second))
		}
		return false, nil
	})
	switch {
	case err == nil:
		i.out.step("gateway ready after %s", time.Since(started).Round(100*time.Millisecond))
		return nil
	case wait.Interrupted(err) && ctx.Err() == nil:
		return failure.Newf(failure.GatewayState, "the gateway is not ready after %s: %s", timeout, state).
			WithHint("kubectl -n %s describe pods -l %s\nkubectl -n %s logs statefulset/%s", i.namespace, podSelector, i.namespace, workload)
	}
	return i.explain("wait for the gateway", err)
}

// rollout reports whether the StatefulSet's present template is what runs and is ready, else what it
// waits for.
func (i *Installer) rollout(ctx context.Context) (ready bool, state string, err error) {
	set, err := i.typed.AppsV1().StatefulSets(i.namespace).Get(ctx, workload, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, "", i.notInstalled()
	}
	if err != nil {
		return false, "", err
	}
	if rolledOut(set) {
		return true, "", nil
	}
	pods, err := i.pods(ctx)
	if err != nil {
		return false, "", err
	}
	var states []string
	for n := range pods {
		if state := podState(&pods[n]); state != "" {
			states = append(states, "pod "+pods[n].Name+": "+state)
		}
	}
	if len(states) == 0 {
		states = []string{"the StatefulSet " + workload + " to make its pod" + i.whyNoPod(ctx)}
	}
	return false, strings.Join(states, "; "), nil
}

// whyNoPod returns what the StatefulSet's latest warning says, such as a refusal by Pod Security or
// a quota; "" if there is none or it may not be read.
func (i *Installer) whyNoPod(ctx context.Context) string {
	events, err := i.typed.CoreV1().Events(i.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.kind=StatefulSet,involvedObject.name=" + workload,
	})
	if err != nil || len(events.Items) == 0 {
		return ""
	}
	latest := slices.MaxFunc(events.Items, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	return ": " + latest.Message
}

// rolledOut reports whether all replicas run the present template and are ready.
func rolledOut(set *appsv1.StatefulSet) bool {
	replicas := int32(1)
	if set.Spec.Replicas != nil {
		replicas = *set.Spec.Replicas
	}
	s := set.Status
	return s.ObservedGeneration >= set.Generation && s.UpdatedReplicas >= replicas &&
		s.ReadyReplicas >= replicas && s.CurrentRevision == s.UpdateRevision
}

// pods returns the gateway's pods.
func (i *Installer) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := i.typed.CoreV1().Pods(i.namespace).List(ctx, metav1.ListOptions{LabelSelector: podSelector})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// podReady reports whether a pod takes traffic.
func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

// podState says in a few words why a pod is not ready, such as "ErrImagePull: not found"; "" if it is.
func podState(pod *corev1.Pod) string {
	if podReady(pod) {
		return ""
	}
	if pod.DeletionTimestamp != nil {
		return "ending"
	}
	for _, c := range pod.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			return strings.TrimSuffix(c.State.Waiting.Reason+": "+c.State.Waiting.Message, ": ") + lastEnd(c)
		case c.State.Terminated != nil:
			return fmt.Sprintf("ended with code %d (%s)", c.State.Terminated.ExitCode, c.State.Terminated.Reason)
		case c.State.Running != nil:
			return "running, not ready yet" + lastEnd(c)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Status == corev1.ConditionFalse && c.Message != "" {
			return fmt.Sprintf("%s: %s", c.Reason, c.Message)
		}
	}
	return strings.ToLower(string(pod.Status.Phase))
}

// lastEnd says how the container ended the time before, if it did.
func lastEnd(c corev1.ContainerStatus) string {
	end := c.LastTerminationState.Terminated
	if end == nil {
		return ""
	}
	return fmt.Sprintf(" (restarted %d times; it last ended with code %d, %s)", c.RestartCount, end.ExitCode, end.Reason)
}

// untilNotFound waits until get fails with not found, at most goneTimeout.
func untilNotFound(ctx context.Context, get func(context.Context) error) error {
	err := wait.PollUntilContextTimeout(ctx, pollInterval, goneTimeout, true, func(ctx context.Context) (bool, error) {
		err := get(ctx)
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return errors.New("not deleted after " + goneTimeout.String())
	}
	return err
}
