package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

func seedOf(n uint64) (seed [16]byte) {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	copy(seed[:], sum[:])
	return seed
}

func TestGatewayAddr(t *testing.T) {
	for workstation, gateway := range map[string]string{
		"245.1.2.4": "245.1.2.5", "245.255.255.254": "245.255.255.255", "fd00::4": "fd00::5", "fdff:ffff::fffe": "fdff:ffff::ffff",
	} {
		w, g := netip.MustParseAddr(workstation), netip.MustParseAddr(gateway)
		if GatewayAddr(w) != g || GatewayAddr(g) != w {
			t.Errorf("%s and %s: got %s and back %s", workstation, gateway, GatewayAddr(w), GatewayAddr(g))
		}
	}
}

func TestProposeOverlay(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, tc := range map[string]struct {
		host  string
		avoid []netip.Prefix
		in    string
	}{
		"an ordinary host":                 {office, nil, "245.0.0.0/8"},
		"default routes and halves":        {office + "link tun0 tun\n0.0.0.0/1 dev tun0\n128.0.0.0/1 dev tun0\ndefault6 dev tun0\ndefault dev tun0 table 51", nil, "245.0.0.0/8"},
		"most of the first pool routed":    {"link tun0 tun\n245.0.0.0/9 dev tun0\n245.128.0.0/10 dev tun0", nil, "245.192.0.0/10"},
		"a VPN for all but private space":  {office + "link tun0 tun\n224.0.0.0/3 dev tun0\n" + publicOnly("dev tun0"), nil, "245.0.0.0/8"},
		"the first pool routed":            {"link tun0 tun\n245.0.0.0/8 dev tun0 table 99", nil, "244.0.0.0/8"},
		"a VPN with all private addresses": {"link tun0 tun\n10.0.0.0/8 dev tun0\nfd00::/8 dev tun0", nil, "245.0.0.0/8"},
		"class E pods":                     {office, []netip.Prefix{prefix("245.0.0.0/8"), prefix("244.0.0.0/8")}, "243.0.0.0/8"},
		"unusable prefixes are harmless":   {office, []netip.Prefix{{}}, "245.0.0.0/8"},
	} {
		t.Run(name, func(t *testing.T) {
			facts := host(t, tc.host)
			for n := range uint64(50) {
				v4, v6, err := ProposeOverlay(seedOf(n), facts, tc.avoid...)
				if err != nil {
					t.Fatal(err)
				}
				checkOverlay(t, v4, v6, prefix(tc.in))
				if a, b, _ := ProposeOverlay(seedOf(n), facts, tc.avoid...); a != v4 || b != v6 {
					t.Errorf("one seed, two proposals: %s %s and %s %s", v4, v6, a, b)
				}
			}
		})
	}
}

func checkOverlay(t *testing.T, v4, v6, in netip.Prefix) {
	t.Helper()
	if v4.Bits() != 31 || v4 != v4.Masked() || !in.Contains(v4.Addr()) {
		t.Errorf("%s is no pair in %s", v4, in)
	}
	if v6.Bits() != 127 || v6 != v6.Masked() || !netip.MustParsePrefix("fd00::/8").Contains(v6.Addr()) {
		t.Errorf("%s is no pair in fd00::/8", v6)
	}
	for _, p := range []netip.Prefix{v4, v6} {
		if !p.Contains(GatewayAddr(p.Addr())) || GatewayAddr(p.Addr()) == p.Addr() {
			t.Errorf("the gateway of %s is %s", p, GatewayAddr(p.Addr()))
		}
	}
}

func TestProposeOverlayDiffers(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for n := range uint64(1000) {
		v4, v6, err := ProposeOverlay(seedOf(n), Facts{})
		if err != nil {
			t.Fatal(err)
		}
		seen[v4], seen[v6] = true, true
	}
	if len(seen) < 1998 { // two of 1,000 in 2^23 meet once in 17 runs, but the seeds are fixed
		t.Errorf("only %d different proposals of 2000", len(seen))
	}
}

func TestProposeOverlayNothingLeft(t *testing.T) {
	facts := host(t, "link tun0 tun\n240.0.0.0/4 dev tun0")
	if _, _, err := ProposeOverlay(seedOf(1), facts); !errors.Is(err, ErrNoOverlay) {
		t.Errorf("got %v", err)
	}
	if _, _, err := ProposeOverlay(seedOf(1), Facts{}, netip.MustParsePrefix("fd00::/8")); !errors.Is(err, ErrNoOverlay) {
		t.Errorf("a cluster that has all of fd00::/8: got %v", err)
	}
}
