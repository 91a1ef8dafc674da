//go:build lab

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/deploy"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
)

// agentNamespaces has a namespace that enforces the strictest level of Pod Security, one where nothing is
// enforced yet, and two where a gateway is said to be whose image is of no use: it is not there, or it is
// another program's, which does not know what "agent" means.
const agentNamespaces = `
apiVersion: v1
kind: Namespace
metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Namespace
metadata: {name: loose}
---
apiVersion: v1
kind: Namespace
metadata: {name: no-image}
---
apiVersion: v1
kind: Namespace
metadata: {name: no-agent}
---
apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: no-image, labels: {app.kubernetes.io/name: culvert, app.kubernetes.io/component: gateway}}
spec: {containers: [{name: gateway, image: "culvert.dev/culvert-gateway:missing", imagePullPolicy: Never}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: no-agent, labels: {app.kubernetes.io/name: culvert, app.kubernetes.io/component: gateway}}
spec: {securityContext: {runAsUser: 65532}, containers: [{name: gateway, image: "lab.local/labnet:v1", imagePullPolicy: Never}]}
`

// workloadManifest is a workload of the lab's program, as root where Pod Security lets it.
func workloadManifest(kind, namespace, name, spec, podSpec string) string {
	security := "{allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 1000, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}"
	if namespace != "strict" {
		security = "{runAsUser: 0}"
	}
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: %s
metadata: {name: %s, namespace: %s}
spec:
  %s
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      %[5]s
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: lab.local/labnet:v1
        imagePullPolicy: Never
        args: [server]
        env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        securityContext: %[6]s
`, kind, name, namespace, spec, podSpec, security)
}

// agentFixtures makes namespaces and workloads for the length of the test.
func (l *lab) agentFixtures(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		must(t, l.Kubectl("delete", "namespace", "strict", "loose", "no-image", "no-agent", "--ignore-not-found", "--timeout=50s"), "delete the namespaces")
	})
	all := agentNamespaces +
		workloadManifest("DaemonSet", "strict", "each", "", "") +
		workloadManifest("ReplicaSet", "strict", "bare", "replicas: 1", "") +
		workloadManifest("Deployment", "loose", "rooted", "replicas: 1", "") +
		workloadManifest("Deployment", "loose", "idle", "replicas: 0", "") +
		workloadManifest("Deployment", "loose", "on-node", "replicas: 1", "hostNetwork: true") +
		workloadManifest("Deployment", "loose", "sick", "replicas: 1", "nodeSelector: {nowhere: \"true\"}")
	must(t, l.KubectlInput(all, "apply", "-f", "-"), "make workloads")
	for _, pods := range [][2]string{{"strict", "each"}, {"strict", "bare"}, {"loose", "rooted"}} {
		must(t, l.Kubectl("-n", pods[0], "wait", "pod", "-l", "app="+pods[1], "--for=create", "--timeout=30s"), "pods of "+pods[1])
		must(t, l.Kubectl("-n", pods[0], "wait", "pod", "-l", "app="+pods[1], "--for=condition=Ready", "--timeout=50s"), "ready pods of "+pods[1])
	}
}

// TestAgentRefusals goes through what keeps an agent out of a pod: each has its words and a remedy.
func TestAgentRefusals(t *testing.T) {
	l := shared
	l.agentFixtures(t)
	nobody := l.kubeconfigOf(t, "nobody")
	almost := l.agentUser(t, "almost", "loose", "pods/ephemeralcontainers")
	for _, row := range []struct {
		name       string
		prepare    func(t *testing.T)
		options    kube.Options
		workload   string
		code       failure.Code
		text, hint string
	}{
		{"unknown", nil, kube.Options{}, "ecko", failure.Usage, "no deployment, replicaset, statefulset, daemonset of that name is in namespace default", "did you mean default/deployment/echo?"},
		{"unknown namespace", nil, kube.Options{}, "stricct/each", failure.Usage, "there is no namespace stricct", "did you mean strict/each?"},
		{"scaled to zero", nil, kube.Options{}, "loose/idle", failure.General, "it is scaled to zero", "scale it up"},
		{"not to be scheduled", nil, kube.Options{}, "loose/sick", failure.General, "has no ready pod: pod sick-", "describe deployment/sick"},
		{"hostNetwork", nil, kube.Options{}, "loose/on-node", failure.Refused, "(hostNetwork)", "choose a workload without hostNetwork, or gateway"},
		{"image missing", nil, kube.Options{CulvertNamespace: "no-image"}, "loose/rooted", failure.General,
			"image culvert.dev/culvert-gateway:missing is not to be had on node node1: ErrImageNeverPull", "make the gateway's image available there"},
		{"ends at once", nil, kube.Options{CulvertNamespace: "no-agent"}, "strict/bare", failure.General, "has ended: exit code 2: ", "kubectl -n strict logs bare-"},
		{"no rights at all", nil, kube.Options{Kubeconfig: nobody}, "loose/rooted", failure.Permission, "patch pods/ephemeralcontainers", "name: culvert-agent-user\n  namespace: loose"},
		{"no right to add a container", nil, kube.Options{Kubeconfig: almost}, "strict/each", failure.Permission, "not permitted in namespace strict", "kind: Role"},
		{"no right to ephemeral containers alone", nil, kube.Options{Kubeconfig: almost}, "loose/rooted", failure.Permission, ": patch pods/ephemeralcontainers", "kind: Role"},
		{"admission policy", l.noDebugging, kube.Options{}, "loose/rooted", failure.Refused, "a policy of the cluster refuses it: ", "named culvert-agent-*"},
		{"Pod Security", func(t *testing.T) {
			must(t, l.Kubectl("label", "namespace", "loose", "pod-security.kubernetes.io/enforce=restricted"), "enforce")
		}, kube.Options{}, "loose/rooted", failure.Refused, `so nothing may be added to it: pods "rooted-`, "choose another workload"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.prepare != nil {
				row.prepare(t)
			}
			a := l.asks(agentAsk{Options: row.options, Workload: row.workload, Until: kube.AgentEnded})
			if a.Failure == nil || a.Failure.Code != row.code || !strings.Contains(a.Failure.Text, row.text) || !strings.Contains(a.Failure.Hint, row.hint) {
				t.Errorf("%+v, said %q\nwant code %d, %q and the hint %q", a.Failure, a.Said, row.code, row.text, row.hint)
			} else {
				t.Logf("error: %s\nhint:  %s", a.Failure.Text, a.Failure.Hint)
			}
		})
	}
}

// agentUser is the kubeconfig of a user with the Role for gateways and, in one namespace, that for agents
// without a resource.
func (l *lab) agentUser(t *testing.T, user, namespace, without string) string {
	t.Helper()
	config := l.kubeconfigOf(t, user)
	l.grant(t, user, "culvert-user")
	role := strings.ReplaceAll(deploy.AgentRole(namespace), "resources: ["+without+"]", "resources: [none]")
	must(t, l.KubectlInput(role, "apply", "-f", "-"), "make the Role for agents")
	must(t, l.Kubectl("-n", namespace, "create", "rolebinding", "agent-"+user, "--role", deploy.AgentRoleName, "--user", user), "bind it") // goes with the namespace
	return config
}

// noDebugging has an admission policy refuse ephemeral containers in namespace loose until the test ends.
func (l *lab) noDebugging(t *testing.T) {
	t.Helper()
	const policy = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-debugging}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [pods/ephemeralcontainers]}]
  validations: [{expression: "false", message: no debugging here}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-debugging}
spec:
  policyName: no-debugging
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: loose}}}
`
	t.Cleanup(func() { must(t, l.KubectlInput(policy, "delete", "-f", "-"), "take the policy away") })
	must(t, l.KubectlInput(policy, "apply", "-f", "-"), "make the policy")
	const probe = `{"spec":{"ephemeralContainers":[{"name":"probe","image":"none"}]}}`
	pod := strings.TrimSpace(l.Kubectl("-n", "loose", "get", "pod", "-l", "app=rooted", "-o", "name").Out)
	eventually(t, connectLimit, "the policy in force", func() error { // the API server takes it up with a delay
		r := l.Kubectl("-n", "loose", "patch", pod, "--subresource", "ephemeralcontainers", "--dry-run=server", "-p", probe)
		if !strings.Contains(r.Err, "no debugging here") {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
}
