package subnets

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(list string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range strings.Fields(list) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list string) []netip.Addr {
	var out []netip.Addr
	for _, s := range strings.Fields(list) {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// show prints a result such as "svc 10.0.0.0/16 (ServiceCIDR kubernetes); pods 10.1.0.0/24 (...)".
func show(r Result) string {
	list := func(kind string, l []Subnet) string {
		for _, s := range l {
			kind += fmt.Sprintf(" %s (%s)", s.Prefix, s.Source)
		}
		return kind
	}
	return list("svc", r.Services) + "; " + list("pods", r.Pods)
}

func TestDecide(t *testing.T) {
	kubernetes := map[string][]netip.Prefix{"kubernetes": prefixes("10.130.0.0/16")}
	for _, row := range []struct {
		name  string
		facts Facts
		want  string
		cover bool
	}{
		{"nothing known", Facts{}, "svc; pods", false},
		{"a usual cluster", Facts{ServiceCIDRs: kubernetes, Nodes: prefixes("10.132.0.0/24 10.132.1.0/24"), Own: addrs("10.132.1.7")},
			"svc 10.130.0.0/16 (ServiceCIDR kubernetes); pods 10.132.0.0/23 (podCIDRs of the nodes)", false},
		{"made by kubeadm", Facts{ServiceCIDRs: kubernetes, Declared: prefixes("10.132.0.0/16"), Nodes: prefixes("10.132.0.0/24"), Own: addrs("10.132.0.7")},
			"svc 10.130.0.0/16 (ServiceCIDR kubernetes); pods 10.132.0.0/16 (podSubnet of kubeadm's configuration)", false},
		{"made by kubeadm, then given another network", Facts{ServiceCIDRs: kubernetes, Declared: prefixes("10.244.0.0/16"), Nodes: prefixes("10.132.0.0/24"), Own: addrs("10.132.0.7")},
			"svc 10.130.0.0/16 (ServiceCIDR kubernetes); pods 10.132.0.0/24 (podCIDRs of the nodes)", false},
		{"dual stack", Facts{
			ServiceCIDRs: map[string][]netip.Prefix{"kubernetes": prefixes("10.130.0.0/16 fd00:130::/108")},
			Nodes:        prefixes("10.132.0.0/24 fd00:132::/64"), Own: addrs("10.132.0.7 fd00:132::7")},
			"svc 10.130.0.0/16 (ServiceCIDR kubernetes) fd00:130::/108 (ServiceCIDR kubernetes); " +
				"pods 10.132.0.0/24 (podCIDRs of the nodes) fd00:132::/64 (podCIDRs of the nodes)", false},
		{"IPv6 only", Facts{ServiceCIDRs: map[string][]netip.Prefix{"kubernetes": prefixes("fd00:130::/108")},
			Nodes: prefixes("fd00:132::/64"), Own: addrs("fd00:132::7")},
			"svc fd00:130::/108 (ServiceCIDR kubernetes); pods fd00:132::/64 (podCIDRs of the nodes)", false},
		{"several ServiceCIDRs", Facts{ServiceCIDRs: map[string][]netip.Prefix{
			"more": prefixes("10.99.0.0/24"), "again": prefixes("10.130.0.0/16"), "kubernetes": prefixes("10.130.0.0/16")}},
			"svc 10.99.0.0/24 (ServiceCIDR more) 10.130.0.0/16 (ServiceCIDR again); pods", false},
		{"no ServiceCIDR, an answer", Facts{ServiceAnswer: prefixes("10.96.0.0/12")}, "svc 10.96.0.0/12 (answer of the API server); pods", false},
		{"the chart is above the API", Facts{ServiceCIDRs: kubernetes, Services: prefixes("10.131.0.0/16"), Pods: prefixes("10.132.0.0/16"),
			Nodes: prefixes("10.132.0.0/24"), Own: addrs("10.132.0.7")},
			"svc 10.131.0.0/16 (chart value discovery.serviceSubnets); pods 10.132.0.0/16 (chart value discovery.podSubnets)", false},
		{"the chart names one family", Facts{ServiceCIDRs: map[string][]netip.Prefix{"kubernetes": prefixes("10.130.0.0/16 fd00:130::/108")},
			Services: prefixes("10.131.0.0/16")},
			"svc 10.131.0.0/16 (chart value discovery.serviceSubnets) fd00:130::/108 (ServiceCIDR kubernetes); pods", false},
		{"podCIDRs that the CNI ignores", Facts{Nodes: prefixes("10.244.0.0/24"), PodCover: prefixes("192.168.7.0/24"), Own: addrs("192.168.7.9")},
			"svc; pods 192.168.7.0/24 (addresses of the pods)", true},
		{"no podCIDRs", Facts{PodCover: prefixes("192.168.7.0/24 192.168.9.0/24"), Own: addrs("192.168.7.9")},
			"svc; pods 192.168.7.0/24 (addresses of the pods) 192.168.9.0/24 (addresses of the pods)", true},
		{"one family by nodes, one by pods", Facts{Nodes: prefixes("10.132.0.0/24"), PodCover: prefixes("10.132.0.0/24 fd00:9::/64"), Own: addrs("10.132.0.7 fd00:9::7")},
			"svc; pods 10.132.0.0/24 (podCIDRs of the nodes) fd00:9::/64 (addresses of the pods)", true},
		{"own address in mapped form", Facts{Nodes: prefixes("10.132.0.0/24"), Own: []netip.Addr{netip.MustParseAddr("::ffff:10.132.0.7")}},
			"svc; pods 10.132.0.0/24 (podCIDRs of the nodes)", false},
		{"a default route is no subnet", Facts{Services: prefixes("0.0.0.0/0"), ServiceCIDRs: kubernetes}, "svc 10.130.0.0/16 (ServiceCIDR kubernetes); pods", false},
		{"host bits", Facts{Services: prefixes("10.130.4.5/16")}, "svc 10.130.0.0/16 (chart value discovery.serviceSubnets); pods", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := Decide(row.facts)
			if got := show(r); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
			if r.NeedCover != row.cover {
				t.Errorf("NeedCover %v", r.NeedCover)
			}
		})
	}
}

func TestCover(t *testing.T) {
	for _, row := range []struct {
		name   string
		before string
		addrs  string
		want   string
	}{
		{"nobody", "", "", ""},
		{"one pod", "", "192.168.7.9", "192.168.7.0/24"},
		{"neighbours join", "", "192.168.6.9 192.168.7.9", "192.168.6.0/23"},
		{"strangers do not", "", "192.168.7.9 192.168.8.9", "192.168.7.0/24 192.168.8.0/24"},
		{"never shrinks", "192.168.0.0/20", "10.0.0.1", "10.0.0.0/24 192.168.0.0/20"},
		{"IPv6", "", "fd00::1 fd00::2 fd00:0:0:9::1", "fd00::/64 fd00:0:0:9::/64"},
		{"mapped", "", "::ffff:192.168.7.9", "192.168.7.0/24"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, want := Cover(prefixes(row.before), addrs(row.addrs)), prefixes(row.want); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestCoverStaysSmallAndComplete(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var cover []netip.Prefix
	for round := range 20 {
		var pods []netip.Addr
		for range 200 {
			// A private /12 as clouds give it: 16 blocks of /16.
			pods = append(pods, netip.AddrFrom4([4]byte{10, byte(16 + r.IntN(16)), byte(r.IntN(256)), byte(r.IntN(256))}))
		}
		before := cover
		cover = Cover(before, pods)
		if len(cover) > coverSize {
			t.Fatalf("round %d: %d prefixes", round, len(cover))
		}
		for _, a := range pods {
			if !slices.ContainsFunc(cover, func(p netip.Prefix) bool { return p.Contains(a) }) {
				t.Fatalf("round %d: %s is not covered by %v", round, a, cover)
			}
		}
		for _, old := range before {
			if !slices.ContainsFunc(cover, func(p netip.Prefix) bool { return p.Bits() <= old.Bits() && p.Contains(old.Addr()) }) {
				t.Fatalf("round %d: %s was given up", round, old)
			}
		}
		for _, p := range cover {
			if p.Addr().AsSlice()[0] != 10 || p.Bits() < 12 {
				t.Fatalf("round %d: %s takes too much", round, p)
			}
		}
	}
}

func TestVeryManyNodes(t *testing.T) {
	var nodes []netip.Prefix
	for i := range 2000 { // every second /24 of 10.64.0.0/12: nothing to join
		nodes = append(nodes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i>>7), byte(i << 1), 0}), 24))
	}
	r := Decide(Facts{Nodes: append(nodes, prefixes("fd00:132::/64")...), Own: addrs("10.64.0.7 fd00:132::7")})
	if len(r.Pods) > nodePrefixes+1 {
		t.Errorf("%d prefixes", len(r.Pods))
	}
	for _, n := range nodes {
		if !slices.ContainsFunc(r.Pods, func(s Subnet) bool { return s.Prefix.Contains(n.Addr()) }) {
			t.Fatalf("%s is not in %v", n, r.PodPrefixes())
		}
	}
}

func TestRangesIn(t *testing.T) {
	for _, row := range []struct{ name, message, want string }{
		{"Kubernetes 1.30", `Service "x" is invalid: spec.clusterIPs: Invalid value: []string{"192.0.2.1"}: failed to allocate IP 192.0.2.1: ` +
			`the provided IP (192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12`, "10.96.0.0/12"},
		{"IPv6", "The range of valid IPs is fd00:10:96::/112", "fd00:10:96::/112"},
		{"forbidden", `services is forbidden: User "system:serviceaccount:culvert:culvert-gateway" cannot create resource "services"`, ""},
		{"no range", "The range of valid IPs is unknown/12", ""},
		{"everything", "The range of valid IPs is 0.0.0.0/0", ""},
		{"not a prefix", "The range of valid IPs is 10.96.0.0/99", ""},
		{"empty", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, want := rangesIn(row.message), prefixes(row.want); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func FuzzRangesIn(f *testing.F) {
	f.Add("The range of valid IPs is 10.96.0.0/12")
	f.Add("range of valid IPs is ::ffff:10.0.0.0/104")
	f.Fuzz(func(t *testing.T, message string) {
		for _, p := range rangesIn(message) {
			if !p.IsValid() || p.Bits() == 0 || p.Masked() != p || p.Addr().Is4In6() {
				t.Errorf("%v found in %q", p, message)
			}
		}
	})
}
