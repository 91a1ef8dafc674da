package policy

import (
	"fmt"
	"slices"
	"strings"
)

// WorkloadKind is a kind of object that keeps pods running.
type WorkloadKind string

// The kinds of workloads, all of API group apps.
const (
	KindDeployment  WorkloadKind = "deployment"
	KindReplicaSet  WorkloadKind = "replicaset"
	KindStatefulSet WorkloadKind = "statefulset"
	KindDaemonSet   WorkloadKind = "daemonset"
)

// WorkloadKinds returns all kinds, in the order in which they are told. The caller owns the slice.
func WorkloadKinds() []WorkloadKind {
	return []WorkloadKind{KindDeployment, KindReplicaSet, KindStatefulSet, KindDaemonSet}
}

// kindWords are the words for each kind, as kubectl takes them; the first two also with ".apps", as it prints them.
var kindWords = map[WorkloadKind][]string{
	KindDeployment:  {"deployment", "deployments", "deploy"},
	KindReplicaSet:  {"replicaset", "replicasets", "rs"},
	KindStatefulSet: {"statefulset", "statefulsets", "sts"},
	KindDaemonSet:   {"daemonset", "daemonsets", "ds"},
}

// otherKinds are words for what others run or reach by name, so that they are not read as a namespace.
var otherKinds = []string{
	"pod", "pods", "po", "service", "services", "svc", "job", "jobs", "cronjob", "cronjobs", "cj",
	"replicationcontroller", "replicationcontrollers", "rc",
}

const workloadForm = "[NAMESPACE/][KIND/]NAME"

// Bounds of names in bytes: a label of RFC 1123, and a DNS name as Kubernetes takes it.
const (
	maxLabel = 63
	maxName  = 253
)

// Workload is what runs the pod that packets to a subnet go through: the gateway, or an object of a
// namespace. An empty Namespace is the user's, an empty Kind any.
type Workload struct {
	Namespace string
	Kind      WorkloadKind
	Name      string
}

// IsGateway reports whether w is the gateway, which bare [WorkloadGateway] means. A workload that has this
// name too is written with its kind or namespace.
func (w Workload) IsGateway() bool { return w == Workload{Name: WorkloadGateway} }

// String is the normal form, such as "gateway", "echo", "shop/echo", "deployment/echo" or
// "shop/deployment/echo". [ParseWorkload] reads it as w again.
func (w Workload) String() string {
	parts := []string{w.Namespace, string(w.Kind), w.Name}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "/")
}

// ParseWorkload reads "gateway" or [NAMESPACE/][KIND/]NAME. Of two parts, the first is a kind if it is a
// word for one, in any case. Errors say what is accepted.
func ParseWorkload(s string) (Workload, error) {
	parts := strings.Split(strings.TrimSpace(s), "/")
	var w Workload
	var err error
	switch len(parts) {
	case 1:
	case 2:
		w.Namespace, w.Kind, err = namespaceOrKind(parts[0])
	case 3:
		w.Namespace = parts[0]
		w.Kind, err = parseKind(parts[1])
	default:
		err = fmt.Errorf("has %d parts", len(parts))
	}
	w.Name = parts[len(parts)-1]
	if err == nil {
		err = w.check(len(parts) > 1 && w.Kind == "" || len(parts) > 2)
	}
	if err != nil {
		return Workload{}, fmt.Errorf("%q %w; write %s or %s, such as echo or shop/deployment/echo", s, err, WorkloadGateway, workloadForm)
	}
	return w, nil
}

// namespaceOrKind reads the first of two parts.
func namespaceOrKind(word string) (namespace string, kind WorkloadKind, err error) {
	if kind, err := parseKind(word); err == nil {
		return "", kind, nil
	}
	if slices.Contains(otherKinds, strings.ToLower(word)) {
		return "", "", fmt.Errorf("names a %s, which is none of the kinds %s (for a namespace of that name, write the kind as well)", word, kindList())
	}
	return word, "", nil
}

// parseKind returns the kind that a word means.
func parseKind(word string) (WorkloadKind, error) {
	lower := strings.ToLower(word)
	var accepted []string
	for _, kind := range WorkloadKinds() {
		words := kindWords[kind]
		if slices.Contains(words, lower) || slices.Contains(words[:2], strings.TrimSuffix(lower, ".apps")) {
			return kind, nil
		}
		accepted = append(accepted, words...)
	}
	hint := ""
	if meant := Suggest(word, accepted); meant != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", meant)
	}
	return "", fmt.Errorf("has %q in place of one of the kinds %s%s", word, kindList(), hint)
}

// kindList names the kinds with their short forms.
func kindList() string {
	var out []string
	for _, kind := range WorkloadKinds() {
		words := kindWords[kind]
		out = append(out, fmt.Sprintf("%s (%s)", kind, words[len(words)-1]))
	}
	return strings.Join(out, ", ")
}

// check reports a namespace or name that Kubernetes does not take.
func (w Workload) check(namespaced bool) error {
	switch {
	case namespaced && !isLabel(w.Namespace):
		return fmt.Errorf("has %q for a namespace, which is up to %d of a-z, 0-9 and '-'", w.Namespace, maxLabel)
	case len(w.Name) > maxName || !allLabels(w.Name):
		return fmt.Errorf("has %q for a name, which is up to %d of a-z, 0-9, '-' and '.'", w.Name, maxName)
	}
	return nil
}

// allLabels reports whether s is labels with dots between.
func allLabels(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !isWord(label) {
			return false
		}
	}
	return true
}

// isLabel reports whether s is a label (RFC 1123) in lower case.
func isLabel(s string) bool { return len(s) <= maxLabel && isWord(s) }

// isWord is isLabel for any length: the names of objects are bounded as a whole.
func isWord(s string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	return s != "" && !strings.ContainsFunc(s, other) && s[0] != '-' && s[len(s)-1] != '-'
}
