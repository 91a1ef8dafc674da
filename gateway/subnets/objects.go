package subnets

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// trim keeps of a node or pod what is read below, and what the mirror needs to know it by.
func trim(u *unstructured.Unstructured) {
	kept := map[string]any{"apiVersion": u.GetAPIVersion(), "kind": u.GetKind()}
	for _, path := range [][]string{
		{"metadata", "name"}, {"metadata", "namespace"}, {"metadata", "uid"}, {"metadata", "resourceVersion"},
		{"spec", "podCIDR"}, {"spec", "podCIDRs"}, {"spec", "hostNetwork"},
		{"status", "phase"}, {"status", "podIP"}, {"status", "podIPs"},
	} {
		if v, ok, err := unstructured.NestedFieldNoCopy(u.Object, path...); ok && err == nil {
			// The path goes through maps made here, so setting cannot fail.
			_ = unstructured.SetNestedField(kept, v, path...)
		}
	}
	u.Object = kept
}

// nodeCIDRs returns a node's podCIDRs.
func nodeCIDRs(u *unstructured.Unstructured) ([]netip.Prefix, error) {
	list, _, _ := unstructured.NestedStringSlice(u.Object, "spec", "podCIDRs")
	if len(list) == 0 {
		if one, _, _ := unstructured.NestedString(u.Object, "spec", "podCIDR"); one != "" {
			list = []string{one}
		}
	}
	return parsePrefixes(list)
}

// serviceCIDRsOf returns the prefixes of a ServiceCIDR. One that is being deleted counts until it is
// gone, as Services may still have its addresses.
func serviceCIDRsOf(u *unstructured.Unstructured) ([]netip.Prefix, error) {
	list, _, _ := unstructured.NestedStringSlice(u.Object, "spec", "cidrs")
	return parsePrefixes(list)
}

func parsePrefixes(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// podAddrs returns a pod's own addresses: none for one on its node's network or one that has ended.
func podAddrs(u *unstructured.Unstructured) ([]netip.Addr, error) {
	if host, _, _ := unstructured.NestedBool(u.Object, "spec", "hostNetwork"); host {
		return nil, nil
	}
	if phase, _, _ := unstructured.NestedString(u.Object, "status", "phase"); phase == "Succeeded" || phase == "Failed" {
		return nil, nil
	}
	entries, _, _ := unstructured.NestedSlice(u.Object, "status", "podIPs")
	var out []netip.Addr
	for _, e := range entries {
		fields, _ := e.(map[string]any)
		ip, _ := fields["ip"].(string)
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return nil, err
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}
