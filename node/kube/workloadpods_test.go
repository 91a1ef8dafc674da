package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
)

// noon is when the oldest pod was made.
var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// podOpt changes a pod that is ready.
type podOpt func(*corev1.Pod)

// newPod is a ready pod of namespace shop, whose UID is its name with "uid-" before it.
func newPod(name string, opts ...podOpt) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID("uid-" + name), ResourceVersion: "1", CreationTimestamp: metav1.NewTime(noon)},
		Spec:       corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Name: "app", Image: "app:1"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: running}}},
	}
	for _, o := range opts {
		o(p)
	}
	return p
}

var running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(noon)}}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func ended(code int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message, FinishedAt: metav1.NewTime(noon)}}
}

func ownedBy(uid types.UID) podOpt {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "X", Name: "x", UID: uid, Controller: &yes}}
	}
}

func younger(by time.Duration) podOpt {
	return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(noon.Add(by)) }
}

func notReady(message string) podOpt {
	return func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Message: message}}
	}
}

func leaving(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: noon} }

func hostNetwork(p *corev1.Pod) { p.Spec.HostNetwork = true }

// withContainer gives the pod an ephemeral container of the gateway's image.
func withContainer(name string, state corev1.ContainerState) podOpt {
	return func(p *corev1.Pod) {
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, Image: "registry.example/culvert-gateway:1", Args: []string{"agent"}}})
		if state != (corev1.ContainerState{}) {
			p.Status.EphemeralContainerStatuses = append(p.Status.EphemeralContainerStatuses, corev1.ContainerStatus{Name: name, State: state})
		}
	}
}

// sidecar gives the pod an ordinary container that runs.
func sidecar(name, image string, args ...string) podOpt {
	return func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name, Image: image, Args: args})
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, State: running})
	}
}

func TestPick(t *testing.T) {
	pod := func(name string, revision int, opts ...podOpt) ownedPod {
		return ownedPod{newPod(name, opts...), revision}
	}
	hurt := func(p *corev1.Pod) {
		notReady("containers with unready status: [app]")(p)
		p.Status.ContainerStatuses[0].State = waiting("CrashLoopBackOff", "back-off 10s")
	}
	for name, row := range map[string]struct {
		pods       []ownedPod
		keep       types.UID
		avoid      []types.UID
		idle       bool
		want       string // a pod, or
		code       failure.Code
		text, hint string
	}{
		"the oldest":                        {pods: []ownedPod{pod("a", 0, younger(time.Hour)), pod("b", 0), pod("c", 0, younger(time.Minute))}, want: "b"},
		"of one age the first by name":      {pods: []ownedPod{pod("b", 0), pod("a", 0)}, want: "a"},
		"that with an agent":                {pods: []ownedPod{pod("a", 0), pod("b", 0, younger(time.Hour), withContainer("culvert-agent-x", running))}, want: "b"},
		"an agent that has ended is none":   {pods: []ownedPod{pod("a", 0), pod("b", 0, younger(time.Hour), withContainer("culvert-agent-x", ended(0, "Completed", "")))}, want: "a"},
		"that which was chosen":             {pods: []ownedPod{pod("a", 2), pod("b", 1, younger(time.Hour))}, keep: "uid-b", want: "b"},
		"of the current revision":           {pods: []ownedPod{pod("a", 9, withContainer("culvert-agent-x", running)), pod("b", 10, younger(time.Hour))}, want: "b"},
		"the chosen one is not ready":       {pods: []ownedPod{pod("a", 0), pod("b", 0, notReady(""))}, keep: "uid-b", want: "a"},
		"the chosen one is leaving":         {pods: []ownedPod{pod("a", 0), pod("b", 0, leaving)}, keep: "uid-b", want: "a"},
		"the chosen one has been replaced":  {pods: []ownedPod{pod("a", 0), pod("b", 0)}, keep: "uid-c", want: "a"},
		"the chosen one has failed":         {pods: []ownedPod{pod("a", 2), pod("b", 1)}, keep: "uid-a", avoid: []types.UID{"uid-a"}, want: "b"},
		"all have failed":                   {pods: []ownedPod{pod("a", 0), pod("b", 0)}, keep: "uid-b", avoid: []types.UID{"uid-a", "uid-b"}, want: "b"},
		"none is ready yet":                 {pods: []ownedPod{pod("a", 0, notReady("")), pod("b", 0, hurt)}, code: failure.General, text: "workload shop/deployment/echo has no ready pod: pod a is Running but not ready; pod b is waiting: CrashLoopBackOff back-off 10s", hint: "`kubectl -n shop describe deployment/echo`"},
		"not to be scheduled":               {pods: []ownedPod{pod("a", 0, notReady("0/3 nodes are available"))}, code: failure.General, text: "0/3 nodes are available", hint: "another workload or gateway"},
		"all are leaving":                   {pods: []ownedPod{pod("a", 0, leaving)}, code: failure.General, text: "pod a is being deleted"},
		"scaled to zero":                    {idle: true, code: failure.General, text: "workload shop/deployment/echo has no pod: it is scaled to zero", hint: "scale it up"},
		"none has been made":                {code: failure.General, text: "workload shop/deployment/echo has no pod", hint: "describe deployment/echo"},
		"on the network of nodes":           {pods: []ownedPod{pod("a", 0, hostNetwork)}, code: failure.Refused, text: "(hostNetwork), where an agent would be open", hint: "choose a workload without hostNetwork, or gateway"},
		"on the network of nodes, not well": {pods: []ownedPod{pod("a", 0, hostNetwork, hurt)}, code: failure.Refused, text: "hostNetwork"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &Workload{Workload: policy.Workload{Namespace: "shop", Kind: policy.KindDeployment, Name: "echo"}, idle: row.idle}
			got, err := pick(w, row.pods, row.keep, row.avoid)
			if row.want == "" {
				fails(t, err, row.code, row.text, row.hint)
				return
			}
			if err != nil || got.Name != row.want {
				t.Errorf("%v, %v, want %s", got, err, row.want)
			}
		})
	}
}

func podList(items ...*corev1.Pod) object {
	return object{"apiVersion": "v1", "kind": "PodList", "metadata": object{"resourceVersion": "1"}, "items": items}
}

// TestPodsAreTheOwners has pods of others that the selector matches, as a careless one does.
func TestPodsAreTheOwners(t *testing.T) {
	for name, row := range map[string]struct {
		workload, want string
	}{
		"a deployment through its current replica set": {"deployment/echo", "new"},
		"a replica set":  {"rs/echo-1", "old"},
		"a stateful set": {"sts/echo", "ordinal"},
		"a daemon set":   {"ds/echo", "everywhere"},
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t)
			set := func(name, owner, revision string) object {
				o := workloadJSON(policy.Workload{Namespace: "shop", Kind: policy.KindReplicaSet, Name: name}, owner)
				o["metadata"].(object)["annotations"] = object{revisionAnnotation: revision}
				return o
			}
			api.answer("GET /apis/apps/v1/namespaces/shop/replicasets", 200, object{"apiVersion": "apps/v1", "kind": "ReplicaSetList", "items": []any{
				set("echo-1", "deployment/echo", "9"), set("echo-2", "deployment/echo", "10"), set("other-1", "deployment/other", "11")}})
			api.answer("GET /api/v1/namespaces/shop/pods", 200, podList(
				newPod("by-hand"), newPod("another", ownedBy("replicaset/other-1")), newPod("old", ownedBy("replicaset/echo-1")),
				newPod("new", ownedBy("replicaset/echo-2"), younger(time.Hour)), newPod("ordinal", ownedBy("statefulset/echo")),
				newPod("everywhere", ownedBy("daemonset/echo"))))
			api.inClusterOne(t, row.workload)
			c := api.client(t)
			w, err := policy.ParseWorkload(row.workload)
			if err != nil {
				t.Fatal(err)
			}
			found, err := c.Resolve(soon(t), w, "shop")
			if err != nil {
				t.Fatal(err)
			}
			if pod, err := c.PickPod(soon(t), found, ""); err != nil || pod.Name != row.want {
				t.Errorf("%v, %v, want %s", pod, err, row.want)
			}
		})
	}
}

// inClusterOne answers for one workload of namespace shop.
func (api *fakeAPI) inClusterOne(t *testing.T, name string) {
	t.Helper()
	w, err := policy.ParseWorkload(name)
	if err != nil {
		t.Fatal(err)
	}
	w.Namespace = "shop"
	api.answer("GET /apis/apps/v1/namespaces/shop/"+string(w.Kind)+"s/"+w.Name, 200, workloadJSON(w, ""))
}

func TestPodsNotToBeSeen(t *testing.T) {
	api := newFakeAPI(t)
	api.inClusterOne(t, "sts/web")
	api.answer("GET /api/v1/namespaces/shop/pods", 403, refused("list", "pods"))
	api.canDo(agentRights, "list pods", "watch pods")
	c := api.client(t)
	w, err := c.Resolve(soon(t), policy.Workload{Kind: policy.KindStatefulSet, Name: "web"}, "shop")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.PickPod(soon(t), w, "")
	fails(t, err, failure.Permission, `look for the pods of workload shop/statefulset/web: not permitted in namespace shop as the user of context "here": list pods, watch pods`, "kind: Role")
}
