package kube

import (
	"k8s.io/apimachinery/pkg/runtime"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// extension returns the settings that the kubeconfig holds for a cluster, as JSON; nil for none.
func extension(raw clientcmdapi.Config, cluster string) []byte {
	entry := raw.Clusters[cluster]
	if entry == nil {
		return nil
	}
	unknown, ok := entry.Extensions[v1alpha1.Group].(*runtime.Unknown)
	if !ok {
		return nil
	}
	return unknown.Raw
}
