package tunnel

import (
	"net"
	"net/netip"
	"testing"
)

func TestSameAddrs(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("245.0.0.2"), netip.MustParseAddr("fd00::2")}
	if !sameAddrs(ipNets(addrs), addrs) {
		t.Error("what we write does not read back as the same")
	}
	mapped := net.IPNet{IP: net.ParseIP("245.0.0.2"), Mask: net.CIDRMask(32, 32)} // 16 bytes, as parsers return
	if !sameAddrs([]net.IPNet{ipNets(addrs)[1], mapped}, addrs) {
		t.Error("another order and form is not the same")
	}
	wide := net.IPNet{IP: net.IPv4(245, 0, 0, 2), Mask: net.CIDRMask(24, 32)}
	if sameAddrs([]net.IPNet{wide}, addrs[:1]) {
		t.Error("a wider prefix is the same")
	}
}
