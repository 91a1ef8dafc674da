package subnets

import (
	"context"
	"net/netip"
	"regexp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

var servicesResource = schema.GroupVersionResource{Version: "v1", Resource: "services"}

// impossible are addresses that no cluster has in its service range: documentation prefixes
// (RFC 5737, RFC 3849).
var impossible = []string{"192.0.2.1", "2001:db8::1"}

// askServices returns the service ranges that the API server names when it refuses a Service with an
// impossible address. The request is a dry run, so nothing is created even if it were accepted. Where
// the gateway may not create Services, which is the default, the answer is empty.
func askServices(ctx context.Context, client dynamic.Interface, namespace string) []netip.Prefix {
	var found []netip.Prefix
	for _, addr := range impossible {
		_, err := client.Resource(servicesResource).Namespace(namespace).
			Create(ctx, impossibleService(addr), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			found = append(found, rangesIn(err.Error())...)
		}
	}
	return found
}

func impossibleService(addr string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"generateName": "culvert-range-"},
		"spec": map[string]any{
			"clusterIP": addr,
			"ports":     []any{map[string]any{"port": int64(1), "protocol": "TCP"}},
		},
	}}
}

// validRange finds the range in "... is not in the valid range. The range of valid IPs is 10.96.0.0/12".
var validRange = regexp.MustCompile(`range of valid IPs is ([0-9a-fA-F:.]+/[0-9]{1,3})`)

// rangesIn returns the service ranges named in an error of the API server.
func rangesIn(message string) []netip.Prefix {
	var found []netip.Prefix
	for _, m := range validRange.FindAllStringSubmatch(message, -1) {
		if p, err := netip.ParsePrefix(m[1]); err == nil && !p.Addr().Is4In6() && p.Bits() > 0 {
			found = append(found, p.Masked())
		}
	}
	return found
}
