package install

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containers returns a pod whose only container is in state, and was in last before.
func containers(state, last corev1.ContainerState) *corev1.Pod {
	return &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{
		{State: state, LastTerminationState: last, RestartCount: 3},
	}}}
}

func TestPodState(t *testing.T) {
	ready := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	ending := ready.DeepCopy()
	ending.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	for _, row := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"ready", ready, ""},
		{"on its way out", ending, "ending"},
		{"an image that is not there", containers(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason: "ErrImageNeverPull", Message: "image culvert:dev is not present"}}, corev1.ContainerState{}),
			"ErrImageNeverPull: image culvert:dev is not present"},
		{"a crash loop", containers(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
			corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Reason: "Error"}}),
			"CrashLoopBackOff (restarted 3 times; it last ended with code 2, Error)"},
		{"failing its readiness probe", containers(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{}),
			"running, not ready yet"},
		{"no node takes it", &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available"}}}},
			"Unschedulable: 0/1 nodes are available"},
		{"nothing known yet", &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}, "pending"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := podState(row.pod); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestRolledOut(t *testing.T) {
	done := appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Generation: 2},
		Status: appsv1.StatefulSetStatus{
			ObservedGeneration: 2, UpdatedReplicas: 1, ReadyReplicas: 1, CurrentRevision: "b", UpdateRevision: "b",
		},
	}
	for _, row := range []struct {
		name   string
		change func(*appsv1.StatefulSetStatus)
		want   bool
	}{
		{"all of it", func(*appsv1.StatefulSetStatus) {}, true},
		{"the controller has not seen the change", func(s *appsv1.StatefulSetStatus) { s.ObservedGeneration = 1 }, false},
		{"the old pod is ready", func(s *appsv1.StatefulSetStatus) { s.UpdatedReplicas, s.CurrentRevision = 0, "a" }, false},
		{"the new pod is not ready", func(s *appsv1.StatefulSetStatus) { s.ReadyReplicas = 0 }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			set := done
			row.change(&set.Status)
			if got := rolledOut(&set); got != row.want {
				t.Errorf("got %t, want %t", got, row.want)
			}
		})
	}
}

func TestWaitingSpeaksAfterASecondAndStops(t *testing.T) {
	var out strings.Builder
	p := &progress{w: &out}
	p.waiting("something quick")()
	if out.String() != "" {
		t.Errorf("said %q of something quick", out.String())
	}
	done := p.waiting("something slow")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		said := out.String()
		p.mu.Unlock()
		if strings.HasPrefix(said, "waiting for something slow (1s)") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("said %q after ten seconds", said)
		}
	}
	done()
}
