package subnets

import (
	"fmt"
	"testing"
)

func TestDeclaredPods(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"single stack", "kind: ClusterConfiguration\nnetworking:\n  podSubnet: 10.132.0.0/16\n", "[10.132.0.0/16]"},
		{"dual stack", "networking: {podSubnet: \"10.132.0.0/16, fd00:132::/56\"}", "[10.132.0.0/16 fd00:132::/56]"},
		{"host bits set", "networking: {podSubnet: 10.132.0.1/16}", "[10.132.0.0/16]"},
		{"none", "networking: {}", "[]"},
		{"not YAML", "\t:", "[]"},
		{"half of it wrong", "networking: {podSubnet: \"10.132.0.0/16,pods\"}", "[10.132.0.0/16]"},
	} {
		if got := fmt.Sprint(declaredPods(row.text)); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}
