package routefacts

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// message builds an rtnetlink message: a header, then attributes.
type message []byte

func (m message) attr(kind uint16, value ...byte) message {
	m = binary.NativeEndian.AppendUint16(m, uint16(unix.SizeofRtAttr+len(value)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = append(m, value...)
	for len(m)%4 != 0 {
		m = append(m, 0)
	}
	return m
}

func (m message) attr32(kind uint16, n uint32) message {
	return m.attr(kind, binary.NativeEndian.AppendUint32(nil, n)...)
}

// rtm is a header of rtmsg or fib_rule_hdr; last is the route's type or the rule's action.
func rtm(family, dstBits, table, protocol, scope, last byte, flags uint32) message {
	return binary.NativeEndian.AppendUint32([]byte{family, dstBits, 0, 0, table, protocol, scope, last}, flags)
}

// hop is one struct rtnexthop with a gateway.
func hop(link uint32, flags byte, gateway string) []byte {
	a := netip.MustParseAddr(gateway).AsSlice()
	attrs := message{}.attr(unix.RTA_GATEWAY, a...)
	h := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtNexthop+len(attrs)))
	h = append(h, flags, 0)
	h = binary.NativeEndian.AppendUint32(h, link)
	return append(h, attrs...)
}

func TestDecodeRoute(t *testing.T) {
	pf, ad := netip.MustParsePrefix, netip.MustParseAddr
	for name, tc := range map[string]struct {
		m    message
		want policy.Route
		drop bool
	}{
		"a default route has no destination": {
			m:    rtm(unix.AF_INET, 0, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_GATEWAY, 192, 0, 2, 1).attr32(unix.RTA_OIF, 2),
			want: policy.Route{Prefix: pf("0.0.0.0/0"), Table: 254, Type: policy.Unicast, Protocol: 3, NextHops: []policy.NextHop{{Addr: ad("192.0.2.1"), Link: 2}}},
		},
		"a large table number is in an attribute": {
			m:    rtm(unix.AF_INET, 8, 252, 3, 253, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(unix.RTA_TABLE, 51820).attr32(unix.RTA_OIF, 7).attr32(unix.RTA_PRIORITY, 50),
			want: policy.Route{Prefix: pf("10.0.0.0/8"), Table: 51820, Type: policy.Unicast, Protocol: 3, Scope: 253, Metric: 50, NextHops: []policy.NextHop{{Link: 7}}},
		},
		"multipath, one next hop dead": {
			m: rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).
				attr(unix.RTA_MULTIPATH, append(hop(2, 0, "192.0.2.1"), hop(3, unix.RTNH_F_DEAD, "192.0.2.5")...)...),
			want: policy.Route{Prefix: pf("10.0.0.0/8"), Table: 254, Type: policy.Unicast, Protocol: 3, NextHops: []policy.NextHop{{Addr: ad("192.0.2.1"), Link: 2}}},
		},
		"all next hops dead": {
			m:    rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr(unix.RTA_MULTIPATH, hop(3, unix.RTNH_F_DEAD, "192.0.2.5")...),
			drop: true,
		},
		"the only next hop dead": {
			m:    rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, unix.RTNH_F_DEAD).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(unix.RTA_OIF, 3),
			drop: true,
		},
		"IPv4 by an IPv6 router": {
			m: rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(unix.RTA_OIF, 2).
				attr(unix.RTA_VIA, append([]byte{unix.AF_INET6, 0}, ad("fe80::1").AsSlice()...)...),
			want: policy.Route{Prefix: pf("10.0.0.0/8"), Table: 254, Type: policy.Unicast, Protocol: 3, NextHops: []policy.NextHop{{Addr: ad("fe80::1"), Link: 2}}},
		},
		"a blackhole": {
			m:    rtm(unix.AF_INET6, 7, 254, 3, 0, unix.RTN_BLACKHOLE, 0).attr(unix.RTA_DST, ad("fc00::").AsSlice()...),
			want: policy.Route{Prefix: pf("fc00::/7"), Table: 254, Type: policy.Blackhole, Protocol: 3},
		},
		"a type nobody knows": {
			m:    rtm(unix.AF_INET, 8, 254, 3, 0, 11, 0).attr(unix.RTA_DST, 10, 0, 0, 0),
			want: policy.Route{Prefix: pf("10.0.0.0/8"), Table: 254, Type: "type 11", Protocol: 3},
		},
		"a cached route": {
			m:    rtm(unix.AF_INET6, 128, 254, 3, 0, unix.RTN_UNICAST, unix.RTM_F_CLONED).attr(unix.RTA_DST, ad("2001:db8::1").AsSlice()...),
			drop: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, use, err := decodeRoute(tc.m)
			if err != nil {
				t.Fatal(err)
			}
			if use == tc.drop {
				t.Fatalf("use = %v, want %v", use, !tc.drop)
			}
			if use && !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestDecodeRule(t *testing.T) {
	for name, tc := range map[string]struct {
		m    message
		want policy.Rule
	}{
		"wg-quick's rule": {
			m: rtm(unix.AF_INET, 0, 252, 0, 0, unix.FR_ACT_TO_TBL, fibRuleInvert).attr32(unix.FRA_PRIORITY, 32765).attr32(unix.FRA_TABLE, 51820).
				attr32(unix.FRA_FWMARK, 0xca6c).attr32(unix.FRA_FWMASK, ^uint32(0)).attr32(unix.FRA_SUPPRESS_PREFIXLEN, ^uint32(0)),
			want: policy.Rule{Family: policy.IPv4, Priority: 32765, Action: policy.ActionLookup, Table: 51820, Invert: true, Mark: policy.Mark{Value: 0xca6c, Mask: ^uint32(0)}},
		},
		"main without its default route": {
			m:    rtm(unix.AF_INET6, 0, 254, 0, 0, unix.FR_ACT_TO_TBL, 0).attr32(unix.FRA_PRIORITY, 32764).attr32(unix.FRA_SUPPRESS_PREFIXLEN, 0).attr(unix.FRA_PROTOCOL, 3),
			want: policy.Rule{Family: policy.IPv6, Priority: 32764, Action: policy.ActionLookup, Table: 254, MinPrefixLen: 1, Protocol: 3},
		},
		"the VRF rule": {
			m:    rtm(unix.AF_INET, 0, 0, 0, 0, unix.FR_ACT_TO_TBL, 0).attr32(unix.FRA_PRIORITY, 1000).attr(unix.FRA_L3MDEV, 1),
			want: policy.Rule{Family: policy.IPv4, Priority: 1000, Action: policy.ActionLookup, L3MDev: true},
		},
		"some users to one place": {
			m: rtm(unix.AF_INET, 8, 254, 0, 0, unix.FR_ACT_PROHIBIT, 0).attr32(unix.FRA_PRIORITY, 5).attr(unix.FRA_DST, 10, 0, 0, 0).
				attr(unix.FRA_UID_RANGE, binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 1000), 1999)...).attr(unix.FRA_IIFNAME, 'l', 'o', 0),
			want: policy.Rule{Family: policy.IPv4, Priority: 5, Action: policy.ActionProhibit, Table: 254, Dst: netip.MustParsePrefix("10.0.0.0/8"), UIDs: &policy.UIDRange{First: 1000, Last: 1999}, IIF: "lo"},
		},
		"a selector nobody knows": {
			m:    rtm(unix.AF_INET, 0, 254, 0, 0, unix.FR_ACT_TO_TBL, 0).attr32(unix.FRA_PRIORITY, 5).attr(99, 1, 2, 3),
			want: policy.Rule{Family: policy.IPv4, Priority: 5, Action: policy.ActionLookup, Table: 254, Partial: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeRule(tc.m)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestUnreadableEntriesBecomeWarnings(t *testing.T) {
	c := collector{steady: true, links: map[int]int{}}
	good := rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(unix.RTA_OIF, 1)
	for _, m := range []message{good[:5], good, append(good[:len(good):len(good)], 1)} {
		if err := c.route(m); err != nil {
			c.unread.add("routes", err)
		}
	}
	if len(c.facts.Routes) != 1 {
		t.Errorf("%d routes, want the one that is whole", len(c.facts.Routes))
	}
	got := c.unread.sentences()
	if len(got) != 1 || !strings.HasPrefix(got[0], "2 of the routes of this host could not be read") {
		t.Errorf("warnings %q", got)
	}
	c.checkLinks()
	if c.steady {
		t.Error("a route over an interface that was not read counts as a consistent reading")
	}
}

// FuzzDecode: no message makes a decoder panic, and what a decoder accepts is a valid prefix.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(rtm(unix.AF_INET, 8, 254, 3, 0, 1, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr(unix.RTA_MULTIPATH, hop(2, 0, "192.0.2.1")...)))
	f.Add([]byte(rtm(unix.AF_INET6, 7, 254, 3, 0, 1, 0).attr(unix.RTA_DST, netip.MustParseAddr("fc00::").AsSlice()...)))
	f.Fuzz(func(t *testing.T, m []byte) {
		if r, use, err := decodeRoute(m); err == nil && use && r.Prefix != r.Prefix.Masked() {
			t.Errorf("route with prefix %v", r.Prefix)
		}
		if r, err := decodeRule(m); err == nil && r.Dst != r.Dst.Masked() {
			t.Errorf("rule with destination %v", r.Dst)
		}
		if _, p, err := decodeAddress(m); err == nil && !p.IsValid() {
			t.Error("address without a prefix")
		}
		_, _ = decodeLink(m)
	})
}
