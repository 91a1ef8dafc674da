package workloads

import (
	"strings"
	"testing"
)

func TestRender(t *testing.T) {
	tests := []struct {
		name      string
		values    Values
		want, not []string
	}{
		{
			"single stack", Values{DNS: "10.130.0.10", Upstream: "10.20.0.53", Replicas: 2},
			[]string{"clusterIP: 10.130.0.10\n", "replicas: 2", "forward . 10.20.0.53", "127.0.0.1 loop.test.cluster.local", "ipFamilyPolicy: SingleStack"},
			[]string{"clusterIPs", "RequireDualStack", "echo-six", "<no value>"},
		},
		{
			"light dual stack", Values{DNS: "10.130.0.10", DNS6: "fd00::a", Upstream: "10.20.0.53", Replicas: 1, DualStack: true},
			[]string{`clusterIPs: [10.130.0.10, "fd00::a"]`, "replicas: 1", "ipFamilies: [IPv4, IPv6]", "ipFamilies: [IPv6]"},
			[]string{"replicas: 2", "SingleStack", "<no value>"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Render(tt.values)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q", want)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(got, not) {
					t.Errorf("%q is there", not)
				}
			}
		})
	}
}
