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

// withSourceBits sets the length of a route's or rule's source prefix, withTOS its type of service.
func withSourceBits(m message, bits byte) message { m[2] = bits; return m }
func withTOS(m message, tos byte) message         { m[3] = tos; return m }

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
		"an IPv6 throw, which the kernel shows on lo": {
			m:    rtm(unix.AF_INET6, 7, 100, 3, 0, unix.RTN_THROW, 0).attr(unix.RTA_DST, ad("fc00::").AsSlice()...).attr32(unix.RTA_OIF, 1),
			want: policy.Route{Prefix: pf("fc00::/7"), Table: 100, Type: policy.Throw, Protocol: 3},
		},
		"an IPv6 route for some sources": {
			m: withSourceBits(rtm(unix.AF_INET6, 48, 254, 3, 0, unix.RTN_UNICAST, 0), 56).attr(unix.RTA_DST, ad("fd00:6::").AsSlice()...).
				attr(unix.RTA_SRC, ad("fd00:7::1").AsSlice()...).attr32(unix.RTA_OIF, 2).attr32(unix.RTA_PRIORITY, 1024),
			want: policy.Route{Prefix: pf("fd00:6::/48"), Source: pf("fd00:7::/56"), Table: 254, Type: policy.Unicast, Protocol: 3, Metric: 1024, NextHops: []policy.NextHop{{Link: 2}}},
		},
		"a route for one type of service": {
			m:    withTOS(rtm(unix.AF_INET, 8, 254, 3, 253, unix.RTN_UNICAST, 0), 0x10).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(unix.RTA_OIF, 2),
			want: policy.Route{Prefix: pf("10.0.0.0/8"), TOS: 0x10, Table: 254, Type: policy.Unicast, Protocol: 3, Scope: 253, NextHops: []policy.NextHop{{Link: 2}}},
		},
		"a next hop object, written out": {
			m:    rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(rtaNexthopID, 7).attr(unix.RTA_GATEWAY, 192, 0, 2, 1).attr32(unix.RTA_OIF, 2),
			want: policy.Route{Prefix: pf("10.0.0.0/8"), Table: 254, Type: policy.Unicast, Protocol: 3, NextHops: []policy.NextHop{{Addr: ad("192.0.2.1"), Link: 2}}},
		},
		"the address a connected network gives to packets": {
			m:    rtm(unix.AF_INET, 24, 254, 2, 253, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 192, 0, 2, 0).attr(unix.RTA_PREFSRC, 192, 0, 2, 7).attr32(unix.RTA_OIF, 2),
			want: policy.Route{Prefix: pf("192.0.2.0/24"), Table: 254, Type: policy.Unicast, Protocol: policy.ProtocolKernel, Scope: policy.ScopeLink, PreferredSource: ad("192.0.2.7"), NextHops: []policy.NextHop{{Link: 2}}},
		},
		"a cached route": {
			m:    rtm(unix.AF_INET6, 128, 254, 3, 0, unix.RTN_UNICAST, unix.RTM_F_CLONED).attr(unix.RTA_DST, ad("2001:db8::1").AsSlice()...),
			drop: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got policy.Route
			var d routeDecoder
			use, err := d.decode(tc.m, &got)
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
		"a mark of zero under a mask": {
			m:    rtm(unix.AF_INET, 0, 100, 0, 0, unix.FR_ACT_TO_TBL, 0).attr32(unix.FRA_PRIORITY, 7).attr32(unix.FRA_FWMASK, 0xff),
			want: policy.Rule{Family: policy.IPv4, Priority: 7, Action: policy.ActionLookup, Table: 100, Mark: policy.Mark{Mask: 0xff}},
		},
		"goto": {
			m:    rtm(unix.AF_INET6, 0, 0, 0, 0, unix.FR_ACT_GOTO, 0).attr32(unix.FRA_PRIORITY, 7).attr32(unix.FRA_GOTO, 32766),
			want: policy.Rule{Family: policy.IPv6, Priority: 7, Action: policy.ActionGoto, Goto: 32766},
		},
		"nop, as a target of goto": {
			m:    rtm(unix.AF_INET, 0, 0, 0, 0, unix.FR_ACT_NOP, 0).attr32(unix.FRA_PRIORITY, 9),
			want: policy.Rule{Family: policy.IPv4, Priority: 9, Action: policy.ActionNop},
		},
		"sockets bound to an interface, from some addresses": {
			m:    withSourceBits(rtm(unix.AF_INET, 0, 100, 0, 0, unix.FR_ACT_TO_TBL, 0), 24).attr32(unix.FRA_PRIORITY, 9).attr(unix.FRA_SRC, 192, 0, 2, 0).attr(unix.FRA_OIFNAME, 't', 'u', 'n', '0', 0),
			want: policy.Rule{Family: policy.IPv4, Priority: 9, Action: policy.ActionLookup, Table: 100, Src: netip.MustParsePrefix("192.0.2.0/24"), OIF: "tun0"},
		},
		"everything but host routes": {
			m:    rtm(unix.AF_INET6, 0, 254, 0, 0, unix.FR_ACT_TO_TBL, 0).attr32(unix.FRA_PRIORITY, 9).attr32(unix.FRA_SUPPRESS_PREFIXLEN, 128),
			want: policy.Rule{Family: policy.IPv6, Priority: 9, Action: policy.ActionLookup, Table: 254, MinPrefixLen: 129},
		},
		"one type of service": {
			m:    withTOS(rtm(unix.AF_INET, 0, 254, 0, 0, unix.FR_ACT_TO_TBL, 0), 0x10).attr32(unix.FRA_PRIORITY, 9),
			want: policy.Rule{Family: policy.IPv4, Priority: 9, Action: policy.ActionLookup, Table: 254, Partial: true},
		},
		"some ports": {
			m:    rtm(unix.AF_INET, 0, 254, 0, 0, unix.FR_ACT_TO_TBL, 0).attr32(unix.FRA_PRIORITY, 9).attr(unix.FRA_IP_PROTO, 6).attr32(unix.FRA_DPORT_RANGE, 0x01bb01bb),
			want: policy.Rule{Family: policy.IPv4, Priority: 9, Action: policy.ActionLookup, Table: 254, Partial: true},
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

func TestDecodeLink(t *testing.T) {
	kind := func(name string) message { return message{}.attr(unix.IFLA_INFO_KIND, append([]byte(name), 0)...) }
	head := make(message, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(head[4:], 4)
	binary.NativeEndian.PutUint32(head[8:], unix.IFF_UP|unix.IFF_POINTOPOINT)
	head = head.attr(unix.IFLA_IFNAME, 'x', '0', 0).attr32(unix.IFLA_MTU, 1420).attr(unix.IFLA_IFALIAS, 'm', 'y', 0)
	base := policy.Link{Index: 4, Name: "x0", Alias: "my", Up: true, PointToPoint: true, MTU: 1420}
	for name, tc := range map[string]struct {
		info message
		want func(l *policy.Link)
	}{
		"a VPN's device": {kind("wireguard"), func(l *policy.Link) { l.Kind = "wireguard" }},
		"a VRF has a table of its own": {
			kind("vrf").attr(unix.IFLA_INFO_DATA, message{}.attr32(unix.IFLA_VRF_TABLE, 1001)...),
			func(l *policy.Link) { l.Kind, l.VRFTable = "vrf", 1001 },
		},
		"the same number means something else to a bridge": {
			kind("bridge").attr(unix.IFLA_INFO_DATA, message{}.attr32(unix.IFLA_VRF_TABLE, 1500)...),
			func(l *policy.Link) { l.Kind = "bridge" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := base
			tc.want(&want)
			want.Master = 9
			got, err := decodeLink(append(message{}, head...).attr32(unix.IFLA_MASTER, 9).attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, tc.info...))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

// nexthopMessage is a next hop object: struct nhmsg, then its number.
func nexthopMessage(id, flags uint32) message {
	return message(binary.NativeEndian.AppendUint32(make([]byte, 4), flags)).attr32(unix.NHA_ID, id)
}

// groupOf is the value of NHA_GROUP.
func groupOf(ids ...uint32) (b []byte) {
	for _, id := range ids {
		b = append(binary.NativeEndian.AppendUint32(b, id), 0, 0, 0, 0)
	}
	return b
}

func TestRoutesOverNexthopObjects(t *testing.T) {
	through := func(id uint32, lastByte byte) message {
		return nexthopMessage(id, 0).attr(unix.NHA_GATEWAY, 192, 0, 2, lastByte).attr32(unix.NHA_OIF, 2)
	}
	objects := [][]byte{
		through(1, 1), through(2, 2), nexthopMessage(3, 0).attr(unix.NHA_BLACKHOLE),
		nexthopMessage(4, unix.RTNH_F_DEAD).attr32(unix.NHA_OIF, 3),
		nexthopMessage(10, 0).attr(unix.NHA_GROUP, groupOf(1, 2)...), nexthopMessage(11, 0).attr(unix.NHA_GROUP, groupOf(4, 2)...),
		nexthopMessage(12, 0).attr(unix.NHA_GROUP, groupOf(4)...), nexthopMessage(13, 0).attr(unix.NHA_GROUP, groupOf(3)...),
		nexthopMessage(14, 0).attr(unix.NHA_GROUP, groupOf(1, 99)...),
	}
	hop1 := policy.NextHop{Addr: netip.MustParseAddr("192.0.2.1"), Link: 2}
	hop2 := policy.NextHop{Addr: netip.MustParseAddr("192.0.2.2"), Link: 2}
	for name, tc := range map[string]struct {
		id       uint32
		want     []policy.NextHop
		kind     policy.RouteType
		drop     bool
		unsteady bool
	}{
		"one router":                     {id: 1, want: []policy.NextHop{hop1}, kind: policy.Unicast},
		"a group":                        {id: 10, want: []policy.NextHop{hop1, hop2}, kind: policy.Unicast},
		"a group with a dead member":     {id: 11, want: []policy.NextHop{hop2}, kind: policy.Unicast},
		"dead":                           {id: 4, drop: true},
		"a group of the dead":            {id: 12, drop: true},
		"a blackhole":                    {id: 3, kind: policy.Blackhole},
		"a group of one blackhole":       {id: 13, kind: policy.Blackhole},
		"gone in the meantime":           {id: 98, drop: true, unsteady: true},
		"a member gone in the meantime ": {id: 14, want: []policy.NextHop{hop1}, kind: policy.Unicast, unsteady: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := collector{steady: true}
			plain := rtm(unix.AF_INET, 16, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 9, 0, 0).attr32(unix.RTA_OIF, 2)
			c.routes([][]byte{rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(rtaNexthopID, tc.id), plain})
			c.each("next hops", objects, c.nexthop)
			c.resolve()
			if c.steady == tc.unsteady || len(c.unread.kinds) > 0 {
				t.Errorf("steady: %v; unread: %v", c.steady, c.unread.sentences())
			}
			routes := c.facts.Routes
			if tc.drop != (len(routes) == 1) || routes[len(routes)-1].Prefix.Bits() != 16 {
				t.Fatalf("routes %+v", routes)
			}
			if r := routes[0]; !tc.drop && (r.Type != tc.kind || !reflect.DeepEqual(r.NextHops, tc.want)) {
				t.Errorf("%s by %v, want %s by %v", r.Type, r.NextHops, tc.kind, tc.want)
			}
		})
	}
}

// TestNextHopsAreTheirOwn: next hops share blocks of memory, but no route's change touches another's.
func TestNextHopsAreTheirOwn(t *testing.T) {
	var messages [][]byte
	for i := range 3 * hopBlock {
		hops := append(hop(uint32(3*i+1), 0, "192.0.2.1"), hop(uint32(3*i+2), 0, "192.0.2.2")...)
		messages = append(messages, rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).
			attr(unix.RTA_MULTIPATH, append(hops, hop(uint32(3*i+3), 0, "192.0.2.3")...)...))
	}
	c := collector{}
	c.routes(messages)
	for i, r := range c.facts.Routes {
		_ = append(r.NextHops, policy.NextHop{Link: -1})
		if len(r.NextHops) != 3 {
			t.Fatalf("route %d has %v", i, r.NextHops)
		}
	}
	for i, r := range c.facts.Routes {
		for j, h := range r.NextHops {
			if h.Link != 3*i+j+1 {
				t.Fatalf("route %d has %v", i, r.NextHops)
			}
		}
	}
}

func TestUnreadableEntriesBecomeWarnings(t *testing.T) {
	c := collector{steady: true, links: map[int]int{}}
	good := rtm(unix.AF_INET, 8, 254, 3, 0, unix.RTN_UNICAST, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(unix.RTA_OIF, 1)
	c.routes([][]byte{good[:5], good, append(good[:len(good):len(good)], 1)})
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
