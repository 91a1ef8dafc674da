package policy

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Cluster is what the cluster says about itself.
type Cluster struct {
	Services []Subnet `json:"services,omitempty"`
	Pods     []Subnet `json:"pods,omitempty"`
	// UID identifies the cluster across address and name changes; "" if it could not be read.
	UID string `json:"uid,omitempty"`
	// Domain is the DNS suffix of services in lower case, without a trailing dot.
	Domain string `json:"domain,omitempty"`
}

// Subnet is a prefix of the cluster and how it became known.
type Subnet struct {
	Prefix netip.Prefix `json:"prefix"`
	Source string       `json:"source,omitempty"`
}

// DefaultDomain is the DNS suffix of services in nearly every cluster.
const DefaultDomain = "cluster.local"

// ClusterFrom puts together what the gateway published in the Policy's status and what the settings
// put in its place. A prefix in the status that makes no sense is an error naming it.
func ClusterFrom(status v1alpha1.PolicyStatus, s Settings) (Cluster, error) {
	c := Cluster{UID: status.ClusterUID, Domain: DefaultDomain}
	if d := strings.ToLower(strings.Trim(status.ClusterDomain, ".")); d != "" {
		c.Domain = d
	}
	var problems []error
	pick := func(path string, found []v1alpha1.Subnet, set []netip.Prefix) []Subnet {
		var out []Subnet
		for _, p := range set {
			out = append(out, Subnet{p, "setting " + path})
		}
		for i := 0; i < len(found) && len(set) == 0; i++ {
			p, err := routedPrefix(found[i].CIDR)
			if err != nil {
				problems = append(problems, &SettingError{Position{Name: "the gateway's status"}, path, err.Error()})
				continue
			}
			out = append(out, Subnet{netip.MustParsePrefix(p), found[i].Source})
		}
		return out
	}
	c.Services = pick("cluster.serviceSubnets", status.Subnets.Services, s.ServiceSubnets)
	c.Pods = pick("cluster.podSubnets", status.Subnets.Pods, s.PodSubnets)
	return c, errors.Join(problems...)
}

// SubnetKind says why a prefix is to go through the tunnel.
type SubnetKind string

// Kinds of subnets.
const (
	KindServices SubnetKind = "services"
	KindPods     SubnetKind = "pods"
	KindAlso     SubnetKind = "also"
)

// want is a prefix that is to be reached through the tunnel if nothing stands against it.
type want struct {
	prefix netip.Prefix
	kind   SubnetKind
	// hidden says that it is reached by virtual addresses or not at all: a proxyVia asks for it, and no
	// more than that.
	hidden bool
}

// wants returns all subnets, sorted. Neighbouring pod prefixes, one per cluster node, become one, and
// likewise those of services; also-proxied prefixes stay as they were written, since their length
// counts against never-proxied ones.
func wants(c Cluster, s Settings) []want {
	var out []want
	joined := func(kind SubnetKind, subnets []Subnet) {
		var b netipx.IPSetBuilder
		for _, n := range subnets {
			if _, useless := unroutable(n.Prefix); n.Prefix.IsValid() && !useless {
				b.AddPrefix(n.Prefix)
			}
		}
		for _, p := range rangesFrom(&b).prefixes() {
			out = append(out, want{prefix: p, kind: kind})
		}
	}
	joined(KindServices, c.Services)
	joined(KindPods, c.Pods)
	for _, p := range s.rules(ResolveAlso) {
		out = append(out, want{prefix: p, kind: KindAlso})
	}
	slices.SortFunc(out, compareWants)
	return slices.Compact(out)
}

func compareWants(a, b want) int {
	if d := comparePrefix(a.prefix, b.prefix); d != 0 {
		return d
	}
	return strings.Compare(string(a.kind), string(b.kind))
}

// withHidden adds to wants what a proxyVia names beyond them. It is no subnet that a symbol could mean.
func withHidden(wants []want, s Settings) []want {
	out := slices.Clip(wants)
	for _, p := range s.rules(ResolveVia) {
		_, useless := unroutable(p)
		inside := func(w want) bool { return covers(w.prefix, p) }
		if (!useless || isLoopback(p)) && !slices.ContainsFunc(wants, inside) {
			out = append(out, want{prefix: p, kind: KindAlso, hidden: true})
		}
	}
	slices.SortFunc(out, compareWants)
	return slices.Compact(out)
}
