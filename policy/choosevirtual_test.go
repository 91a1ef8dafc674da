package policy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func prefixOf(text string) netip.Prefix {
	if text == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(text)
}

func TestChooseVirtual(t *testing.T) {
	const tun = "link tun0 tun p2p 10.8.0.2/24\n"
	for name, tc := range map[string]struct {
		cluster                  Cluster
		host                     string
		v4, v6                   string // explicit
		remembered4, remembered6 string
		others                   string
		protected                string
		noClassE                 bool

		want4, want6 string
		err          string // part of it
		explicit     bool   // the error is about a setting
	}{
		"the default":                                {want4: "246.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"a VPN for everything is not in the way":     {host: tun + "0.0.0.0/1 dev tun0\n128.0.0.0/1 dev tun0\nfc00::/7 dev tun0", want4: "246.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"nor one for all but the private networks":   {host: tun + publicOnly("dev tun0") + "224.0.0.0/3 dev tun0", want4: "246.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"our own routes are not either":              {host: "link culvert0 tun p2p\n246.130.0.0/16 dev culvert0\nfd12:3456:789a:1::/64 dev culvert0", want4: "246.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"another connection is, in both":             {host: "link culvert1 tun p2p\n246.130.0.0/16 dev culvert1\nfd12:3456:789a:1::/64 dev culvert1", want4: "247.0.0.0/8", want6: "fd91:79b4:5be6::/48"},
		"what others remember is avoided":            {others: "246.0.0.0/8 248.0.0.0/8 fd12:3456:789a::/48", want4: "247.0.0.0/8", want6: "fd91:79b4:5be6::/48"},
		"unless there is nothing else":               {others: "240.0.0.0/4", host: tun + "246.1.0.0/16 dev tun0", want4: "247.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"a VPN inside the default":                   {host: tun + "246.1.0.0/16 dev tun0", want4: "247.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"a cluster in class E":                       {cluster: cluster("246.0.0.0/16", "247.0.0.0/8", "248.0.0.0/9"), want4: "249.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"an API server in class E":                   {protected: "246.1.2.3", want4: "247.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"GKE's pods, and all behind the default":     {cluster: cluster("", "240.0.0.0/8"), host: tun + "246.0.0.0/7 dev tun0\n248.0.0.0/5 dev tun0", want4: "242.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"only the first is left":                     {host: tun + "246.0.0.0/7 dev tun0\n248.0.0.0/5 dev tun0\n241.0.0.0/8 dev tun0\n242.0.0.0/8 dev tun0", want4: "240.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"nothing is left":                            {host: tun + "240.0.0.0/4 dev tun0", err: "246.0.0.0/8 overlaps 240.0.0.0/4 on tun0 (OpenVPN, table main); name one that is free with cluster.virtualIPSubnet", want6: "fd12:3456:789a::/48"},
		"remembered":                                 {remembered4: "251.0.0.0/8", remembered6: "fd99::/48", want4: "251.0.0.0/8", want6: "fd99::/48"},
		"remembered, though others have it too":      {remembered4: "251.0.0.0/8", others: "251.0.0.0/8", want4: "251.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"remembered, now a VPN's":                    {remembered4: "251.0.0.0/8", remembered6: "fd99::/48", host: tun + "251.7.0.0/16 dev tun0\nfd99:0:0:7::/64 dev tun0", want4: "246.0.0.0/8", want6: "fd12:3456:789a::/48"},
		"remembered from a host with class E":        {remembered4: "251.0.0.0/8", noClassE: true, want4: "211.55.48.0/20", want6: "fd12:3456:789a::/48"},
		"remembered, from a setting that is gone":    {remembered4: "211.55.64.0/20", remembered6: "fd99::/48", want4: "246.0.0.0/8", want6: "fd99::/48"},
		"no class E":                                 {noClassE: true, want4: "211.55.48.0/20", want6: "fd12:3456:789a::/48"},
		"no class E, and the small one is routed":    {noClassE: true, host: tun + "211.55.0.0/16 dev tun0", err: "211.55.48.0/20 overlaps 211.55.0.0/16 on tun0", want6: "fd12:3456:789a::/48"},
		"no class E, and one of it named":            {noClassE: true, v4: "246.0.0.0/8", err: "does not route 240.0.0.0/4", want6: "fd12:3456:789a::/48", explicit: true},
		"named":                                      {v4: "10.99.0.0/16", v6: "fd77::/48", remembered4: "251.0.0.0/8", want4: "10.99.0.0/16", want6: "fd77::/48"},
		"named, inside a VPN":                        {v4: "10.99.0.0/16", host: tun + "10.0.0.0/8 dev tun0", err: "cluster.virtualIPSubnet 10.99.0.0/16 cannot be used: it overlaps 10.0.0.0/8 on tun0 (OpenVPN, table main)", want6: "fd12:3456:789a::/48", explicit: true},
		"named, and the cluster's":                   {v4: "10.130.0.0/20", err: "it overlaps 10.130.0.0/16 of the cluster (services)", want6: "fd12:3456:789a::/48", explicit: true},
		"named, for carriers":                        {v4: "100.96.0.0/16", err: "overlaps 100.64.0.0/10, carrier-grade NAT", want6: "fd12:3456:789a::/48", explicit: true},
		"named, for benchmarks":                      {v4: "198.18.0.0/16", err: "198.18.0.0/15", want6: "fd12:3456:789a::/48", explicit: true},
		"named, loopback":                            {v4: "127.9.0.0/16", err: "loopback", want6: "fd12:3456:789a::/48", explicit: true},
		"named, link-local":                          {v4: "169.254.0.0/20", err: "link-local", want6: "fd12:3456:789a::/48", explicit: true},
		"named, multicast":                           {v4: "239.0.0.0/8", err: "multicast", want6: "fd12:3456:789a::/48", explicit: true},
		"named, broadcast":                           {v4: "255.0.0.0/8", err: "broadcast", want6: "fd12:3456:789a::/48", explicit: true},
		"named, too large":                           {v4: "128.0.0.0/3", err: "length 4 to 28", want6: "fd12:3456:789a::/48", explicit: true},
		"named, too small":                           {v4: "246.1.2.0/29", err: "length 4 to 28", want6: "fd12:3456:789a::/48", explicit: true},
		"named, IPv6, not local":                     {v6: "2001:db8::/48", err: "fc00::/7", want4: "246.0.0.0/8", explicit: true},
		"named, IPv6, too small":                     {v6: "fd12::/65", err: "length 32 to 64", want4: "246.0.0.0/8", explicit: true},
		"named, IPv6, a site that the VPN routes":    {v6: "fd12::/40", host: tun + "fd12:0:0:7::/64 dev tun0", err: "it overlaps fd12:0:0:7::/64 on tun0", want4: "246.0.0.0/8", explicit: true},
		"named, IPv6, in all private space of a VPN": {v6: "fd13::/40", host: tun + "fd00::/8 dev tun0", want4: "246.0.0.0/8", want6: "fd13::/40"},
	} {
		t.Run(name, func(t *testing.T) {
			in := VirtualInput{
				Settings: Settings{VirtualSubnet: prefixOf(tc.v4), VirtualIPv6Subnet: prefixOf(tc.v6)},
				Cluster:  tc.cluster, Facts: host(t, office+tc.host), Own: Own{Interface: "culvert0"},
				Remembered: Virtual{V4: prefixOf(tc.remembered4), V6: prefixOf(tc.remembered6)},
				ULA:        netip.MustParsePrefix("fd12:3456:789a::/48"), NoClassE: tc.noClassE,
			}
			if in.Cluster.UID == "" {
				in.Cluster = lab
			}
			for _, p := range strings.Fields(tc.others) {
				in.Others = append(in.Others, netip.MustParsePrefix(p))
			}
			if tc.protected != "" {
				in.Protected = []Protected{ProtectAddr(netip.MustParseAddr(tc.protected), "API server")}
			}
			v, err := ChooseVirtual(in)
			if v.V4 != prefixOf(tc.want4) || v.V6 != prefixOf(tc.want6) || v.NoClassE != tc.noClassE {
				t.Errorf("got %+v, want %s and %s", v, tc.want4, tc.want6)
			}
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got error %v, want %q", err, tc.err)
			}
			if err != nil && errors.Is(err, ErrNoVirtualSubnet) == tc.explicit {
				t.Errorf("%v is ErrNoVirtualSubnet: %v", err, !tc.explicit)
			}
		})
	}
}

// TestChooseVirtualKeepsTwins: those of a subnet that stays do, the others go.
func TestChooseVirtualKeepsTwins(t *testing.T) {
	assigned := twinsOf("10.130.0.0/16 246.130.0.0/16\n10.132.0.0/16 246.132.0.0/16\nfd12:1::/112 fd99::1:0/112")
	in := VirtualInput{
		Cluster: lab, Facts: host(t, office), ULA: netip.MustParsePrefix("fd12:3456:789a::/48"),
		Remembered: Virtual{V4: DefaultVirtualSubnet, V6: netip.MustParsePrefix("fd99::/48"), Assigned: assigned},
	}
	for _, step := range []struct{ host, want string }{
		{"", "10.130.0.0/16 246.130.0.0/16 10.132.0.0/16 246.132.0.0/16 fd12:1::/112 fd99::1:0/112"},
		{"blackhole 246.200.0.0/16", "fd12:1::/112 fd99::1:0/112"},
		{"blackhole 246.200.0.0/16\nblackhole fd99:0:0:9::/64", ""},
	} {
		in.Facts = host(t, office+step.host)
		v, err := ChooseVirtual(in)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "assigned", twinTexts(v.Assigned), step.want)
	}
}
