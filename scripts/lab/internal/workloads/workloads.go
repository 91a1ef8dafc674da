// Package workloads renders what runs in the lab's cluster from the start:
// CoreDNS with a name that answers loopback addresses, echo in two replicas with
// a service and a headless one (of both families also one of IPv6 alone), and the
// stateful set web.
package workloads

import (
	_ "embed"
	"strings"
	"text/template"
)

//go:embed workloads.yaml.tmpl
var manifests string

// LoopbackName is a name of the cluster domain that answers 127.0.0.1 and ::1.
const LoopbackName = "loop.test.cluster.local"

// Values fill the manifests.
type Values struct {
	DNS       string // ClusterIP of the DNS service
	DNS6      string // its second address, of a dual-stack cluster
	Upstream  string // resolver for names outside the cluster
	Services  string // the cluster's prefixes as kubeadm writes them, comma-separated
	Pods      string
	Replicas  int
	DualStack bool
}

// LoopbackName lets the template name it.
func (Values) LoopbackName() string { return LoopbackName }

// Render returns the manifests as one YAML stream.
func Render(v Values) (string, error) {
	t, err := template.New("workloads").Option("missingkey=error").Parse(manifests)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, v)
	return out.String(), err
}
