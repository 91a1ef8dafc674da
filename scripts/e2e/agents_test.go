//go:build lab

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/kube"
)

// podsOf are the pods of an app in a namespace, each with its UID and how often its containers have been
// restarted.
func (l *lab) podsOf(t *testing.T, namespace, app string) string {
	t.Helper()
	r := l.Kubectl("-n", namespace, "get", "pods", "-l", "app="+app, "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].restartCount}{"\n"}{end}`)
	must(t, r, "pods of "+app, " 0\n")
	return r.Out
}

// strictWorkloads makes one of each kind in namespace strict, which enforces the strictest level of Pod
// Security, and one that has an agent from the start.
func (l *lab) strictWorkloads(t *testing.T) {
	t.Helper()
	l.agentFixtures(t)
	sidecar := workloadManifest("Deployment", "strict", "ready-made", "replicas: 1", "") + `
      - name: culvert-agent
        image: culvert.dev/culvert-gateway:dev
        imagePullPolicy: Never
        args: [agent, --idle=0, --control-port=9842]
        env: [{name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]
        securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}
`
	all := sidecar +
		workloadManifest("Deployment", "strict", "many", "replicas: 2", "") +
		workloadManifest("StatefulSet", "strict", "ordinal", "serviceName: none", "")
	must(t, l.KubectlInput(all, "apply", "-f", "-"), "make workloads")
	for _, name := range []string{"deployment/many", "deployment/ready-made", "statefulset/ordinal"} {
		must(t, l.Kubectl("-n", "strict", "rollout", "status", name, "--timeout=50s"), name)
	}
}

// TestAgentInEachKind puts an agent into a pod of each kind of workload, nothing of which is restarted. It
// answers at its port, it knows its pod, and of two users who come at the same time both get the same one.
func TestAgentInEachKind(t *testing.T) {
	l := shared
	l.strictWorkloads(t)
	second := l.agentUser(t, "second", "strict", "none")
	for workload, app := range map[string]string{
		"strict/deploy/many": "many", "strict/ordinal": "ordinal", "strict/ds/each": "each", "strict/replicaset/bare": "bare", "strict/ready-made": "ready-made",
	} {
		t.Run(app, func(t *testing.T) {
			before := l.podsOf(t, "strict", app)
			other := make(chan agentAnswer, 1)
			go func() { // it is waited for below, at the same time as the other
				other <- l.asks(agentAsk{Options: kube.Options{Kubeconfig: second}, Workload: workload, Enrol: true})
			}()
			a, again := l.asks(agentAsk{Workload: workload, Enrol: true}), <-other
			if a.Failure != nil || a.Agent.Pod == "" || a.PodUID != string(a.Agent.PodUID) || !strings.Contains(before, a.Agent.Pod+" "+a.PodUID+" ") {
				t.Fatalf("%+v, %+v; pods before:\n%s", a, a.Failure, before)
			}
			t.Logf("%s in %s/%s after %s", a.Agent.Container, a.Agent.Namespace, a.Agent.Pod, a.Took.Round(time.Millisecond))
			if again.Failure != nil || again.Agent != a.Agent || again.PodUID != a.PodUID {
				t.Errorf("the other user: %+v, %+v, want %+v", again, again.Failure, a.Agent)
			}
			if after := l.podsOf(t, "strict", app); after != before {
				t.Errorf("pods before:\n%s\nand after:\n%s", before, after)
			}
			sidecar := app == "ready-made"
			added := l.Kubectl("-n", "strict", "get", "pods", "-l", "app="+app, "-o", "jsonpath={.items[*].spec.ephemeralContainers[*].name}").Out
			if want := strings.TrimPrefix(a.Agent.Container, "culvert-agent"); sidecar != (want == "") || !sidecar && strings.TrimSpace(added) != a.Agent.Container || sidecar && added != "" {
				t.Errorf("the agent is %q, added were %q", a.Agent.Container, added)
			}
		})
	}
	listed := l.asks(agentAsk{List: []string{}})
	var running []string
	for _, a := range listed.List {
		if a.Namespace == "strict" && a.Phase == kube.AgentRunning && time.Since(a.Since) < time.Hour && a.Node != "" {
			running = append(running, strings.SplitN(a.Pod, "-", 2)[0])
		}
	}
	if want := []string{"bare", "each", "many", "ordinal", "ready"}; listed.Failure != nil || !slices.Equal(running, want) {
		t.Errorf("agents of all namespaces: %+v, %+v", listed.List, listed.Failure)
	}
}

// TestAgentsPodIsDeleted: who follows the agent hears of it, and another pod is ready to take an agent.
func TestAgentsPodIsDeleted(t *testing.T) {
	l := shared
	l.strictWorkloads(t)
	first := l.asks(agentAsk{Workload: "strict/many", Enrol: true})
	if first.Failure != nil {
		t.Fatalf("%+v", first.Failure)
	}
	told := make(chan agentAnswer, 1)
	go func() { told <- l.asks(agentAsk{Follow: first.Agent, Until: kube.AgentGone}) }() // received below
	must(t, l.Kubectl("-n", "strict", "delete", "pod", first.Agent.Pod, "--wait=false"), "delete the pod")
	next := l.asks(agentAsk{Workload: "strict/many", Enrol: true})
	if next.Failure != nil || next.Agent.Pod == first.Agent.Pod {
		t.Errorf("after the pod was deleted: %+v, %+v", next, next.Failure)
	}
	t.Logf("in another pod after %s", next.Took.Round(time.Millisecond))
	if a := <-told; a.Failure == nil || a.Failure.Text != fmt.Sprintf("the agent in pod strict/%s: the pod is gone", first.Agent.Pod) {
		t.Errorf("who followed the agent heard %+v", a.Failure)
	}
}

// TestKeptAgentIsReplaced: what an agent is in goes away, and another pod's agent serves soon.
func TestKeptAgentIsReplaced(t *testing.T) {
	l := shared
	l.strictWorkloads(t)
	for _, row := range []struct {
		name string
		lose func(pod string) [][]string
	}{
		{"the pod is deleted", func(pod string) [][]string { return [][]string{{"delete", "pod", pod, "--wait=false"}} }},
		{"the pod is killed", func(pod string) [][]string { return [][]string{{"delete", "pod", pod, "--force"}} }},
		{"a new revision", func(string) [][]string { return [][]string{{"rollout", "restart", "deployment/many"}} }},
		{"scaled to zero and up", func(string) [][]string {
			return [][]string{{"scale", "deployment/many", "--replicas=0"}, {"scale", "deployment/many", "--replicas=2"}}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			must(t, l.Kubectl("-n", "strict", "rollout", "status", "deployment/many", "--timeout=50s"), "pods to choose from")
			file, kept := filepath.Join(t.TempDir(), "pod"), make(chan agentAnswer, 1)
			go func() { kept <- l.asks(agentAsk{Workload: "strict/many", Keep: file, Limit: "90s"}) }() // received below
			var first string
			eventually(t, time.Minute, "an agent serves", func() error {
				pod, err := os.ReadFile(file)
				if first = string(pod); err == nil && first == "" {
					err = errors.New("no pod is named yet")
				}
				return err
			})
			for _, command := range row.lose(first) {
				must(t, l.Kubectl(append([]string{"-n", "strict"}, command...)...), strings.Join(command, " "))
			}
			a := <-kept
			if a.Failure != nil || a.Agent.Pod == first || a.Took > 10*time.Second {
				t.Fatalf("after %s: %+v, %+v; before: %s; said:\n%s", a.Took, a.Agent, a.Failure, first, strings.Join(a.Said, "\n"))
			}
			t.Logf("in another pod after %s", a.Took.Round(time.Millisecond))
		})
	}
}
