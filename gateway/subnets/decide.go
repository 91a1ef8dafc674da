package subnets

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// Facts are what is known of a cluster's addresses. The zero value means that nothing is.
type Facts struct {
	// Services and Pods are the chart's values; where they name a family, nothing else is asked.
	Services, Pods []netip.Prefix
	// ServiceCIDRs are the prefixes of the ServiceCIDR objects, by name.
	ServiceCIDRs map[string][]netip.Prefix
	// ServiceAnswer is what the API server said is its range when asked for an impossible Service.
	ServiceAnswer []netip.Prefix
	// Declared are the pod prefixes that kubeadm's configuration names.
	Declared []netip.Prefix
	// Nodes are the podCIDRs of all nodes together.
	Nodes []netip.Prefix
	// PodCover is the cover of the pods' addresses, see [Cover].
	PodCover []netip.Prefix
	// Own are the gateway's addresses among the pods'. A family it has none of is left out.
	Own []netip.Addr
}

// Subnet is a prefix and how it became known, for people.
type Subnet struct {
	Prefix netip.Prefix
	Source string
}

// Result is what follows from [Facts]. Its lists are sorted and hold no prefix twice.
type Result struct {
	Services, Pods []Subnet
	// NeedCover reports whether a family's pods are known from their addresses alone.
	NeedCover bool
}

// Sources, as people read them.
const (
	sourceChartServices = "chart value discovery.serviceSubnets"
	sourceChartPods     = "chart value discovery.podSubnets"
	sourceAnswer        = "answer of the API server"
	sourceDeclared      = "podSubnet of kubeadm's configuration"
	sourceNodes         = "podCIDRs of the nodes"
	sourceCover         = "addresses of the pods"
)

// Decide picks the best source for each family.
func Decide(f Facts) Result {
	var r Result
	for _, is4 := range []bool{true, false} {
		r.Services = append(r.Services, services(f, is4)...)
		pods, cover := pods(f, is4)
		r.Pods = append(r.Pods, pods...)
		r.NeedCover = r.NeedCover || cover
	}
	return r
}

// services returns the service prefixes of one family.
func services(f Facts, is4 bool) []Subnet {
	if set := of(f.Services, is4, sourceChartServices); len(set) > 0 {
		return set
	}
	var found []Subnet
	for _, name := range slices.Sorted(maps.Keys(f.ServiceCIDRs)) {
		found = append(found, of(f.ServiceCIDRs[name], is4, "ServiceCIDR "+name)...)
	}
	if len(found) > 0 {
		return sorted(found)
	}
	return of(f.ServiceAnswer, is4, sourceAnswer)
}

// pods returns the pod prefixes of one family, and whether they rest on the pods' addresses.
func pods(f Facts, is4 bool) (list []Subnet, cover bool) {
	if set := of(f.Pods, is4, sourceChartPods); len(set) > 0 {
		return set, false
	}
	own := slices.IndexFunc(f.Own, func(a netip.Addr) bool { return a.Unmap().Is4() == is4 })
	if own < 0 {
		return nil, false // the gateway has no address of this family, so it reaches no pod by it
	}
	if slices.ContainsFunc(f.Declared, func(p netip.Prefix) bool { return p.Contains(f.Own[own].Unmap()) }) {
		return of(f.Declared, is4, sourceDeclared), false
	}
	if slices.ContainsFunc(f.Nodes, func(p netip.Prefix) bool { return p.Contains(f.Own[own].Unmap()) }) {
		return of(nodesOf(f.Nodes, is4), is4, sourceNodes), false
	}
	return of(f.PodCover, is4, sourceCover), true
}

// of returns the prefixes of one family with their source.
func of(list []netip.Prefix, is4 bool, source string) []Subnet {
	var out []Subnet
	for _, p := range list {
		if p.IsValid() && p.Addr().Is4() == is4 && !p.Addr().Is4In6() && p.Bits() > 0 {
			out = append(out, Subnet{p.Masked(), source})
		}
	}
	return sorted(out)
}

// sorted sorts list by address and drops repeated prefixes.
func sorted(list []Subnet) []Subnet {
	slices.SortStableFunc(list, func(a, b Subnet) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return slices.CompactFunc(list, func(a, b Subnet) bool { return a.Prefix == b.Prefix })
}

// union joins neighbouring and contained prefixes.
func union(list []netip.Prefix) []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, p := range list {
		if p.IsValid() && !p.Addr().Is4In6() {
			b.AddPrefix(p.Masked())
		}
	}
	set, err := b.IPSet()
	if err != nil { // invalid prefixes were left out
		panic("subnets: " + err.Error())
	}
	return set.Prefixes()
}

// prefixesOf returns the prefixes of list alone.
func prefixesOf(list []Subnet) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = s.Prefix
	}
	return out
}

// ServicePrefixes returns the prefixes of r.Services.
func (r Result) ServicePrefixes() []netip.Prefix { return prefixesOf(r.Services) }

// PodPrefixes returns the prefixes of r.Pods.
func (r Result) PodPrefixes() []netip.Prefix { return prefixesOf(r.Pods) }
