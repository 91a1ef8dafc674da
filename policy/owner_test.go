package policy

import (
	_ "embed"
	"path"
	"strings"
	"testing"
)

//go:embed testdata/owners.txt
var ownerFixtures string

// TestLikelyOwner reads the fixtures, and checks that every pattern has one: an owner that nobody has
// seen is not claimed.
func TestLikelyOwner(t *testing.T) {
	hit := map[ownerPattern]bool{}
	for line := range strings.Lines(ownerFixtures) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		l := Link{Name: f[0], Kind: strings.TrimPrefix(f[1], "-")}
		want := strings.TrimPrefix(strings.Join(f[2:], " "), "-")
		if got := LikelyOwner(l); got != want {
			t.Errorf("%s of kind %q is said to be %q's, want %q", l.Name, l.Kind, got, want)
		}
		hit[ownerOf(l)] = true
	}
	for _, p := range owners {
		if !hit[p] {
			t.Errorf("no fixture for %+v", p)
		}
	}
}

// TestOwnersAreReachable: no pattern stands behind one that catches all it would.
func TestOwnersAreReachable(t *testing.T) {
	for i, p := range owners {
		for _, earlier := range owners[:i] {
			if ok, _ := path.Match(earlier.name, strings.NewReplacer("[0-9]", "0", "*", "x").Replace(p.name)); ok && earlier.kind == p.kind {
				t.Errorf("%+v never gets its turn behind %+v", p, earlier)
			}
		}
	}
}

func TestParseOwnersRefuses(t *testing.T) {
	for _, text := range []string{"tun tun0 vpn", "tun tun0 elsewhere OpenVPN", "tun [ vpn OpenVPN"} {
		if _, err := parseOwners(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
