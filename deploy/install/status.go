package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Status is what can be seen of a gateway. Its JSON form is meant for scripts.
type Status struct {
	Namespace string `json:"namespace"`
	// Installed reports whether there is a release or a pod.
	Installed bool `json:"installed"`
	// Ready reports whether a pod is ready to serve.
	Ready   bool           `json:"ready"`
	Release *ReleaseStatus `json:"release,omitempty"` // nil if there is none or it may not be read
	Pods    []PodStatus    `json:"pods"`
	Policy  *PolicyStatus  `json:"policy,omitempty"` // nil if there is none or it may not be read
	// Peers is the number of connections in the namespace; -1 if they may not be listed.
	Peers int `json:"peers"`
	// Unknown says what could not be read and why; a user without administrative rights sees no release.
	Unknown []string `json:"unknown,omitempty"`
}

// ReleaseStatus is Helm's record of the latest install or upgrade.
type ReleaseStatus struct {
	Name     string    `json:"name"`
	Revision int       `json:"revision"`
	State    string    `json:"state"` // deployed, failed, pending-upgrade, ...
	Chart    string    `json:"chart"` // version of the chart, which is that of Culvert
	Changed  time.Time `json:"changed"`
}

// PodStatus is one pod of the gateway.
type PodStatus struct {
	Name     string `json:"name"`
	Ready    bool   `json:"ready"`
	State    string `json:"state,omitempty"` // why it is not ready
	Image    string `json:"image"`
	Node     string `json:"node,omitempty"`
	Restarts int32  `json:"restarts"`
}

// PolicyStatus is the team's Policy as the gateway sees it.
type PolicyStatus struct {
	Problems   []string          `json:"problems,omitempty"` // a Policy with problems is ignored
	Services   []v1alpha1.Subnet `json:"services,omitempty"`
	Pods       []v1alpha1.Subnet `json:"pods,omitempty"`
	ClusterUID string            `json:"clusterUID,omitempty"`
}

// Status looks at the gateway. What the user may not read is named in Unknown; an error means that
// nothing could be seen.
func (i *Installer) Status(ctx context.Context) (*Status, error) {
	if _, err := i.serverVersion(ctx); err != nil {
		return nil, err
	}
	s := &Status{Namespace: i.namespace, Peers: -1, Pods: []PodStatus{}}
	for _, part := range []struct {
		what string
		read func(context.Context, *Status) error
	}{
		{"the release", i.readRelease},
		{"the gateway's pods", i.readPods},
		{"the Policy " + v1alpha1.DefaultPolicyName, i.readPolicy},
		{"the peers", i.readPeers},
	} {
		switch err := part.read(ctx, s); {
		case apierrors.IsForbidden(err):
			s.Unknown = append(s.Unknown, fmt.Sprintf("%s: %s", part.what, apiMessage(err)))
		case err != nil:
			return nil, i.explain("read "+part.what+" in namespace "+i.namespace, err)
		}
	}
	s.Installed = s.Release != nil || len(s.Pods) > 0
	s.Ready = slices.ContainsFunc(s.Pods, func(p PodStatus) bool { return p.Ready })
	return s, nil
}

// Err returns nil for a gateway that serves, else a failure with the exit code for one that is
// missing or not ready.
func (s *Status) Err() error {
	switch {
	case !s.Installed && len(s.Unknown) > 0:
		return failure.Newf(failure.Permission, "you may not see whether a gateway is installed in namespace %s", s.Namespace).
			WithHint("ask an administrator for the Role %s", "culvert-user")
	case !s.Installed:
		return failure.Newf(failure.GatewayState, "the gateway is not installed in namespace %s", s.Namespace).
			WithHint("an administrator installs it once: culvert gateway install")
	case !s.Ready:
		return failure.Newf(failure.GatewayState, "the gateway in namespace %s is not ready%s", s.Namespace, s.whyNotReady())
	}
	return nil
}

func (s *Status) whyNotReady() string {
	var states []string
	for _, p := range s.Pods {
		states = append(states, "pod "+p.Name+": "+p.State)
	}
	if len(states) == 0 {
		return ": it has no pod"
	}
	return ": " + strings.Join(states, "; ")
}

func (i *Installer) readRelease(_ context.Context, s *Status) error {
	last, err := i.helm.Releases.Last(ReleaseName)
	if errors.Is(err, driver.ErrReleaseNotFound) || errors.Is(err, driver.ErrNoDeployedReleases) {
		return nil
	}
	if err != nil {
		return err
	}
	current, err := asRelease(last)
	if err != nil {
		return err
	}
	s.Release = &ReleaseStatus{
		Name: current.Name, Revision: current.Version, State: current.Info.Status.String(),
		Chart: current.Chart.Metadata.Version, Changed: current.Info.LastDeployed.UTC().Truncate(time.Second),
	}
	return nil
}

func (i *Installer) readPods(ctx context.Context, s *Status) error {
	pods, err := i.pods(ctx)
	for n := range pods {
		s.Pods = append(s.Pods, podStatus(&pods[n]))
	}
	return err
}

func podStatus(pod *corev1.Pod) PodStatus {
	p := PodStatus{Name: pod.Name, Ready: podReady(pod), State: podState(pod), Node: pod.Spec.NodeName}
	if len(pod.Spec.Containers) > 0 {
		p.Image = pod.Spec.Containers[0].Image
	}
	for _, c := range pod.Status.ContainerStatuses {
		p.Restarts += c.RestartCount
	}
	return p
}

func (i *Installer) readPolicy(ctx context.Context, s *Status) error {
	found, err := i.dynamic.Resource(policyResource).Namespace(i.namespace).Get(ctx, v1alpha1.DefaultPolicyName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var policy v1alpha1.Policy
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object, &policy); err != nil {
		return err
	}
	s.Policy = &PolicyStatus{
		Problems: policy.Status.Problems, ClusterUID: policy.Status.ClusterUID,
		Services: policy.Status.Subnets.Services, Pods: policy.Status.Subnets.Pods,
	}
	return nil
}

func (i *Installer) readPeers(ctx context.Context, s *Status) error {
	list, err := i.dynamic.Resource(peerResource).Namespace(i.namespace).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		s.Peers = 0
		return nil
	}
	if err == nil {
		s.Peers = len(list.Items)
	}
	return err
}
