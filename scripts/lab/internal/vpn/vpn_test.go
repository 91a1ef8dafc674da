package vpn

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestPushes(t *testing.T) {
	tests := []struct {
		name   string
		routes []netip.Prefix
		want   string
	}{
		{"a company", []netip.Prefix{prefix("10.0.0.0/8")}, `push "route 10.0.0.0 255.0.0.0"`},
		{"IPv6", []netip.Prefix{prefix("fd00::/8")}, `push "route-ipv6 fd00::/8"`},
		{"full tunnel", []netip.Prefix{everything4}, `push "redirect-gateway def1"`},
		{"full tunnel of both families is one line", []netip.Prefix{everything4, everything6}, `push "redirect-gateway def1 ipv6"`},
		{"full tunnel of IPv6 alone", []netip.Prefix{everything6}, `push "redirect-gateway ipv6 !ipv4"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.TrimSpace(pushes(tt.routes)); got != tt.want {
				t.Errorf("pushes(%v) = %q, want %q", tt.routes, got, tt.want)
			}
		})
	}
}

func TestDestination(t *testing.T) {
	_, ten, _ := net.ParseCIDR("10.0.0.0/8")
	_, ula, _ := net.ParseCIDR("fd00::/8")
	tests := []struct {
		route netlink.Route
		want  netip.Prefix
	}{
		{netlink.Route{Family: netlink.FAMILY_V4, Dst: ten}, prefix("10.0.0.0/8")},
		{netlink.Route{Family: netlink.FAMILY_V6, Dst: ula}, prefix("fd00::/8")},
		{netlink.Route{Family: netlink.FAMILY_V4}, everything4},
		{netlink.Route{Family: netlink.FAMILY_V6}, everything6},
	}
	for _, tt := range tests {
		if got := destination(tt.route); got != tt.want {
			t.Errorf("destination(%v) = %v, want %v", tt.route, got, tt.want)
		}
	}
}

func TestFamilies(t *testing.T) {
	got := families([]netip.Prefix{prefix("fd00::/8"), prefix("10.0.0.0/8"), prefix("172.16.0.0/12")})
	if len(got) != 2 || got[0] != "-4" || got[1] != "-6" {
		t.Errorf("families = %v", got)
	}
}
