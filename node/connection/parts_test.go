package connection

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/policy"
)

func TestMailboxLetsASenderGo(t *testing.T) {
	m := newMailbox()
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan struct{})
	go func() { // more than fits, and nobody reads
		defer close(sent)
		for range cap(m) + 1 {
			m.send(ctx, func() { t.Error("an event runs that nobody took") })
		}
	}()
	cancel()
	<-sent
}

func TestNoticesAreNewsOnce(t *testing.T) {
	n := notices{}
	if !n.set("b", "bad") || n.set("b", "bad") || !n.set("a", "worse") || n.set("c", "") {
		t.Error("what is news is wrong")
	}
	if got := n.list(); len(got) != 2 || got[0] != "worse" || got[1] != "bad" {
		t.Errorf("list %q", got)
	}
	if !n.set("b", "") || len(n.list()) != 1 {
		t.Error("a notice that is in order stays")
	}
}

func TestTunnelMTU(t *testing.T) {
	wifi, v6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	link := func(mtu int) policy.Facts {
		return policy.Facts{Links: []policy.Link{{Name: "lo", MTU: 65536}, {Name: "wlan0", MTU: mtu, Addresses: []netip.Prefix{
			netip.PrefixFrom(wifi, 24), netip.PrefixFrom(v6, 64),
		}}}}
	}
	for _, row := range []struct {
		name   string
		set    int
		facts  policy.Facts
		source netip.Addr
		want   int
	}{
		{"Ethernet", 0, link(1500), wifi, 1420},
		{"its IPv6 address", 0, link(1500), v6, 1420},
		{"inside a VPN", 0, link(1400), wifi, 1320},
		{"too small for IPv6", 0, link(1300), wifi, 1280},
		{"jumbo frames", 0, link(9000), wifi, 1420},
		{"source on no link", 0, link(1300), netip.MustParseAddr("198.51.100.1"), 1420},
		{"nothing dialled", 0, link(1300), netip.Addr{}, 1420},
		{"set", 1333, link(1500), wifi, 1333},
	} {
		if got := tunnelMTU(row.set, row.facts, row.source); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
}

func TestConsentIsRemembered(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if consented("a") {
		t.Error("consent without a file")
	}
	for _, hash := range []string{"a", "b", "a"} {
		if err := rememberConsent(hash); err != nil {
			t.Fatal(err)
		}
	}
	if !consented("a") || !consented("b") || consented("c") || consented("") {
		t.Error("what is remembered is not what was agreed to")
	}
	path, err := consentFile()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want it for the user alone", info.Mode(), err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestConsentFileThatIsDamagedIsKept(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	path, err := consentFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if consented("a") || rememberConsent("a") == nil {
		t.Error("a damaged file counts")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "{" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestConflictLine(t *testing.T) {
	c := policy.Conflict{
		Subnet: netip.MustParsePrefix("10.130.0.0/16"), Kind: policy.KindServices, Resolution: policy.Allowed,
		Claim: policy.Claim{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Type: policy.Unicast, Interfaces: []string{"tun0"}},
	}
	if got := conflictLine(c); got != "10.130.0.0/16 services overlaps 10.0.0.0/8 on tun0: allowed" {
		t.Error(got)
	}
	c.Claim.Type, c.Claim.Interfaces = policy.Blackhole, nil
	if got := conflictLine(c); got != "10.130.0.0/16 services overlaps 10.0.0.0/8 (blackhole): allowed" {
		t.Error(got)
	}
}

// TestOwnSettingsAreCheckedFirst: a bad flag is told even where there is no kubeconfig.
func TestOwnSettingsAreCheckedFirst(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var s Session
	s.request.Kube.Kubeconfig = filepath.Join(t.TempDir(), "missing")
	s.request.Flags.Routing.AllowConflictingSubnets = []string{"ten"}
	if f := failure.Of(s.learn(t.Context())); f == nil || f.Code != failure.Usage || !strings.Contains(f.Text, "--allow-conflicting-subnets") {
		t.Errorf("%+v", f)
	}
}

// TestFailuresOfTheHost: what root's limits refuse is a matter of permission.
func TestFailuresOfTheHost(t *testing.T) {
	refused := &helper.Error{Code: helper.CodeRefused, Message: "prefix 211.55.48.0/20 is public"}
	for err, want := range map[error]failure.Code{
		fmt.Errorf("change: %w", refused): failure.Permission,
		hostnet.ErrForeign:                failure.General,
		errors.New("no such device"):      failure.General,
	} {
		if got := failure.Of(hostFailure(err)).Code; got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}
