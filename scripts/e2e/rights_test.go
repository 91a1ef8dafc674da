//go:build lab

package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// kubeconfigOf makes a kubeconfig for a user without rights.
func (l *lab) kubeconfigOf(t *testing.T, user string) string {
	t.Helper()
	r := l.Run(time.Minute, "kubeconfig", "--user", user)
	must(t, r, "lab kubeconfig --user "+user)
	return strings.TrimSpace(r.Out)
}

// grant binds the documented Role to a user for the length of the test.
func (l *lab) grant(t *testing.T, user, role string) {
	t.Helper()
	name := "e2e-" + user
	must(t, l.Kubectl("-n", "culvert", "create", "rolebinding", name, "--role", role, "--user", user), "bind the Role")
	t.Cleanup(func() {
		must(t, l.Kubectl("-n", "culvert", "delete", "rolebinding", name), "unbind the Role")
	})
}

func TestUserWithOnlyTheDocumentedRole(t *testing.T) {
	l := shared
	config := l.kubeconfigOf(t, "alice")
	before := l.snapshot(t)
	r := l.WS(time.Minute, append([]string{"culvert", "connect", "--kubeconfig", config}, allowFlags...)...)
	if r.Code != 4 || !strings.Contains(r.Err, "kind: Role") || !strings.Contains(r.Err, "policies") {
		t.Errorf("a user without rights: want exit code 4 and the Role: %s", r)
	}
	l.unchanged(t, before)
	l.grant(t, "alice", "culvert-user")
	l.connect(t, append([]string{"--kubeconfig", config}, allowFlags...)...)
	must(t, l.curl("http://echo.default/"), "GET as alice")
}

func TestOneVerbMissing(t *testing.T) {
	l := shared
	config := l.kubeconfigOf(t, "bob")
	full := l.Kubectl("-n", "culvert", "get", "role", "culvert-user", "-o", "json")
	must(t, full, "read the Role")
	for _, missing := range []struct{ resource, verb string }{
		{"peers", "create"}, {"peers", "watch"}, {"policies", "list"}, {"pods/portforward", "create"},
	} {
		t.Run(missing.verb+" "+missing.resource, func(t *testing.T) {
			role := roleWithout(t, full.Out, missing.resource, missing.verb)
			must(t, l.KubectlInput(role, "apply", "-f", "-"), "make a Role without one verb")
			t.Cleanup(func() { l.Kubectl("-n", "culvert", "delete", "role", "almost") })
			l.grant(t, "bob", "almost")
			before := l.snapshot(t)
			r := l.WS(time.Minute, append([]string{"culvert", "connect", "--timeout", "20s", "--kubeconfig", config}, allowFlags...)...)
			if r.Code != 4 || !strings.Contains(r.Err, missing.verb) && !strings.Contains(r.Err, "portforward") || !strings.Contains(r.Err, "kind: Role") {
				t.Errorf("without %s on %s: want exit code 4, the verb and the Role: %s", missing.verb, missing.resource, r)
			}
			l.unchanged(t, before)
		})
	}
}

func TestPeersOfOthersAreOutOfReach(t *testing.T) {
	l := shared
	mallory := l.kubeconfigOf(t, "mallory")
	l.grant(t, "mallory", "culvert-user")
	l.connect(t, allowFlags...)
	peer := l.status(t).Peer.Name
	as := []string{"--kubeconfig", mallory, "-n", "culvert"}
	for _, attack := range [][]string{
		{"delete", "peer", peer},
		{"patch", "peer", peer, "--type", "merge", "-p", `{"spec":{"publicKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}`},
		{"patch", "peer", peer, "--type", "merge", "-p", `{"spec":{"user":"mallory"}}`},
		{"patch", "peer", peer, "--subresource", "status", "--type", "merge", "-p", `{"status":{"carrier":"udp"}}`},
	} {
		if r := l.Kubectl(append(slices.Clone(as), attack...)...); r.Code == 0 || !strings.Contains(strings.ToLower(r.Err), "forbidden") {
			t.Errorf("mallory: kubectl %v: want a refusal: %s", attack, r)
		}
	}
	const forged = `{"apiVersion":"culvert.dev/v1alpha1","kind":"Peer","metadata":{"name":"forged","namespace":"culvert"},` +
		`"spec":{"user":"admin","publicKey":"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=","addresses":["245.9.9.8/32"]}}`
	r := l.KubectlInput(forged, append(slices.Clone(as), "create", "-f", "-")...)
	if r.Code == 0 || !strings.Contains(strings.ToLower(r.Err), "forbidden") {
		t.Errorf("mallory makes a Peer for admin: want a refusal: %s", r)
	}
	must(t, l.curl("http://echo.default/"), "GET after the attacks")
}

// roleWithout returns a copy of the Role given as JSON, called almost, that lacks one verb.
func roleWithout(t *testing.T, role, resource, verb string) string {
	t.Helper()
	var object struct {
		APIVersion string           `json:"apiVersion"`
		Kind       string           `json:"kind"`
		Metadata   map[string]any   `json:"metadata"`
		Rules      []map[string]any `json:"rules"`
	}
	if err := json.Unmarshal([]byte(role), &object); err != nil {
		t.Fatal(err)
	}
	object.Metadata = map[string]any{"name": "almost", "namespace": "culvert"}
	removed := false
	for _, rule := range object.Rules {
		if !slices.Contains(rule["resources"].([]any), any(resource)) {
			continue
		}
		verbs := rule["verbs"].([]any)
		i := slices.Index(verbs, any(verb))
		if i < 0 {
			continue
		}
		removed = true
		rule["verbs"] = slices.Delete(slices.Clone(verbs), i, i+1)
	}
	if !removed {
		t.Fatalf("the Role does not grant %s on %s:\n%s", verb, resource, role)
	}
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestNamespaceEnforcesRestricted(t *testing.T) {
	l := shared
	r := l.Kubectl("get", "namespace", "culvert", "-o", "jsonpath={.metadata.labels}")
	must(t, r, "labels of the namespace", `"pod-security.kubernetes.io/enforce":"restricted"`)
	must(t, l.Kubectl("-n", "culvert", "wait", "--for=condition=Ready", "pod/culvert-gateway-0", "--timeout=30s"), "the gateway runs in it")
	if r := l.Kubectl("-n", "culvert", "run", "privileged", "--image=none", "--privileged"); r.Code == 0 {
		t.Errorf("the namespace admits a privileged pod, so it enforces nothing: %s", r)
	}
}

// TestNamespaceCanBeDeleted deletes the gateway's namespace while a Peer is in it, and installs the
// gateway anew.
func TestNamespaceCanBeDeleted(t *testing.T) {
	l := shared
	t.Cleanup(func() {
		if err := l.Prepare(); err != nil {
			t.Fatal(err)
		}
	})
	l.connect(t, allowFlags...)
	must(t, l.Kubectl("delete", "namespace", "culvert", "--timeout=40s"), "delete the namespace")
}
