package policy

import (
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

func TestClusterFrom(t *testing.T) {
	status := v1alpha1.PolicyStatus{
		ClusterUID: "uid", ClusterDomain: "Corp.Local.",
		Subnets: v1alpha1.ClusterSubnets{
			Services: []v1alpha1.Subnet{{CIDR: "10.130.0.0/16", Source: "ServiceCIDR kubernetes"}, {CIDR: "fd12::/108"}},
			Pods:     []v1alpha1.Subnet{{CIDR: "10.132.0.0/16"}},
		},
	}
	c, err := ClusterFrom(status, Settings{})
	if err != nil || len(c.Services) != 2 || len(c.Pods) != 1 || c.Services[0].Source != "ServiceCIDR kubernetes" || c.Domain != "corp.local" || c.UID != "uid" {
		t.Errorf("got %+v, %v", c, err)
	}
	c, err = ClusterFrom(status, settings(t, "--pod-subnets=10.200.0.0/16,10.201.0.0/16"))
	if err != nil || prefixTexts(c.prefixes()) != "10.130.0.0/16 fd12::/108 10.200.0.0/16 10.201.0.0/16" {
		t.Errorf("with --pod-subnets: %+v, %v", c, err)
	}
	if c, _ := ClusterFrom(v1alpha1.PolicyStatus{}, Settings{}); c.Domain != "cluster.local" {
		t.Errorf("the domain without a status is %q", c.Domain)
	}
}

func TestClusterFromRefusesNonsense(t *testing.T) {
	for _, cidr := range []string{"10.0.0.1/8", "pods", "0.0.0.0/0", "127.0.0.0/8", "::ffff:10.0.0.0/104"} {
		_, err := ClusterFrom(v1alpha1.PolicyStatus{Subnets: v1alpha1.ClusterSubnets{Pods: []v1alpha1.Subnet{{CIDR: cidr}}}}, Settings{})
		if err == nil || !strings.HasPrefix(err.Error(), "the gateway's status: cluster.podSubnets: ") {
			t.Errorf("%s: %v", cidr, err)
		}
	}
}
