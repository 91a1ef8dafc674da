package topology

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(words ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, w := range words {
		list = append(list, netip.MustParsePrefix(w))
	}
	return list
}

func TestCut(t *testing.T) {
	tests := []struct {
		name         string
		routes, want []netip.Prefix
	}{
		{"the whole company", prefixes("10.0.0.0/8"), prefixes("10.0.0.0/8")},
		{"a full tunnel cuts the company, not the internet", prefixes("0.0.0.0/0"), prefixes("10.0.0.0/8")},
		{"a part of it", prefixes("10.130.0.0/16"), prefixes("10.130.0.0/16")},
		{"elsewhere", prefixes("172.16.0.0/12"), nil},
		{"both families", prefixes("10.0.0.0/9", "::/0"), prefixes("10.0.0.0/9", "fd00::/8")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Cut(tt.routes); !slices.Equal(got, tt.want) {
				t.Errorf("Cut(%v) = %v, want %v", tt.routes, got, tt.want)
			}
		})
	}
}

func TestOfficeRules(t *testing.T) {
	open := OfficeRules(nil)
	if !strings.Contains(open, "delete table inet office") || strings.Contains(open, "drop") {
		t.Errorf("with nothing cut:\n%s", open)
	}
	cut := OfficeRules(prefixes("10.0.0.0/8", "fd00::/8"))
	for _, want := range []string{"ip daddr 10.0.0.0/8 drop", "ip6 daddr fd00::/8 drop"} {
		if !strings.Contains(cut, want) {
			t.Errorf("no %q in\n%s", want, cut)
		}
	}
}

// Both ends of every link and every next hop must exist, and cluster prefixes
// must be routed by nobody but as unreachable.
func TestMakeIsConsistent(t *testing.T) {
	cluster := prefixes("10.130.0.0/16", "172.30.0.0/16")
	p := Make(3, cluster)
	hosts, devs := map[string]Host{}, map[string]bool{}
	for _, h := range p.Hosts {
		hosts[h.Name] = h
		devs[h.Name+"/"+h.Bridge] = true
	}
	for _, l := range p.Links {
		for _, end := range []string{l.A + "/" + l.ADev, l.B + "/" + l.BDev} {
			if devs[end] {
				t.Errorf("%s is there twice", end)
			}
			devs[end] = true
		}
		for _, dev := range []string{l.ADev, l.BDev} {
			if len(dev) > 15 {
				t.Errorf("%s is too long for a device", dev)
			}
		}
	}
	if len(hosts) != 8 {
		t.Errorf("%d hosts, want 5 and 3 nodes", len(hosts))
	}
	for _, h := range p.Hosts {
		for _, a := range h.Addrs {
			if !devs[h.Name+"/"+a.Dev] {
				t.Errorf("%s has an address on %s, which is not there", h.Name, a.Dev)
			}
		}
		for _, r := range h.Routes {
			onLink := slices.ContainsFunc(h.Addrs, func(a Addr) bool { return a.Prefix.Masked().Contains(r.Via) })
			if r.Via.IsValid() && !onLink {
				t.Errorf("%s: next hop %s is on no link", h.Name, r.Via)
			}
			if r.Via.IsValid() && slices.Contains(cluster, r.Dst) {
				t.Errorf("%s routes %s", h.Name, r.Dst)
			}
		}
	}
}

// Joins must meet neither each other nor any network of a lab.
func TestJoinsLieApart(t *testing.T) {
	var taken []netip.Prefix
	for _, h := range Make(1, nil).Hosts {
		for _, a := range h.Addrs {
			taken = append(taken, a.Prefix.Masked())
		}
	}
	for n := range MaxJoins {
		p := JoinNet(n)
		if slices.ContainsFunc(taken, p.Overlaps) || p != p.Masked() || !p.Contains(JoinNode(n)) {
			t.Errorf("join %d: %s with %s meets another network or is none", n, p, JoinNode(n))
		}
		taken = append(taken, p)
	}
	if rules := FarRules(3); !strings.Contains(rules, `iifname "join3" ip daddr 192.0.2.14 dnat to 10.50.0.11`) {
		t.Errorf("the far router's rules:\n%s", rules)
	}
}
