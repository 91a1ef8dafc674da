package egress

import (
	"net/netip"
	"strings"
	"testing"

	"go4.org/netipx"
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, s := range list {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

// cluster is a dual-stack cluster with two Peers and nothing in egress.allow.
func cluster(allow ...string) Input {
	return Input{
		Services: prefixes("10.130.0.0/16", "fd00:130::/108"),
		Pods:     prefixes("10.132.0.0/16", "fd00:132::/56"),
		Allow:    prefixes(allow...),
		Own:      addrs("10.132.0.9", "fd00:132::9"),
		Overlays: prefixes("245.1.2.4/31", "fd7a:1::4/127"),
	}
}

func TestSetCheck(t *testing.T) {
	everything := cluster("0.0.0.0/0", "::/0")
	for _, row := range []struct {
		name string
		in   Input
		dst  string
		want string // part of the refusal, "" for permitted
	}{
		{"a pod", cluster(), "10.132.3.4", ""},
		{"a service", cluster(), "10.130.0.10", ""},
		{"the API server's service", cluster(), "10.130.0.1", ""},
		{"an IPv6 pod", cluster(), "fd00:132::77", ""},
		{"outside everything", cluster(), "10.1.0.1", "no service or pod subnet"},
		{"the internet", cluster(), "1.1.1.1", "no service or pod subnet"},
		{"egress.allow", cluster("10.1.0.0/24"), "10.1.0.1", ""},
		{"beside egress.allow", cluster("10.1.0.0/24"), "10.1.1.1", "egress.allow"},
		{"unmasked entry", cluster("10.1.0.77/24"), "10.1.0.1", ""},

		{"itself", cluster(), "10.132.0.9", "own address"},
		{"itself over IPv6", cluster(), "fd00:132::9", "own address"},
		{"itself although everything is allowed", everything, "10.132.0.9", "own address"},
		{"itself by name", cluster("10.132.0.9/32"), "10.132.0.9", ""},
		{"another Peer", everything, "245.1.2.4", "overlay"},
		{"its gateway address", everything, "245.1.2.5", "overlay"},
		{"another Peer over IPv6", everything, "fd7a:1::4", "overlay"},
		{"class E that is no Peer", everything, "245.1.2.6", ""},

		{"loopback", everything, "127.0.0.1", "loopback"},
		{"loopback, far end", everything, "127.255.255.254", "loopback"},
		{"loopback over IPv6", everything, "::1", "loopback"},
		{"loopback, mapped", everything, "::ffff:127.0.0.1", "plain"},
		{"pod, mapped", cluster(), "::ffff:10.132.3.4", "plain"},
		{"loopback, IPv4-compatible", everything, "::127.0.0.1", "IPv4-compatible"},
		{"loopback, IPv4-translated", everything, "::ffff:0:127.0.0.1", "IPv4-translated"},
		{"loopback through NAT64", everything, "64:ff9b::127.0.0.1", "127.0.0.1"},
		{"itself through 6to4", everything, "2002:a84:9::", "10.132.0.9"},
		{"the internet through NAT64", everything, "64:ff9b::1.1.1.1", ""},
		{"unspecified", everything, "0.0.0.0", "unspecified"},
		{"unspecified, this network", everything, "0.1.2.3", "unspecified"},
		{"unspecified over IPv6", everything, "::", "unspecified"},
		{"link-local", everything, "169.254.7.7", "link-local"},
		{"link-local over IPv6", everything, "fe80::1", "link-local"},
		{"link-local with a zone", everything, "fe80::1%eth0", "plain"},
		{"site-local", everything, "fec0::1", "site-local"},
		{"metadata", everything, "169.254.169.254", "metadata"},
		{"metadata through NAT64", everything, "64:ff9b::169.254.169.254", "169.254.169.254"},
		{"metadata through local NAT64", everything, "64:ff9b:1::169.254.169.254", "169.254.169.254"},
		{"metadata of AWS over IPv6", everything, "fd00:ec2::254", "metadata"},
		{"metadata of Google over IPv6", everything, "fd20:ce::254", "metadata"},
		{"metadata of Alibaba", everything, "100.100.100.200", "metadata"},
		{"host agent of Azure", everything, "168.63.129.16", "Azure"},
		{"metadata inside the pod subnet", Input{Pods: prefixes("100.64.0.0/10")}, "100.100.100.200", "metadata"},
		{"multicast", everything, "224.0.0.251", "multicast"},
		{"multicast over IPv6", everything, "ff02::fb", "multicast"},
		{"broadcast", everything, "255.255.255.255", "broadcast"},

		{"node-local resolver, listed", cluster("169.254.20.10/32"), "169.254.20.10", ""},
		{"metadata beside a listed resolver", cluster("169.254.20.10/32"), "169.254.169.254", "metadata"},
		{"metadata, listed", cluster("169.254.169.254/32"), "169.254.169.254", ""},
		{"listed and behind NAT64", cluster("169.254.20.10/32", "::/0"), "64:ff9b::169.254.20.10", ""},
		{"metadata although all of link-local is listed", cluster("169.254.0.0/16"), "169.254.169.254", "metadata"},
		{"itself inside a listed range", Input{Allow: prefixes("fe80::/10"), Own: addrs("fe80::9")}, "fe80::9", "own address"},
		{"all of link-local, listed", cluster("169.254.0.0/16"), "169.254.1.1", ""},
		{"only covered, not listed", cluster("169.0.0.0/8"), "169.254.1.1", "link-local"},

		{"nothing known", Input{}, "10.130.0.1", "no service or pod subnet"},
		{"mapped prefix in allow", cluster("::ffff:10.1.0.0/112"), "10.1.0.1", "egress.allow"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := Compile(row.in).Check(netip.MustParseAddr(row.dst))
			switch {
			case row.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.want != "" && err == nil:
				t.Errorf("%s is permitted", row.dst)
			case row.want != "" && !strings.Contains(err.Error(), row.want):
				t.Errorf("refused with %q, want a reason with %q", err, row.want)
			}
		})
	}
}

func TestGate(t *testing.T) {
	var g Gate
	pod := netip.MustParseAddr("10.132.3.4")
	if g.Decide(pod) != Refused || g.Check(pod) == nil {
		t.Error("a Gate without a Set permits")
	}
	g.Replace(Compile(cluster()))
	if g.Decide(pod) != Permitted || g.Check(pod) != nil {
		t.Error("the Set in force does not permit a pod")
	}
	g.Replace(Compile(Input{}))
	if g.Decide(pod) != Refused {
		t.Error("the replaced Set is still in force")
	}
	if g.Decide(netip.Addr{}) != Refused || g.Check(netip.Addr{}) == nil {
		t.Error("the zero address is permitted")
	}
}

func TestDecideTellsWhatIsNamed(t *testing.T) {
	set := Compile(cluster("169.254.20.10/32", "10.132.0.9/32", "10.1.0.0/24"))
	for dst, want := range map[string]Decision{
		"169.254.20.10":   PermittedByName,
		"10.132.0.9":      PermittedByName,
		"10.1.0.1":        Permitted,
		"10.132.0.8":      Permitted,
		"169.254.169.254": Refused,
	} {
		if got := set.Decide(netip.MustParseAddr(dst)); got != want {
			t.Errorf("Decide(%s) = %d, want %d", dst, got, want)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	in := cluster("10.1.0.0/24")
	for i := range 1000 { // Peers
		in.Overlays = append(in.Overlays, netip.PrefixFrom(netip.AddrFrom4([4]byte{245, byte(i >> 8), byte(i), 4}), 31))
	}
	set, dst := Compile(in), netip.MustParseAddr("10.132.3.4")
	b.ReportAllocs()
	for b.Loop() {
		if set.Decide(dst) != Permitted {
			b.Fatal("refused")
		}
	}
}

// FuzzCheck compares the compiled set with the rule as documented, spelled out naively.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"10.132.3.4", "127.0.0.1", "::1", "fd00:132::9", "169.254.20.10", "64:ff9b::a9fe:a9fe"} {
		a := netip.MustParseAddr(s)
		f.Add(a.AsSlice(), true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, all bool) {
		dst, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		in := cluster("169.254.20.10/32")
		if all {
			in = cluster("169.254.20.10/32", "0.0.0.0/0", "::/0")
		}
		got := Compile(in).Check(dst) == nil
		if want := slowly(in, dst); got != want {
			t.Errorf("Check(%s) permits: %v, the rule says %v", dst, got, want)
		}
	})
}

// slowly is the documented rule without sets.
func slowly(in Input, dst netip.Addr) bool {
	if dst.Is4In6() {
		return false
	}
	contains := func(list []netip.Prefix, a netip.Addr) bool {
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	bad := func(a netip.Addr) bool {
		if contains(prefixes("169.254.20.10/32"), a) {
			return false
		}
		for _, f := range wellKnown {
			if netipx.RangeOfPrefix(f.prefix).Contains(a) {
				return true
			}
		}
		for _, own := range in.Own {
			if own == a {
				return true
			}
		}
		return contains(in.Overlays, a)
	}
	if inner, ok := embedded(dst); ok && bad(inner) {
		return false
	}
	return !bad(dst) && (contains(in.Services, dst) || contains(in.Pods, dst) || contains(in.Allow, dst))
}
