package subnets

import (
	"context"
	"net/netip"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// Clusters made by kubeadm (kind's and minikube's too) keep their ClusterConfiguration in this
// ConfigMap. Its podSubnet is the whole that nodes take their podCIDRs from, so that workstations
// need no new route when a node joins.
const (
	kubeadmNamespace = "kube-system"
	kubeadmConfig    = "kubeadm-config"
	kubeadmKey       = "ClusterConfiguration"
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// askDeclaredTimeout bounds the question: the other sources wait for its answer once.
const askDeclaredTimeout = 3 * time.Second

// askDeclared returns the pod prefixes that kubeadm's configuration names, nil where there is none or
// it may not be read. It is asked once: kubeadm does not change it in a living cluster.
func (d *Discoverer) askDeclared(ctx context.Context) []netip.Prefix {
	ctx, cancel := context.WithTimeout(ctx, askDeclaredTimeout)
	defer cancel()
	object, err := d.cfg.Client.Resource(configMaps).Namespace(kubeadmNamespace).Get(ctx, kubeadmConfig, metav1.GetOptions{})
	if err != nil {
		d.cfg.Log.Debug("kubeadm's configuration is not read", "err", err)
		return nil
	}
	text, _, _ := unstructured.NestedString(object.Object, "data", kubeadmKey)
	return declaredPods(text)
}

// declaredPods reads the podSubnet of a ClusterConfiguration, one prefix per family separated by
// commas. What cannot be read is left out.
func declaredPods(clusterConfiguration string) []netip.Prefix {
	var c struct {
		Networking struct {
			PodSubnet string `json:"podSubnet"`
		} `json:"networking"`
	}
	if err := yaml.Unmarshal([]byte(clusterConfiguration), &c); err != nil {
		return nil
	}
	var out []netip.Prefix
	for word := range strings.SplitSeq(c.Networking.PodSubnet, ",") {
		if p, err := netip.ParsePrefix(strings.TrimSpace(word)); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}
