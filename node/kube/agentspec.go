package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/culvert-dev/culvert/node/failure"
)

const (
	// agentName is what a container with an agent is called, and how the names of our own begin.
	agentName   = "culvert-agent"
	agentPrefix = agentName + "-"
	// agentArgument makes the gateway's program an agent.
	agentArgument = "agent"
	// The ports of an agent that is not told others.
	carrierPort = 7841
	controlPort = 7842
	// agentMemory bounds an agent's heap, as Go's runtime reads it: ephemeral containers have no limits of
	// their own, so what an agent takes is taken from its pod.
	agentMemory = "128MiB"
	// gatewayContainer is the gateway's container in its pod; the chart calls it so.
	gatewayContainer = "gateway"
	// imageName is the last part of the gateway's image, which mirrors of registries keep.
	imageName = "culvert-gateway"
)

// newAgentName names a container: names of ephemeral containers, once used, are taken for good.
func newAgentName() string { return agentPrefix + rand.String(6) }

// agentImage is how the gateway's own pod runs its program, so that an agent has the same version from the
// same registry.
type agentImage struct {
	name        string
	pull        corev1.PullPolicy
	user, group *int64 // nil: as the image says
}

// agentImage asks the gateway's pod.
func (c *Client) agentImage(ctx context.Context) (agentImage, error) {
	list, err := c.dynamic.Resource(pods).Namespace(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: gatewaySelector})
	if err != nil {
		return agentImage{}, c.explain("look for the gateway's image", err)
	}
	for i := range list.Items {
		pod, err := decode[corev1.Pod](&list.Items[i])
		if err != nil {
			return agentImage{}, err
		}
		if image, ok := imageOf(pod); ok {
			return image, nil
		}
	}
	return agentImage{}, failure.Newf(failure.GatewayState, "the gateway has no pod in namespace %s whose image an agent could use", c.namespace).
		WithHint("see `culvert gateway status`")
}

// imageOf reads how a pod of the gateway runs its program.
func imageOf(pod *corev1.Pod) (agentImage, bool) {
	i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == gatewayContainer })
	if i < 0 {
		return agentImage{}, false
	}
	container := pod.Spec.Containers[i]
	image := agentImage{name: container.Image, pull: container.ImagePullPolicy}
	if s := pod.Spec.SecurityContext; s != nil {
		image.user, image.group = s.RunAsUser, s.RunAsGroup
	}
	if s := container.SecurityContext; s != nil && s.RunAsUser != nil {
		image.user, image.group = s.RunAsUser, s.RunAsGroup
	}
	return image, true
}

// container is the specification of an agent's ephemeral container: no secrets, no rights, and what Pod
// Security's level "restricted" asks for. User and group are named since those of the pod would be taken
// else, and might be root.
func (i agentImage) container(name string) corev1.EphemeralContainer {
	yes, no := true, false
	return corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: name, Image: i.name, ImagePullPolicy: i.pull, Args: []string{agentArgument},
		Env: []corev1.EnvVar{
			{Name: "GOMEMLIMIT", Value: agentMemory},
			{Name: "POD_UID", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.uid"}}},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot: &yes, RunAsUser: i.user, RunAsGroup: i.group,
			Privileged: &no, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}}
}

// addContainer is the strategic merge patch that adds an ephemeral container to the pod as it was read, and
// to no other version of it.
func addContainer(pod *corev1.Pod, container corev1.EphemeralContainer) ([]byte, error) {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID, "resourceVersion": pod.ResourceVersion},
		"spec":     map[string]any{"ephemeralContainers": []corev1.EphemeralContainer{container}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode container %s: %w", container.Name, err)
	}
	return patch, nil
}

// portOf returns the port that a flag in args sets, as "--flag 1" or "--flag=1"; else without.
func portOf(args []string, flag string, without int) int {
	for i, arg := range args {
		value, found := strings.CutPrefix(arg, flag+"=")
		if arg == flag && i+1 < len(args) {
			value, found = args[i+1], true
		}
		if port, err := strconv.ParseUint(value, 10, 16); found && err == nil && port > 0 {
			return int(port)
		}
	}
	return without
}

// isAgent reports whether a container is for an agent: it is called so, or starts the gateway's program as
// one, from whatever registry.
func isAgent(c corev1.EphemeralContainerCommon) bool {
	repository, _, _ := strings.Cut(path.Base(c.Image), ":")
	repository, _, _ = strings.Cut(repository, "@")
	return c.Name == agentName || strings.HasPrefix(c.Name, agentPrefix) ||
		repository == imageName && slices.Contains(c.Args, agentArgument)
}
