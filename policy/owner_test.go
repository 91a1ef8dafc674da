package policy

import (
	_ "embed"
	"fmt"
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
		name, kind := f[0], strings.TrimPrefix(f[1], "-")
		want := strings.TrimPrefix(strings.Join(f[2:], " "), "-")
		if got := likelyOwner(t, kind, name); got != want {
			t.Errorf("%s of kind %q is said to be %q's, want %q", name, kind, got, want)
		}
		hit[firstOwner(kind, name)] = true
	}
	for _, p := range owners {
		if !hit[p] {
			t.Errorf("no fixture for %+v", p)
		}
	}
}

// likelyOwner asks for an interface or a rule.
func likelyOwner(t *testing.T, kind, name string) string {
	if kind != "rule" {
		return LikelyOwner(Link{Name: name, Kind: kind})
	}
	var r Rule
	if _, err := fmt.Sscanf(name, "%d/%d", &r.Priority, &r.Table); err != nil {
		t.Fatalf("fixture of a rule %q: %v", name, err)
	}
	return LikelyOwnerOfRule(r)
}

// TestLikelyOwnerOfRulesThatLookNothingUp: the number of a table says nothing then.
func TestLikelyOwnerOfRulesThatLookNothingUp(t *testing.T) {
	r := Rule{Priority: 220, Table: 220, Action: ActionLookup}
	if got := LikelyOwnerOfRule(r); got != "strongSwan" {
		t.Errorf("a lookup is said to be %q's", got)
	}
	for _, other := range []Rule{{Priority: 220, Table: 220, Action: ActionProhibit}, {Priority: 220, Table: 220, L3MDev: true}} {
		if got := LikelyOwnerOfRule(other); got != "" {
			t.Errorf("%+v is said to be %q's", other, got)
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

// TestOwnerNamesTheConnection: an interface of ours says which one's it is; an alias on another's is only text.
func TestOwnerNamesTheConnection(t *testing.T) {
	for _, tt := range []struct{ name, kind, alias, want string }{
		{"culvert1", "tun", ConnectionAlias + "staging", "Culvert connection staging"},
		{"culvert1", "tun", "", "another Culvert connection"},
		{"culvert1", "tun", "mine", "another Culvert connection"},
		{"tun0", "tun", ConnectionAlias + "staging", "OpenVPN"},
	} {
		if got := LikelyOwner(Link{Name: tt.name, Kind: tt.kind, Alias: tt.alias}); got != tt.want {
			t.Errorf("%+v is said to be %q's", tt, got)
		}
	}
}
