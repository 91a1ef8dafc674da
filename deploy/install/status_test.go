package install

import (
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

func TestStatusErr(t *testing.T) {
	for _, row := range []struct {
		name   string
		status Status
		want   failure.Code
	}{
		{"serving", Status{Installed: true, Ready: true}, failure.OK},
		{"serving, seen by a user without rights on the release", Status{Installed: true, Ready: true, Unknown: []string{"the release"}}, failure.OK},
		{"starting", Status{Installed: true, Pods: []PodStatus{{Name: "a", State: "pending"}}}, failure.GatewayState},
		{"without a pod", Status{Installed: true}, failure.GatewayState},
		{"missing", Status{}, failure.GatewayState},
		{"out of sight", Status{Unknown: []string{"the gateway's pods"}}, failure.Permission},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := failure.OK
			if err := row.status.Err(); err != nil {
				got = failure.Of(err).Code
			}
			if got != row.want {
				t.Errorf("exit code %d, want %d", got, row.want)
			}
		})
	}
}

func TestStatusText(t *testing.T) {
	changed := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	status := Status{
		Namespace: "culvert", Installed: true,
		Release: &ReleaseStatus{Name: "culvert", Revision: 2, State: "deployed", Chart: "0.1.0", Changed: changed},
		Pods:    []PodStatus{{Name: "culvert-gateway-0", State: "ErrImagePull", Image: "culvert:0.1.0", Node: "node1", Restarts: 1}},
		Policy: &PolicyStatus{
			Problems: []string{"routing.alsoProxySubnets[0]: bad"},
			Services: []v1alpha1.Subnet{{CIDR: "10.130.0.0/16", Source: "ServiceCIDR kubernetes"}},
		},
		Peers: 3,
	}
	var out strings.Builder
	if err := status.WriteText(&out, changed.Add(90*time.Second)); err != nil {
		t.Fatal(err)
	}
	want := `gateway in namespace culvert: not ready
  release   culvert 0.1.0, revision 2, deployed, 1m30s ago
  pod       culvert-gateway-0, ErrImagePull, 1 restarts, image culvert:0.1.0, node node1
  services  10.130.0.0/16 (ServiceCIDR kubernetes)
  pods      not known yet
  policy    ignored: routing.alsoProxySubnets[0]: bad
  peers     3
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}
