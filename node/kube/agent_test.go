package kube

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/node/failure"
)

const (
	podPath  = "/api/v1/namespaces/shop/pods/echo-1"
	ourImage = "registry.example/culvert-gateway:1"
)

// onePod is pod echo-1 as an API server has it: it is read, changed and watched, and the kubelet does with
// a new container what the test says.
type onePod struct {
	t       *testing.T
	mu      sync.Mutex
	pod     *corev1.Pod // guarded by mu, as all below; nil: deleted
	patched []corev1.EphemeralContainer
	// raced is what happens to the pod just before the first patch arrives.
	raced podOpt
	// refusal is the answer to a patch, if there is one.
	refusal object
	code    int
	// kubelet are the states of the new container, or else of container old, one after the other.
	kubelet []kubeletStep
	old     string
}

// kubeletStep makes the pod's next state of the present one; nil is the end of it.
type kubeletStep func(p *corev1.Pod, container string) *corev1.Pod

// becomes is a state of the container.
func becomes(state corev1.ContainerState) kubeletStep {
	return func(p *corev1.Pod, container string) *corev1.Pod {
		i := slices.IndexFunc(p.Status.EphemeralContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == container })
		if i < 0 {
			i = len(p.Status.EphemeralContainerStatuses)
			p.Status.EphemeralContainerStatuses = append(p.Status.EphemeralContainerStatuses, corev1.ContainerStatus{Name: container})
		}
		p.Status.EphemeralContainerStatuses[i].State = state
		return p
	}
}

func (o *onePod) serve(api *fakeAPI) {
	api.mux.HandleFunc("GET /api/v1/namespaces/shop/pods", o.list)
	api.mux.HandleFunc("GET "+podPath, func(w http.ResponseWriter, _ *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.pod == nil {
			writeAnswer(w, 404, noSuchPod)
			return
		}
		writeAnswer(w, 200, o.pod)
	})
	api.mux.HandleFunc("PATCH "+podPath+"/ephemeralcontainers", o.patch)
	api.answer("GET /api/v1/namespaces/culvert/pods", 200, podList(gatewayPod()))
	api.canDo(agentRights, "patch pods/ephemeralcontainers", "watch pods")
}

var noSuchPod = status(404, "NotFound", `pods "echo-1" not found`, object{"name": "echo-1", "kind": "pods"})

// gatewayPod is the gateway's, as the chart makes it.
func gatewayPod() *corev1.Pod {
	user, group := int64(65532), int64(65533)
	p := newPod("culvert-gateway-0")
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group}
	p.Spec.Containers = []corev1.Container{{Name: "proxy", Image: "mesh:3"}, {Name: "gateway", Image: ourImage, ImagePullPolicy: corev1.PullNever}}
	return p
}

func (o *onePod) list(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("watch") != "" {
		o.watch(w, r)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pod == nil {
		writeAnswer(w, 200, podList([]*corev1.Pod{}...))
		return
	}
	writeAnswer(w, 200, podList(o.pod))
}

// watch tells the states that the kubelet brings about, and stays open.
func (o *onePod) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	for _, line := range o.events() {
		io.WriteString(w, line) //nolint:errcheck // the client is gone
	}
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func (o *onePod) events() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	container := o.old
	if len(o.patched) > 0 {
		container = o.patched[len(o.patched)-1].Name
	}
	var lines []string
	for _, next := range o.kubelet {
		before := o.pod
		if o.pod = next(o.pod.DeepCopy(), container); o.pod == nil {
			lines = append(lines, text(object{"type": "DELETED", "object": before})+"\n")
			break
		}
		lines = append(lines, text(object{"type": "MODIFIED", "object": o.pod})+"\n")
	}
	o.kubelet = nil
	return lines
}

// patch is a strategic merge patch of ephemeral containers, as far as the client needs one.
func (o *onePod) patch(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var sent struct {
		Metadata struct {
			UID             types.UID
			ResourceVersion string
		}
		Spec struct{ EphemeralContainers []corev1.EphemeralContainer }
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&sent); err != nil || r.Header.Get("Content-Type") != string(types.StrategicMergePatchType) || len(sent.Spec.EphemeralContainers) != 1 {
		o.t.Errorf("patched by %s with %+v, %v", r.Header.Get("Content-Type"), sent, err)
	}
	if o.raced != nil {
		o.raced(o.pod)
		o.pod.ResourceVersion += "1"
		o.raced = nil
	}
	switch {
	case o.refusal != nil:
		writeAnswer(w, o.code, o.refusal)
		return
	case o.pod == nil:
		writeAnswer(w, 404, noSuchPod)
		return
	case sent.Metadata.UID != o.pod.UID || sent.Metadata.ResourceVersion != o.pod.ResourceVersion:
		writeAnswer(w, 409, status(409, "Conflict", "the object has been modified", object{"name": "echo-1"}))
		return
	}
	o.patched = append(o.patched, sent.Spec.EphemeralContainers...)
	o.pod.Spec.EphemeralContainers = append(o.pod.Spec.EphemeralContainers, sent.Spec.EphemeralContainers...)
	writeAnswer(w, 200, o.pod)
}

func TestPlaceAgent(t *testing.T) {
	starts := []kubeletStep{becomes(waiting("ContainerCreating", "")), becomes(running)}
	for name, row := range map[string]struct {
		pod     *corev1.Pod
		raced   podOpt
		kubelet []kubeletStep
		want    string // the container, "new" for one that was added
		added   int
		ports   [2]int // if not the usual ones
	}{
		"a new container":            {pod: newPod("echo-1"), kubelet: starts, want: "new", added: 1},
		"seen only once it runs":     {pod: newPod("echo-1"), kubelet: starts[1:], want: "new", added: 1},
		"a pull that succeeds later": {pod: newPod("echo-1"), kubelet: []kubeletStep{becomes(waiting("ErrImagePull", "timeout")), becomes(running)}, want: "new", added: 1},
		"one that runs":              {pod: newPod("echo-1", withContainer("culvert-agent-a", running)), want: "culvert-agent-a"},
		"one that runs beside one that has ended": {pod: newPod("echo-1", withContainer("culvert-agent-a", ended(0, "Completed", "")), withContainer("culvert-agent-b", running)),
			want: "culvert-agent-b"},
		"one that another user has just added": {pod: newPod("echo-1", withContainer("culvert-agent-a", corev1.ContainerState{})), kubelet: starts, want: "culvert-agent-a"},
		"one that has ended":                   {pod: newPod("echo-1", withContainer("culvert-agent-a", ended(0, "Completed", ""))), kubelet: starts, want: "new", added: 1},
		"one that waits for another image": {pod: newPod("echo-1", withContainer("culvert-agent-a", waiting("ErrImagePull", "")), func(p *corev1.Pod) { p.Spec.EphemeralContainers[0].Image = "culvert-gateway:0" }),
			kubelet: starts, want: "new", added: 1},
		"a sidecar by its name":          {pod: newPod("echo-1", sidecar("culvert-agent", "mine:3")), want: "culvert-agent"},
		"a sidecar by its program":       {pod: newPod("echo-1", sidecar("tunnel", "mirror.example:5000/x/culvert-gateway@sha256:00", "agent")), want: "tunnel"},
		"a sidecar with other ports":     {pod: newPod("echo-1", sidecar("culvert-agent", "mine:3", "agent", "--carrier-port=9841", "--control-port", "9842")), want: "culvert-agent", ports: [2]int{9841, 9842}},
		"a sidecar without good ones":    {pod: newPod("echo-1", sidecar("culvert-agent", "mine:3", "--carrier-port=99999", "--control-port")), want: "culvert-agent"},
		"a gateway is no agent":          {pod: newPod("echo-1", sidecar("gateway", ourImage, "--policy=default")), kubelet: starts, want: "new", added: 1},
		"another debugging container":    {pod: newPod("echo-1", withContainer("debugger", running), func(p *corev1.Pod) { p.Spec.EphemeralContainers[0].Image = "busybox" }), kubelet: starts, want: "new", added: 1},
		"the pod changes meanwhile":      {pod: newPod("echo-1"), raced: notReady(""), kubelet: starts, want: "new", added: 1},
		"another user is a little ahead": {pod: newPod("echo-1"), raced: withContainer("culvert-agent-a", running), want: "culvert-agent-a"},
	} {
		t.Run(name, func(t *testing.T) {
			server := &onePod{t: t, pod: row.pod.DeepCopy(), raced: row.raced, kubelet: row.kubelet, old: "culvert-agent-a"}
			api := newFakeAPI(t)
			server.serve(api)
			got, err := api.client(t).PlaceAgent(soon(t), row.pod, func(string) {})
			if err != nil || len(server.patched) != row.added {
				t.Fatalf("%+v, %v; added %+v", got, err, server.patched)
			}
			if row.want == "new" {
				row.want = server.patched[0].Name
				checkContainer(t, server.patched[0])
			}
			if row.ports == [2]int{} {
				row.ports = [2]int{7841, 7842}
			}
			if got != (Agent{"shop", "echo-1", "uid-echo-1", row.want, row.ports[0], row.ports[1]}) {
				t.Errorf("%+v, want container %s, ports %v", got, row.want, row.ports)
			}
		})
	}
}

// checkContainer checks what is promised of a container that is put into others' pods.
func checkContainer(t *testing.T, c corev1.EphemeralContainer) {
	t.Helper()
	s := c.SecurityContext
	switch {
	case !strings.HasPrefix(c.Name, "culvert-agent-") || len(c.Name) < 18:
		t.Errorf("called %q", c.Name)
	case c.Image != ourImage || c.ImagePullPolicy != corev1.PullNever || !slices.Equal(c.Args, []string{"agent"}) || c.Command != nil:
		t.Errorf("image %s (%s), args %q, command %q", c.Image, c.ImagePullPolicy, c.Args, c.Command)
	case !*s.RunAsNonRoot || *s.RunAsUser != 65532 || *s.RunAsGroup != 65533 || *s.AllowPrivilegeEscalation || *s.Privileged || !*s.ReadOnlyRootFilesystem:
		t.Errorf("security context %+v", s)
	case !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.Capabilities.Add != nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
		t.Errorf("capabilities %+v, seccomp %+v", s.Capabilities, s.SeccompProfile)
	case c.TargetContainerName != "" || len(c.VolumeMounts) > 0 || c.Stdin || c.TTY || c.EnvFrom != nil:
		t.Errorf("more than an agent needs: %+v", c)
	case c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError:
		t.Errorf("its last words are lost: %s", c.TerminationMessagePolicy)
	case c.Resources.Limits != nil || c.Resources.Requests != nil || c.Ports != nil || c.LivenessProbe != nil:
		t.Errorf("what an ephemeral container may not have: %+v", c)
	}
	env := map[string]string{}
	for _, e := range c.Env {
		if env[e.Name] = e.Value; e.ValueFrom != nil && e.ValueFrom.FieldRef == nil {
			t.Errorf("%s comes from elsewhere than the pod", e.Name)
		}
	}
	if _, uid := env["POD_UID"]; env["GOMEMLIMIT"] != "128MiB" || !uid || len(env) != 2 {
		t.Errorf("environment %v", env)
	}
}

func TestPlaceAgentRefused(t *testing.T) {
	gone := func(*corev1.Pod, string) *corev1.Pod { return nil }
	replaced := func(p *corev1.Pod, _ string) *corev1.Pod { p.UID = "another"; return p }
	evicted := func(p *corev1.Pod, _ string) *corev1.Pod {
		p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted"
		return p
	}
	const asking = `pods "echo-1" is forbidden: `
	for name, row := range map[string]struct {
		raced      podOpt
		code       int
		refusal    object
		kubelet    []kubeletStep
		want       failure.Code
		text, hint string
		gone       bool
	}{
		"no right": {code: 403, refusal: refused("patch", "pods/ephemeralcontainers"), want: failure.Permission,
			text: `add an agent to pod shop/echo-1: not permitted in namespace shop as the user of context "here": watch pods, patch pods/ephemeralcontainers`, hint: "name: culvert-agent-user\n  namespace: shop"},
		"Pod Security": {code: 403, refusal: status(403, "Forbidden", asking+`violates PodSecurity "restricted:latest": runAsNonRoot != true (container "app")`, object{"name": "echo-1"}), want: failure.Refused,
			text: `not what its namespace asks of pods, so nothing may be added to it: pods "echo-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot`, hint: "choose another workload, or have the workload run"},
		"an admission policy": {code: 422, refusal: status(422, "Invalid", asking+"ValidatingAdmissionPolicy 'no-debug' with binding 'all' denied request: no debugging here", object{"name": "echo-1"}), want: failure.Refused,
			text: "a policy of the cluster refuses it: pods", hint: "ask for an exception for ephemeral containers named culvert-agent-*, or have the workload run the gateway's image as a sidecar container called culvert-agent with the argument agent"},
		"a webhook": {code: 400, refusal: status(400, "", `admission webhook "guard.example" denied the request: not so`, nil), want: failure.Refused, text: "not so", hint: "or use gateway"},
		"an old cluster": {code: 404, refusal: status(404, "NotFound", "the server could not find the requested resource", object{}), want: failure.General,
			text: "this cluster has no ephemeral containers, which Kubernetes has since 1.25", hint: "sidecar"},
		"the pod is gone":          {code: 404, refusal: noSuchPod, want: failure.General, text: "add an agent to pod shop/echo-1: the pod is gone", gone: true},
		"not valid":                {code: 422, refusal: status(422, "Invalid", "spec.ephemeralContainers[0].image: Required value", object{"name": "echo-1"}), want: failure.General, text: "Required value"},
		"the server is not well":   {code: 500, refusal: status(500, "InternalError", `failed calling webhook "guard.example"`, nil), want: failure.Unreachable, text: "failed calling webhook"},
		"another pod of that name": {raced: func(p *corev1.Pod) { p.UID = "another" }, want: failure.General, text: "read pod shop/echo-1: the pod is gone", gone: true},
		"the image is not loaded":  {kubelet: []kubeletStep{becomes(waiting("ErrImageNeverPull", "image not present with pull policy of Never"))}, want: failure.General, text: "the agent in pod shop/echo-1 does not start: image " + ourImage + " is not to be had on node node1: ErrImageNeverPull: image not present", hint: "a pull secret of the pod"},
		"the image is not there":   {kubelet: []kubeletStep{becomes(waiting("ErrImagePull", "not found")), becomes(waiting("ImagePullBackOff", "Back-off pulling image"))}, want: failure.General, text: "ImagePullBackOff: Back-off", hint: "namespace shop"},
		"it may not be started":    {kubelet: []kubeletStep{becomes(waiting("CreateContainerConfigError", "image will run as root"))}, want: failure.General, text: "does not start: CreateContainerConfigError: image will run as root", hint: "kubectl -n shop describe pod echo-1"},
		"it ends at once":          {kubelet: []kubeletStep{becomes(ended(2, "Error", "error: unknown argument\n"))}, want: failure.General, text: "the agent in pod shop/echo-1 has ended: exit code 2: error: unknown argument", hint: "kubectl -n shop logs echo-1 -c culvert-agent-"},
		"it ends without a word":   {kubelet: []kubeletStep{becomes(ended(137, "OOMKilled", ""))}, want: failure.General, text: "exit code 137, OOMKilled"},
		"the pod goes meanwhile":   {kubelet: []kubeletStep{becomes(waiting("ContainerCreating", "")), gone}, want: failure.General, text: "the agent in pod shop/echo-1: the pod is gone", gone: true},
		"the pod is made anew":     {kubelet: []kubeletStep{replaced}, want: failure.General, text: "the pod is gone", gone: true},
		"the pod is evicted":       {kubelet: []kubeletStep{evicted}, want: failure.General, text: "the pod is gone", gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := &onePod{t: t, pod: newPod("echo-1"), raced: row.raced, refusal: row.refusal, code: row.code, kubelet: row.kubelet}
			api := newFakeAPI(t)
			server.serve(api)
			_, err := api.client(t).PlaceAgent(soon(t), newPod("echo-1"), func(string) {})
			fails(t, err, row.want, row.text, row.hint)
			if errors.Is(err, ErrPodGone) != row.gone {
				t.Errorf("%v: that the pod is gone is %v", err, !row.gone)
			}
		})
	}
}

func TestPlaceAgentIsGivenUp(t *testing.T) {
	server := &onePod{t: t, pod: newPod("echo-1"), kubelet: []kubeletStep{becomes(waiting("ContainerCreating", "")), becomes(waiting("ErrImagePull", "timeout"))}}
	api := newFakeAPI(t)
	server.serve(api)
	ctx, cancel := context.WithCancel(soon(t))
	var said []string
	_, err := api.client(t).PlaceAgent(ctx, newPod("echo-1"), func(text string) {
		if said = append(said, text); strings.Contains(text, "timeout") {
			cancel()
		}
	})
	fails(t, err, failure.General, "the agent in pod shop/echo-1 did not start (ErrImagePull: timeout): context canceled", "is its node well?")
	if name := server.patched[0].Name; !slices.Equal(said, []string{
		"adding container " + name + " to pod shop/echo-1",
		"container " + name + " in pod shop/echo-1: ContainerCreating",
		"container " + name + " in pod shop/echo-1: ErrImagePull: timeout",
	}) {
		t.Errorf("said %q", said)
	}
}

func TestPlaceAgentWithoutTheRightToWatch(t *testing.T) {
	api := newFakeAPI(t)
	server := &onePod{t: t, pod: newPod("echo-1")}
	server.serve(api)
	api.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			writeAnswer(w, 403, refused("watch", "pods"))
			return
		}
		api.mux.ServeHTTP(w, r)
	})
	_, err := api.client(t).PlaceAgent(soon(t), newPod("echo-1"), func(string) {})
	fails(t, err, failure.Permission, "watch the agent's pod shop/echo-1: not permitted in namespace shop", "culvert-agent-user")
}

func TestPlaceAgentWithoutAGateway(t *testing.T) {
	api := newFakeAPI(t)
	api.answer("GET /api/v1/namespaces/culvert/pods", 200, podList([]*corev1.Pod{}...))
	_, err := api.client(t).PlaceAgent(soon(t), newPod("echo-1"), func(string) {})
	fails(t, err, failure.GatewayState, "the gateway has no pod in namespace culvert", "culvert gateway status")
}

func TestImageOf(t *testing.T) {
	seven, eight := int64(7), int64(8)
	own := gatewayPod()
	own.Spec.Containers[1].SecurityContext = &corev1.SecurityContext{RunAsUser: &seven, RunAsGroup: &eight}
	free := gatewayPod()
	free.Spec.SecurityContext, free.Spec.Containers[1].SecurityContext = nil, &corev1.SecurityContext{}
	for name, row := range map[string]struct {
		pod         *corev1.Pod
		user, group int64 // -1: none
	}{
		"the pod's user":         {gatewayPod(), 65532, 65533},
		"the container's user":   {own, 7, 8},
		"as the image will have": {free, -1, -1},
	} {
		image, ok := imageOf(row.pod)
		if !ok || image.name != ourImage || image.pull != corev1.PullNever || number(image.user) != row.user || number(image.group) != row.group {
			t.Errorf("%s: %+v, %v", name, image, ok)
		}
	}
	if image, ok := imageOf(newPod("app")); ok {
		t.Errorf("of a pod without a gateway: %+v", image)
	}
}

func number(p *int64) int64 {
	if p == nil {
		return -1
	}
	return *p
}

func TestWatchAgentTellsUntilThePodIsGone(t *testing.T) {
	leaves := func(p *corev1.Pod, _ string) *corev1.Pod { leaving(p); return p }
	unready := func(p *corev1.Pod, _ string) *corev1.Pod { notReady("")(p); return p }
	server := &onePod{t: t, pod: newPod("echo-1", withContainer("culvert-agent-a", running)), old: "culvert-agent-a",
		kubelet: []kubeletStep{unready, leaves, becomes(ended(1, "Error", "stopped")), func(*corev1.Pod, string) *corev1.Pod { return nil }}}
	api := newFakeAPI(t)
	server.serve(api)
	ctx, cancel := context.WithCancel(soon(t))
	var told []AgentState
	api.client(t).WatchAgent(ctx, Agent{Namespace: "shop", Pod: "echo-1", PodUID: "uid-echo-1", Container: "culvert-agent-a"}, Watch[AgentState]{
		Changed: func(s *AgentState) {
			if told = append(told, *s); s.Phase == AgentGone {
				cancel()
			}
		},
		Trouble: func(err error) {
			if err != nil {
				t.Error(err)
			}
		},
	})
	was := AgentState{Phase: AgentRunning, Since: noon, Image: ourImage, Node: "node1", PodReady: true}
	want := []AgentState{was}
	was.PodReady = false
	want = append(want, was)
	was.PodLeaves = true
	want = append(want, was)
	was.Phase, was.Reason, was.Message, was.ExitCode = AgentEnded, "Error", "stopped", 1
	want = append(want, was, AgentState{Phase: AgentGone})
	if len(told) != len(want) {
		t.Fatalf("told %+v", told)
	}
	for i := range want {
		if told[i].Since = told[i].Since.UTC(); told[i] != want[i] {
			t.Errorf("told\n%+v, want\n%+v", told[i], want[i])
		}
	}
}

func TestAgents(t *testing.T) {
	api := newFakeAPI(t)
	page := func(next string, items ...*corev1.Pod) object {
		o := podList(items...)
		o["metadata"] = object{"continue": next}
		return o
	}
	api.mux.HandleFunc("GET /api/v1/namespaces/shop/pods", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("continue") == "" {
			writeAnswer(w, 200, page("more", newPod("z", withContainer("culvert-agent-b", running), withContainer("culvert-agent-a", ended(0, "Completed", "nobody spoke")))))
			return
		}
		writeAnswer(w, 200, page("", newPod("app"), newPod("a", sidecar("culvert-agent", "mine:3"))))
	})
	api.answer("GET /api/v1/namespaces/team/pods", 403, refused("list", "pods"))
	api.answer("GET /api/v1/pods", 403, refused("list", "pods"))
	api.canDo(agentRights, "list pods")
	c := api.client(t)
	got, err := c.Agents(soon(t), "team", "shop")
	fails(t, err, failure.Permission, "look for agents in namespace team: not permitted in namespace team", "namespace: team")
	var names []string
	for _, a := range got {
		names = append(names, a.podName()+" "+a.Container+" "+string(a.Phase)+" "+a.Message)
	}
	if !slices.Equal(names, []string{"shop/a culvert-agent running ", "shop/z culvert-agent-a ended nobody spoke", "shop/z culvert-agent-b running "}) {
		t.Errorf("%q", names)
	}
	_, err = c.Agents(soon(t))
	fails(t, err, failure.Permission, "look for agents in all namespaces: not permitted", "name the namespaces")
}

func TestDialAgentRefusedNamesTheRightThere(t *testing.T) {
	api := newFakeAPI(t)
	api.answer(podPath+"/portforward", 403, refused("create", "pods/portforward"))
	api.canDo(agentRights, "create pods/portforward")
	_, err := api.client(t).DialAgent(soon(t), Agent{Namespace: "shop", Pod: "echo-1"}, 7841)
	fails(t, err, failure.Permission, "not permitted in namespace shop", "namespace: shop")
	if !strings.HasSuffix(failure.Of(err).Text, ": create pods/portforward") {
		t.Errorf("%v", err)
	}
}

func TestAgentStateText(t *testing.T) {
	at := metav1.NewTime(noon.Add(time.Minute))
	for want, state := range map[string]corev1.ContainerState{
		"the node has not said anything of it yet":          {},
		"ContainerCreating":                                 waiting("ContainerCreating", ""),
		"ErrImagePull: no route":                            waiting("ErrImagePull", "no route\n"),
		"exit code 0, Completed":                            {Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: at}},
		"exit code 3: lost":                                 ended(3, "Error", " lost "),
		"exit code 2: error: no; hint:  yes[2J":             ended(2, "Error", "error: no\n\nhint:  yes\x1b[2J\x00\n"),
		"exit code 1: ..." + strings.Repeat("é", 399) + "!": ended(1, "Error", strings.Repeat("é", 5000)+"!"),
	} {
		if got := agentState(newPod("a", withContainer("culvert-agent-a", state)), "culvert-agent-a").text(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
