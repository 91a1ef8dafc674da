package install

import (
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/node/failure"
)

func TestCheckValues(t *testing.T) {
	loaded, err := loadChart()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		sets []string
		want []string // parts of the error; none for accepted values
	}{
		{"the defaults", nil, nil},
		{"a team's settings", []string{"client.routing.allowConflictingSubnets={10.128.0.0/9}"}, nil},
		{"a prefix with host bits", []string{"client.routing.alsoProxySubnets={10.128.0.1/9}"}, []string{"routing.alsoProxySubnets[0]", "10.128.0.0/9"}},
		{"a namespace in capitals", []string{"client.dns.namespaces={Shop}"}, []string{"dns.namespaces[0]", `"Shop"`}},
		{"subnets reached twice", []string{
			"client.proxyVia[0].subnet=all,client.proxyVia[0].workload=gateway,client.proxyVia[1].subnet=pods,client.proxyVia[1].workload=gateway"},
			[]string{"proxyVia[1]", "pods=gateway overlaps all=gateway"}},
		{"a virtual subnet that others use", []string{"client.cluster.virtualIPSubnet=100.64.0.0/12"}, []string{"cluster.virtualIPSubnet", "carrier-grade NAT"}},
		{"an egress prefix with host bits", []string{"egress.allow={192.0.2.1/24}"}, []string{"egress.allow[0]", "192.0.2.0/24"}},
		{"several at once", []string{"egress.allow={10.0.0.0/33}", "client.transport.mtu=100"}, []string{"egress.allow[0]", "transport.mtu"}},
		{"no cluster scope and no subnets", []string{"discovery.clusterScope=false,discovery.podSubnets={10.132.0.0/16}"}, []string{"discovery.serviceSubnets"}},
		{"no cluster scope with subnets", []string{
			"discovery.clusterScope=false,discovery.podSubnets={10.132.0.0/16},discovery.serviceSubnets={10.130.0.0/16}"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := checkValues(loaded, values(t, row.sets...))
			if len(row.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if code := failure.Of(err); code == nil || code.Code != failure.Usage {
				t.Fatalf("error %v, want a wrong usage", err)
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %v does not name %q", err, want)
				}
			}
		})
	}
}
