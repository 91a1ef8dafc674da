package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
)

// AgentPhase is how far an agent's container is.
//
//	waiting ──► running ──► ended      what has ended never runs again; a sidecar container may: waiting, running
//	    └──────────┴──────────┴──► gone
type AgentPhase string

// The phases.
const (
	AgentWaiting AgentPhase = "waiting" // for its image, or to be started
	AgentRunning AgentPhase = "running"
	AgentEnded   AgentPhase = "ended"
	AgentGone    AgentPhase = "gone" // with its pod, which is no more or another one of that name
)

// AgentState is how an agent's container and its pod fare.
type AgentState struct {
	Phase AgentPhase `json:"phase"`
	// Since is when the container came to run or ended; zero if neither.
	Since time.Time `json:"since,omitzero"`
	// Reason and Message say why it waits or has ended, in words of the kubelet and the container's last ones.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// ExitCode is that of a container that has ended.
	ExitCode int32  `json:"exitCode,omitempty"`
	Image    string `json:"image,omitempty"`
	Node     string `json:"node,omitempty"`
	// PodReady is false for a pod that services do not send to. The agent may work all the same.
	PodReady bool `json:"podReady"`
	// PodLeaves is set for a pod that is being deleted: the agent works for a few seconds yet.
	PodLeaves bool `json:"podLeaves,omitempty"`
}

// Reasons for which a container waits and will not start by itself, or not soon (k8s.io/kubernetes
// pkg/kubelet/images/types.go and kuberuntime). ErrImagePull is not among them: it is tried again at once.
var (
	imageReasons = []string{"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError"}
	startReasons = []string{"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
)

// stuck reports whether a container that waits is not worth waiting for.
func (s AgentState) stuck() bool {
	return s.Phase == AgentWaiting && (slices.Contains(imageReasons, s.Reason) || slices.Contains(startReasons, s.Reason))
}

// text says why the container waits or has ended.
func (s AgentState) text() string {
	message := oneLine(s.Message)
	switch {
	case s.Phase == AgentEnded && message == "":
		return fmt.Sprintf("exit code %d, %s", s.ExitCode, s.Reason)
	case s.Phase == AgentEnded:
		return fmt.Sprintf("exit code %d: %s", s.ExitCode, message)
	case s.Reason == "":
		return "the node has not said anything of it yet"
	case message == "":
		return s.Reason
	}
	return s.Reason + ": " + message
}

// maxMessage is how many characters of a container's last words are told: the last ones.
const maxMessage = 400

// oneLine makes a line of what a container said last, without what could move a terminal's cursor.
func oneLine(message string) string {
	var lines []string
	for line := range strings.Lines(message) {
		line = strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return -1
		}, strings.TrimSpace(line))
		if line != "" {
			lines = append(lines, line)
		}
	}
	out := []rune(strings.Join(lines, "; "))
	if len(out) > maxMessage {
		return "..." + string(out[len(out)-maxMessage:])
	}
	return string(out)
}

// agentState is the state of a pod's container. A container that the pod does not have waits: what has been
// added is seen later.
func agentState(pod *corev1.Pod, container string) AgentState {
	s := AgentState{Phase: AgentWaiting, Node: pod.Spec.NodeName, PodReady: isReady(pod), PodLeaves: pod.DeletionTimestamp != nil}
	for _, spec := range agentContainers(pod) {
		if spec.Name == container {
			s.Image = spec.Image
		}
	}
	all := slices.Concat(pod.Status.EphemeralContainerStatuses, pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses)
	i := slices.IndexFunc(all, func(c corev1.ContainerStatus) bool { return c.Name == container })
	if i < 0 {
		all, i = append(all, corev1.ContainerStatus{}), len(all)
	}
	switch state := all[i].State; {
	case state.Running != nil:
		s.Phase, s.Since = AgentRunning, state.Running.StartedAt.Time
	case state.Terminated != nil:
		t := state.Terminated
		s.Phase, s.Since, s.Reason, s.Message, s.ExitCode = AgentEnded, t.FinishedAt.Time, t.Reason, t.Message, t.ExitCode
	case state.Waiting != nil:
		s.Reason, s.Message = state.Waiting.Reason, state.Waiting.Message
	}
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded { // evicted, for example
		s.Phase, s.Reason, s.Message = AgentGone, pod.Status.Reason, pod.Status.Message
	}
	return s
}

// agentContainers are the containers of a pod that are for an agent, ephemeral ones first.
func agentContainers(pod *corev1.Pod) []corev1.EphemeralContainerCommon {
	var out []corev1.EphemeralContainerCommon
	for _, c := range pod.Spec.EphemeralContainers {
		out = append(out, c.EphemeralContainerCommon)
	}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		out = append(out, corev1.EphemeralContainerCommon(c))
	}
	return slices.DeleteFunc(out, func(c corev1.EphemeralContainerCommon) bool { return !isAgent(c) })
}

// standingAgent returns the container of a pod whose agent can be used: one that runs, or one of ours that
// is being started from this image.
func standingAgent(pod *corev1.Pod, image string) (corev1.EphemeralContainerCommon, bool) {
	containers := agentContainers(pod)
	for _, c := range containers {
		if agentState(pod, c.Name).Phase == AgentRunning {
			return c, true
		}
	}
	for _, c := range containers {
		ours := slices.ContainsFunc(pod.Spec.EphemeralContainers, func(e corev1.EphemeralContainer) bool { return e.Name == c.Name })
		if ours && c.Image == image && agentState(pod, c.Name).Phase == AgentWaiting {
			return c, true
		}
	}
	return corev1.EphemeralContainerCommon{}, false
}

// runsAgent reports whether an agent runs in the pod.
func runsAgent(pod *corev1.Pod) bool {
	return slices.ContainsFunc(agentContainers(pod), func(c corev1.EphemeralContainerCommon) bool {
		return agentState(pod, c.Name).Phase == AgentRunning
	})
}

// WatchAgent follows an agent's container and its pod from their present state, until ctx ends. Changed is
// never told nil: an agent whose pod is no more is [AgentGone].
func (c *Client) WatchAgent(ctx context.Context, a Agent, w Watch[AgentState]) {
	follow := Watch[corev1.Pod]{Trouble: w.Trouble, Changed: func(pod *corev1.Pod) {
		s := AgentState{Phase: AgentGone}
		if pod != nil && pod.UID == a.PodUID {
			s = agentState(pod, a.Container)
		}
		w.Changed(&s)
	}}
	(&follower[corev1.Pod]{Watch: follow, client: c, resource: c.dynamic.Resource(pods).Namespace(a.Namespace),
		what: "the agent's pod " + a.podName(), name: a.Pod,
		explain: func(doing string, err error) error { return c.agentFailure(ctx, a.Namespace, doing, err) }}).run(ctx)
}
