package reach

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func prefixes(text string) (out []netip.Prefix) {
	for _, s := range strings.Fields(text) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestTargets(t *testing.T) {
	both := []netip.Addr{gateway4, gateway6}
	for _, row := range []struct {
		name, subnets, allowed string
		gateways               []netip.Addr
		want                   string
	}{
		{"whole subnets", "10.132.0.0/16 10.130.0.0/16", "10.130.0.0/16 10.132.0.0/16", both, "10.130.0.0/16=10.130.0.1 10.132.0.0/16=10.132.0.1"},
		{"joined to a larger prefix", "10.130.0.0/16 10.131.0.0/16", "10.130.0.0/15", both, "10.130.0.0/16=10.130.0.1 10.131.0.0/16=10.131.0.1"},
		{"the first half carved out", "10.132.0.0/16", "10.132.128.0/17", both, "10.132.0.0/16=10.132.128.1"},
		{"the largest piece", "10.132.0.0/16", "10.132.0.128/25 10.132.1.0/24 10.132.2.0/23 10.132.4.0/23", both, "10.132.0.0/16=10.132.2.1"},
		{"all carved out", "10.132.0.0/16", "10.130.0.0/16 10.133.0.0/16", both, ""},
		{"single addresses", "10.132.0.0/16", "10.132.7.7/32", both, "10.132.0.0/16=10.132.7.7"},
		{"a pair of addresses", "10.132.7.6/31", "10.132.0.0/16", both, "10.132.7.6/31=10.132.7.7"},
		{"both families", "fd10:130::/112 10.130.0.0/16", "10.130.0.0/16 fd10:130::/112", both, "10.130.0.0/16=10.130.0.1 fd10:130::/112=fd10:130::1"},
		{"a family the tunnel has no address of", "fd10:130::/112 10.130.0.0/16", "10.130.0.0/16 fd10:130::/112", []netip.Addr{gateway4}, "10.130.0.0/16=10.130.0.1"},
		{"named twice, one with host bits", "10.130.0.0/16 10.130.4.4/16", "10.130.0.0/16", both, "10.130.0.0/16=10.130.0.1"},
		{"nothing", "", "10.130.0.0/16", both, ""},
	} {
		var got []string
		for _, x := range Targets(prefixes(row.subnets), prefixes(row.allowed), row.gateways) {
			got = append(got, x.Prefix.String()+"="+x.Addr.String())
			if x.Gateway.Is4() != x.Addr.Is4() {
				t.Errorf("%s: gateway %v for %v", row.name, x.Gateway, x.Addr)
			}
		}
		if text := strings.Join(got, " "); text != row.want {
			t.Errorf("%s: %q, want %q", row.name, text, row.want)
		}
	}
}

// Over random subnets and disjoint allowed prefixes of a small space: a subnet has a target exactly if some address
// of it is allowed, the target is one of those, and the order of the input does not matter.
func TestTargetsAgainstEveryAddress(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	random := func() netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(256))}), 24+rng.IntN(9)).Masked()
	}
	for range 2000 {
		var subnets, allowed []netip.Prefix
		for range rng.IntN(6) {
			subnets = append(subnets, random())
		}
		for range rng.IntN(12) {
			p := random()
			if !slices.ContainsFunc(allowed, p.Overlaps) {
				allowed = append(allowed, p)
			}
		}
		got := Targets(subnets, allowed, []netip.Addr{gateway4})
		checkTargets(t, subnets, allowed, got)
		rng.Shuffle(len(allowed), func(i, j int) { allowed[i], allowed[j] = allowed[j], allowed[i] })
		slices.Reverse(subnets)
		if again := Targets(subnets, allowed, []netip.Addr{gateway4}); !slices.Equal(got, again) {
			t.Fatalf("%v and, in another order, %v", got, again)
		}
	}
}

func checkTargets(t *testing.T, subnets, allowed []netip.Prefix, got []Target) {
	t.Helper()
	for _, subnet := range subnets {
		some := false
		for a := subnet.Addr(); subnet.Contains(a); a = a.Next() {
			some = some || slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		i := slices.IndexFunc(got, func(x Target) bool { return x.Prefix == subnet })
		if some != (i >= 0) {
			t.Fatalf("%v within %v: target %v", subnet, allowed, got)
		}
		if i >= 0 && (!subnet.Contains(got[i].Addr) || !slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(got[i].Addr) })) {
			t.Fatalf("%v within %v: %v", subnet, allowed, got[i].Addr)
		}
	}
}
