package connection

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/validation"
)

func TestPeerNameIsAKubernetesName(t *testing.T) {
	for _, user := range []string{"admin", "system:serviceaccount:ci:runner", "Ann.Other@example.com", "", "---", strings.Repeat("ü", 90), strings.Repeat("a.", 60)} {
		name := peerName(user, "Build-Host.Local", "0123", "default")
		if msgs := validation.NameIsDNSSubdomain(name, false); len(msgs) > 0 || len(name) > 63 {
			t.Errorf("peerName(%q) = %q (%d characters): %v", user, name, len(name), msgs)
		}
	}
}

func TestPeerNameTellsApart(t *testing.T) {
	seen := map[string][4]string{}
	for _, user := range []string{"ann", "a-nn", "ann@x"} {
		for _, machine := range []string{"1", "2"} {
			for _, connection := range []string{"default", "staging"} {
				key := [4]string{user, "host", machine, connection}
				name := peerName(user, "host", machine, connection)
				if other, dup := seen[name]; dup {
					t.Errorf("%v and %v are both called %s", key, other, name)
				}
				seen[name] = key
				if again := peerName(user, "host", machine, connection); again != name {
					t.Errorf("not the same name twice: %s, %s", name, again)
				}
			}
		}
	}
}
