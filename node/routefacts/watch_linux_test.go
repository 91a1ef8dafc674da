package routefacts

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFilter(t *testing.T) {
	route := func(table, protocol byte, flags uint32) message {
		return rtm(unix.AF_INET, 8, table, protocol, 0, unix.RTN_UNICAST, flags).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(unix.RTA_OIF, 2)
	}
	large := rtm(unix.AF_INET, 8, 252, 202, 0, unix.RTN_UNICAST, unix.RTNH_F_DEAD).attr(unix.RTA_DST, 10, 0, 0, 0).attr32(unix.RTA_TABLE, 7830).attr32(unix.RTA_OIF, 2)
	rule := func(table uint32, protocol byte) message {
		return rtm(unix.AF_INET, 0, 252, 0, 0, unix.FR_ACT_TO_TBL, 0).attr32(unix.FRA_TABLE, table).attr(unix.FRA_PROTOCOL, protocol)
	}
	link := func(family byte) message {
		return append(message{family}, make(message, unix.SizeofIfInfomsg-1)...).attr(unix.IFLA_IFNAME, 'x', 0)
	}
	for name, tc := range map[string]struct {
		kind uint16
		m    message
		want bool
	}{
		"a VPN's route":                        {unix.RTM_NEWROUTE, route(254, 3, 0), true},
		"a VPN's route is gone":                {unix.RTM_DELROUTE, route(254, 3, 0), true},
		"our new route":                        {unix.RTM_NEWROUTE, large, false},
		"our route is gone":                    {unix.RTM_DELROUTE, large, true},
		"another connection's route":           {unix.RTM_NEWROUTE, route(100, 202, 0), true},
		"an unmarked route in our table":       {unix.RTM_NEWROUTE, rtm(unix.AF_INET, 8, 252, 3, 0, 1, 0).attr32(unix.RTA_TABLE, 7830), true},
		"a learnt path MTU":                    {unix.RTM_NEWROUTE, route(254, 3, unix.RTM_F_CLONED), false},
		"a forgotten path MTU":                 {unix.RTM_DELROUTE, route(254, 3, unix.RTM_F_CLONED), false},
		"half a route":                         {unix.RTM_NEWROUTE, large[:9], true},
		"a route with a broken attribute":      {unix.RTM_NEWROUTE, append(append(message{}, large...), 1), true},
		"a VPN's rule":                         {unix.RTM_NEWRULE, rule(52, 0), true},
		"our new rule":                         {unix.RTM_NEWRULE, rule(7830, 202), false},
		"our rule is gone":                     {unix.RTM_DELRULE, rule(7830, 202), true},
		"an unmarked rule to our table":        {unix.RTM_NEWRULE, rule(7830, 0), true},
		"half a rule":                          {unix.RTM_NEWRULE, rule(7830, 202)[:9], true},
		"an interface":                         {unix.RTM_NEWLINK, link(unix.AF_UNSPEC), true},
		"an interface is gone":                 {unix.RTM_DELLINK, link(unix.AF_UNSPEC), true},
		"a port of a bridge":                   {unix.RTM_NEWLINK, link(unix.AF_BRIDGE), false},
		"the end of a scan for networks":       {unix.RTM_NEWLINK, link(unix.AF_UNSPEC).attr(unix.IFLA_WIRELESS, 1, 2, 3, 4), false},
		"half an interface":                    {unix.RTM_NEWLINK, link(unix.AF_UNSPEC)[:9], true},
		"an address":                           {unix.RTM_NEWADDR, nil, true},
		"an address is gone":                   {unix.RTM_DELADDR, nil, true},
		"a next hop object":                    {unix.RTM_NEWNEXTHOP, nil, true},
		"something that later kernels tell of": {999, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (filter{7830}).steers(tc.kind, tc.m); got != tc.want {
				t.Errorf("steers: %v, want %v", got, tc.want)
			}
		})
	}
	t.Run("without a table of ours", func(t *testing.T) {
		if !(filter{}).steers(unix.RTM_NEWROUTE, rtm(unix.AF_INET, 8, 0, 202, 0, 1, 0)) {
			t.Error("another connection's route is no news")
		}
	})
}

// FuzzFilter: no message makes the filter panic, and only what can be read, and is ours, cached or of
// another kind, is no news.
func FuzzFilter(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWROUTE), []byte(rtm(unix.AF_INET, 8, 252, 202, 0, 1, 0).attr32(unix.RTA_TABLE, 7830)))
	f.Add(uint16(unix.RTM_NEWRULE), []byte(rtm(unix.AF_INET6, 0, 252, 0, 0, 1, 0).attr32(unix.FRA_TABLE, 7830).attr(unix.FRA_PROTOCOL, 202)))
	f.Add(uint16(unix.RTM_DELLINK), []byte{unix.AF_BRIDGE})
	f.Add(uint16(unix.RTM_NEWROUTE), []byte(rtm(unix.AF_INET6, 8, 252, 202, 0, 1, 0).attr(unix.RTA_DST, netip.IPv6Loopback().AsSlice()...)))
	f.Fuzz(func(t *testing.T, kind uint16, m []byte) {
		if (filter{7830}).steers(kind, m) {
			return
		}
		switch kind {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWLINK, unix.RTM_DELLINK:
		case unix.RTM_NEWRULE:
			if r, err := decodeRule(m); err != nil || r.Table != 7830 || r.Protocol != 202 {
				t.Errorf("no news: %+v, %v", r, err)
			}
		default:
			t.Errorf("message %d is no news", kind)
		}
		if len(m) < unix.SizeofRtMsg {
			t.Error("what is too short to be read is no news")
		}
	})
}

func TestWatcherEnds(t *testing.T) {
	for name, end := range map[string]func(cancel func(), w *Watcher){
		"by its context": func(cancel func(), _ *Watcher) { cancel() },
		"by Close":       func(_ func(), w *Watcher) { w.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			w, err := newWatcher(unix.NETLINK_ROUTE, routeGroups, func(uint16, []byte) bool { return false })
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error)
			go func() { ended <- w.Run(ctx) }()
			end(cancel, w)
			if err := <-ended; (err == nil) != (name == "by its context") {
				t.Errorf("Run ended %s with %v", name, err)
			}
			w.Close()
		})
	}
}

func TestWatcherOfAnUnknownProtocol(t *testing.T) {
	if _, err := newWatcher(31, 0, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}
