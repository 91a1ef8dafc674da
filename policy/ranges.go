package policy

import "net/netip"

// A wellKnown range is a prefix whose meaning is fixed by a standard.
type wellKnown struct {
	prefix netip.Prefix
	reason string // with the RFC that says so
}

const loopback = "loopback (RFC 1122, section 3.2.1.3)"

// neverRouted are ranges that no tunnel carries: routes in them are no conflicts, and settings that
// would route them are refused.
var neverRouted = []wellKnown{
	{netip.MustParsePrefix("0.0.0.0/8"), `"this network" (RFC 1122, section 3.2.1.3)`},
	{netip.MustParsePrefix("127.0.0.0/8"), loopback},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local (RFC 3927)"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast (RFC 5771)"},
	{netip.MustParsePrefix("255.255.255.255/32"), "limited broadcast (RFC 919)"},
	{netip.MustParsePrefix("::/127"), "loopback and unspecified (RFC 4291, sections 2.5.2 and 2.5.3)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local (RFC 4291, section 2.5.6)"},
	{netip.MustParsePrefix("ff00::/8"), "multicast (RFC 4291, section 2.7)"},
}

// notInternet are ranges that a "route everything" list of a VPN may leave out and still mean the
// whole internet: such lists often exclude the private networks.
var notInternet = []wellKnown{
	{netip.MustParsePrefix("0.0.0.0/8"), `"this network" (RFC 1122)`},
	{netip.MustParsePrefix("10.0.0.0/8"), "private (RFC 1918)"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT (RFC 6598)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback (RFC 1122)"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local (RFC 3927)"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private (RFC 1918)"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments (RFC 6890)"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private (RFC 1918)"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking (RFC 2544)"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("224.0.0.0/3"), "multicast and class E (RFC 5771, RFC 1112)"},
}

var (
	// globalUnicast6 is all of IPv6 that is assigned for the internet (RFC 4291, section 2.4; IANA).
	globalUnicast6 = netip.MustParsePrefix("2000::/3")
	// uniqueLocal6 is RFC 4193; OpenVPN's "redirect-gateway ipv6" adds it beside the internet.
	uniqueLocal6 = netip.MustParsePrefix("fc00::/7")

	// localSites6 is the half of it that sites give themselves prefixes of (RFC 4193, section 3.1).
	localSites6 = netip.MustParsePrefix("fd00::/8")

	// classE is reserved (RFC 1112, section 4): on no LAN and in no VPN, and Linux routes it like any other.
	classE = netip.MustParsePrefix("240.0.0.0/4")
	// endOfClassE holds the limited broadcast address (RFC 919) and what some take for it.
	endOfClassE = netip.MustParsePrefix("255.0.0.0/8")

	all4 = netip.MustParsePrefix("0.0.0.0/0")
	all6 = netip.MustParsePrefix("::/0")
)

// overlayPools are where IPv4 overlay addresses come from, first choice first. Class E (RFC 1112,
// section 4) is on no LAN and in no VPN, and Linux routes it like any other address. 246.0.0.0/8
// is left to virtual IPs.
var overlayPools = []netip.Prefix{
	netip.MustParsePrefix("245.0.0.0/8"),
	netip.MustParsePrefix("244.0.0.0/8"),
	netip.MustParsePrefix("243.0.0.0/8"),
}

// unroutable reports whether p lies wholly in a range that no tunnel carries, and which.
func unroutable(p netip.Prefix) (reason string, ok bool) {
	for _, r := range neverRouted {
		if covers(r.prefix, p) {
			return r.reason, true
		}
	}
	return "", false
}

// covers reports whether every address of inner is in outer.
func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
