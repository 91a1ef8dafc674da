package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
)

// ErrPodGone is what errors match when the pod they are about is no more, so that another is to be chosen.
var ErrPodGone = errors.New("the pod is gone")

// Agent names a container with an agent. Comparable.
type Agent struct {
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	PodUID    types.UID `json:"podUID"`
	Container string    `json:"container"`
	// The ports on the pod's loopback: of WireGuard's packets, and where workstations enrol.
	CarrierPort int `json:"carrierPort"`
	ControlPort int `json:"controlPort"`
}

// podName is the pod for people, such as "shop/echo-5d4f-x2x9z".
func (a Agent) podName() string { return a.Namespace + "/" + a.Pod }

// attempts is how often something else may change the pod between looking at it and adding a container.
const attempts = 10

// PlaceAgent returns an agent that runs in the pod: one that is there already, of whomever and in whatever
// kind of container, or else one in a new ephemeral container, which restarts nothing and stays in the pod's
// specification for good. It waits until ctx ends for the container to run; say is told what it waits for.
//
// Each refusal is a failure of its own with a remedy. One that matches [ErrPodGone] asks for another pod. A
// container that runs may end a moment later, and its agent takes a moment to listen: [Client.WatchAgent]
// and [Agent.Failure] tell of the first while the ports are tried.
func (c *Client) PlaceAgent(ctx context.Context, pod *corev1.Pod, say func(string)) (Agent, error) {
	image, err := c.agentImage(ctx)
	if err != nil {
		return Agent{}, err
	}
	for range attempts {
		if standing, ok := standingAgent(pod, image.name); ok {
			a := agentIn(pod, standing)
			return a, c.awaitAgent(ctx, a, say)
		}
		added := image.container(newAgentName())
		a := agentIn(pod, added.EphemeralContainerCommon)
		say(fmt.Sprintf("adding container %s to pod %s", a.Container, a.podName()))
		err := c.addAgent(ctx, pod, added)
		if err == nil {
			return a, c.awaitAgent(ctx, a, say)
		}
		if !apierrors.IsConflict(err) {
			return Agent{}, c.placementRefused(ctx, a, err)
		}
		if pod, err = c.podAgain(ctx, a); err != nil {
			return Agent{}, err
		}
	}
	return Agent{}, failure.Newf(failure.General, "pod %s/%s changes all the time, so no agent could be added to it", pod.Namespace, pod.Name)
}

func agentIn(pod *corev1.Pod, c corev1.EphemeralContainerCommon) Agent {
	return Agent{
		Namespace: pod.Namespace, Pod: pod.Name, PodUID: pod.UID, Container: c.Name,
		CarrierPort: portOf(c.Args, "--carrier-port", carrierPort), ControlPort: portOf(c.Args, "--control-port", controlPort),
	}
}

// addAgent adds a container to the pod if nothing has changed since it was read. So of two users who come at
// the same time the second finds the agent of the first: both could not have the ports.
func (c *Client) addAgent(ctx context.Context, pod *corev1.Pod, container corev1.EphemeralContainer) error {
	patch, err := addContainer(pod, container)
	if err != nil {
		return err
	}
	_, err = c.dynamic.Resource(pods).Namespace(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "ephemeralcontainers")
	return err
}

// podAgain reads the agent's pod anew.
func (c *Client) podAgain(ctx context.Context, a Agent) (*corev1.Pod, error) {
	doing := fmt.Sprintf("read pod %s", a.podName())
	object, err := c.dynamic.Resource(pods).Namespace(a.Namespace).Get(ctx, a.Pod, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && object.GetUID() != a.PodUID {
		return nil, fmt.Errorf("%s: %w", doing, ErrPodGone)
	}
	if err != nil {
		return nil, c.agentFailure(ctx, a.Namespace, doing, err)
	}
	return decode[corev1.Pod](object)
}

// placementRefused is the failure of an ephemeral container that the API server does not take.
func (c *Client) placementRefused(ctx context.Context, a Agent, err error) error {
	doing := fmt.Sprintf("add an agent to pod %s", a.podName())
	switch {
	case notAuthorised(err):
		return c.agentFailure(ctx, a.Namespace, doing, err)
	case apierrors.IsNotFound(err) && missingResource(err):
		return failure.Newf(failure.General, "%s: this cluster has no ephemeral containers, which Kubernetes has since 1.25", doing).
			WithHint("%s", otherWays)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w", doing, ErrPodGone)
	case strings.Contains(err.Error(), "violates PodSecurity"): // which an agent's container alone does not
		return failure.New(failure.Refused, fmt.Errorf("%s: the pod itself is not what its namespace asks of pods, so nothing may be added to it: %w", doing, err),
			"choose another workload, or "+otherWays)
	case refusedByPolicy(err):
		return failure.New(failure.Refused, fmt.Errorf("%s: a policy of the cluster refuses it: %w", doing, err),
			fmt.Sprintf("ask for an exception for ephemeral containers named %s*, or %s", agentPrefix, otherWays))
	}
	return c.explain(doing, err)
}

// otherWays is what remains where no ephemeral container can be had.
const otherWays = "have the workload run the gateway's image as a sidecar container called " + agentName + " with the argument " + agentArgument +
	", or use " + policy.WorkloadGateway

// refusedByPolicy reports whether admission has refused: Pod Security and other plugins answer 403, policies
// and webhooks what they like, in these words.
func refusedByPolicy(err error) bool {
	return apierrors.IsForbidden(err) || strings.Contains(err.Error(), "denied the request") || strings.Contains(err.Error(), "denied request")
}

// awaitAgent waits until the agent's container runs.
func (c *Client) awaitAgent(ctx context.Context, a Agent, say func(string)) error {
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	seen := AgentState{Phase: AgentWaiting}
	c.WatchAgent(waiting, a, Watch[AgentState]{
		Changed: func(s *AgentState) {
			if s.Phase == AgentWaiting && s.text() != seen.text() {
				say(fmt.Sprintf("container %s in pod %s: %s", a.Container, a.podName(), s.text()))
			}
			if seen = *s; seen.Phase == AgentRunning || a.Failure(seen) != nil {
				stop(nil)
			}
		},
		Trouble: func(err error) {
			if f := failure.Of(err); f != nil && f.Code == failure.Permission { // which does not pass
				stop(err)
			}
		},
	})
	err := a.Failure(seen)
	switch {
	case seen.Phase == AgentRunning || err != nil:
		return err
	case ctx.Err() == nil:
		return context.Cause(waiting)
	}
	return failure.New(failure.General, fmt.Errorf("the agent in pod %s did not start (%s): %w", a.podName(), seen.text(), context.Cause(ctx)),
		fmt.Sprintf("is its node well? see `kubectl -n %s describe pod %s`", a.Namespace, a.Pod))
}

// Failure says why an agent in this state cannot be used, with the remedy; nil if it runs or may yet. It
// matches [ErrPodGone] if another pod is to be chosen.
func (a Agent) Failure(s AgentState) error {
	switch {
	case s.Phase == AgentGone:
		return fmt.Errorf("the agent in pod %s: %w", a.podName(), ErrPodGone)
	case s.Phase == AgentEnded:
		return failure.Newf(failure.General, "the agent in pod %s has ended: %s", a.podName(), s.text()).
			WithHint("see `kubectl -n %s logs %s -c %s`", a.Namespace, a.Pod, a.Container)
	case s.stuck() && slices.Contains(imageReasons, s.Reason):
		return failure.Newf(failure.General, "the agent in pod %s does not start: image %s is not to be had on node %s: %s", a.podName(), s.Image, s.Node, s.text()).
			WithHint("make the gateway's image available there, to pods of namespace %s as well (a pull secret of the pod, or on the node itself); the node tries again within five minutes", a.Namespace)
	case s.stuck():
		return failure.Newf(failure.General, "the agent in pod %s does not start: %s", a.podName(), s.text()).
			WithHint("see `kubectl -n %s describe pod %s`", a.Namespace, a.Pod)
	}
	return nil
}
