package routefacts

import (
	"net/netip"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// seed gives a fuzz target whole messages, and each of them cut short and with a broken length.
func seed(f *testing.F, messages ...message) {
	for _, m := range messages {
		f.Add([]byte(m))
		f.Add([]byte(m[:len(m)-3]))
		broken := append(message{}, m...)
		broken[len(broken)-8] = 0xff
		f.Add([]byte(broken))
	}
}

// checkMasked fails if p is set and not in normal form.
func checkMasked(t *testing.T, what string, p netip.Prefix) {
	t.Helper()
	if p != (netip.Prefix{}) && (!p.IsValid() || p != p.Masked()) {
		t.Errorf("%s %v", what, p)
	}
}

// FuzzRoute: what is decoded has a masked prefix, does not depend on what was decoded before, and leads
// somewhere only if its type says so.
func FuzzRoute(f *testing.F) {
	seed(f,
		rtm(unix.AF_INET, 8, 254, 3, 0, 1, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr(unix.RTA_MULTIPATH, append(hop(2, 0, "192.0.2.1"), hop(3, 1, "fe80::1")...)...),
		withSourceBits(rtm(unix.AF_INET6, 7, 254, 3, 0, 1, 0), 9).attr(unix.RTA_DST, netip.MustParseAddr("fc00::").AsSlice()...),
		rtm(unix.AF_INET, 8, 254, 3, 0, 1, 0).attr(unix.RTA_DST, netip.MustParseAddr("fc00::").AsSlice()...),
		rtm(unix.AF_INET, 8, 254, 3, 0, 7, 0).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(rtaNexthopID, 7).attr32(unix.RTA_OIF, 1),
	)
	f.Fuzz(func(t *testing.T, m []byte) {
		var fresh, used routeDecoder
		_, _ = used.decode(rtm(unix.AF_INET, 0, 254, 3, 0, 1, 0).attr32(rtaNexthopID, 9).attr(unix.RTA_MULTIPATH, hop(2, 1, "192.0.2.1")...), new(policy.Route))
		var r, again policy.Route
		use, err := fresh.decode(m, &r)
		useAgain, errAgain := used.decode(m, &again)
		if use && err != nil {
			t.Errorf("a route and an error: %v", err)
		}
		if use != useAgain || (err == nil) != (errAgain == nil) || use && (!reflect.DeepEqual(r, again) || fresh.nexthop != used.nexthop) {
			t.Errorf("%+v the first time, %+v the second", r, again)
		}
		if !use {
			return
		}
		checkMasked(t, "route with source", r.Source)
		if checkMasked(t, "route to", r.Prefix); !r.Prefix.IsValid() || leadsNowhere(r.Type) && r.NextHops != nil {
			t.Errorf("route %+v", r)
		}
	})
}

func FuzzRule(f *testing.F) {
	seed(f,
		withSourceBits(rtm(unix.AF_INET, 8, 252, 0, 0, unix.FR_ACT_TO_TBL, fibRuleInvert), 4).attr(unix.FRA_DST, 10, 0, 0, 0).attr32(unix.FRA_SUPPRESS_PREFIXLEN, 3),
		rtm(unix.AF_INET6, 0, 0, 0, 0, unix.FR_ACT_GOTO, 0).attr(unix.FRA_UID_RANGE, 1, 2, 3, 4, 5, 6, 7, 8).attr(unix.FRA_L3MDEV, 1),
	)
	f.Fuzz(func(t *testing.T, m []byte) {
		r, err := decodeRule(m)
		if err != nil && !reflect.DeepEqual(r, policy.Rule{}) {
			t.Errorf("a rule and an error: %+v, %v", r, err)
		}
		checkMasked(t, "rule from", r.Src)
		checkMasked(t, "rule to", r.Dst)
		if err == nil && (r.Family != policy.IPv4 && r.Family != policy.IPv6 || r.Action == "" || r.MinPrefixLen < 0) {
			t.Errorf("rule %+v", r)
		}
	})
}

func FuzzLink(f *testing.F) {
	head := make(message, unix.SizeofIfInfomsg)
	kind := message{}.attr(unix.IFLA_INFO_KIND, 'v', 'r', 'f', 0)
	seed(f, head.attr(unix.IFLA_IFNAME, 'x', 0).attr(unix.IFLA_LINKINFO, kind.attr(unix.IFLA_INFO_DATA, message{}.attr32(unix.IFLA_VRF_TABLE, 7)...)...))
	f.Fuzz(func(t *testing.T, m []byte) {
		l, err := decodeLink(m)
		if err != nil && !reflect.DeepEqual(l, policy.Link{}) {
			t.Errorf("a link and an error: %+v, %v", l, err)
		}
		if l.VRFTable != 0 && l.Kind != "vrf" {
			t.Errorf("link %+v", l)
		}
	})
}

func FuzzAddress(f *testing.F) {
	head := message{unix.AF_INET, 24, 0, 0, 2, 0, 0, 0}
	seed(f, head.attr(unix.IFA_ADDRESS, 192, 0, 2, 1).attr(unix.IFA_LOCAL, 192, 0, 2, 2), head.attr(unix.IFA_ADDRESS, netip.IPv6Loopback().AsSlice()...))
	f.Fuzz(func(t *testing.T, m []byte) {
		link, p, err := decodeAddress(m)
		if err == nil != p.IsValid() || err != nil && link != 0 {
			t.Errorf("address %v of link %d, error %v", p, link, err)
		}
	})
}

func FuzzNexthop(f *testing.F) {
	seed(f, nexthopMessage(1, 0).attr(unix.NHA_GATEWAY, 192, 0, 2, 1).attr32(unix.NHA_OIF, 2), nexthopMessage(10, 0).attr(unix.NHA_GROUP, groupOf(1, 10)...))
	f.Fuzz(func(t *testing.T, m []byte) {
		id, n, err := decodeNexthop(m)
		if err == nil != (id != 0) || err != nil && !reflect.DeepEqual(n, nexthop{}) {
			t.Errorf("next hop %d %+v, error %v", id, n, err)
		}
		var r policy.Route
		if use, known := (nexthops{id: n}).resolve(&r, id); use && known && r.Type != policy.Blackhole && len(r.NextHops) == 0 {
			t.Errorf("%+v leads nowhere", n)
		}
	})
}
