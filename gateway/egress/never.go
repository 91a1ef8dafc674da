package egress

import "net/netip"

// forbidden is a prefix the gateway does not dial and why, as a person reads it.
type forbidden struct {
	prefix netip.Prefix
	why    string
}

// wellKnown are the prefixes never dialled in any cluster. Metadata services hand out the node's
// credentials to whoever asks from a pod; each provider's address is listed because several lie
// outside link-local space and inside prefixes that clusters use.
var wellKnown = []forbidden{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified, means this host (RFC 1122)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback (RFC 1122)"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local (RFC 3927)"},
	{netip.MustParsePrefix("169.254.169.254/32"), "cloud metadata"},
	{netip.MustParsePrefix("169.254.170.2/32"), "cloud metadata (AWS, credentials of a task)"},
	{netip.MustParsePrefix("169.254.170.23/32"), "cloud metadata (AWS, credentials of a pod)"},
	{netip.MustParsePrefix("100.100.100.200/32"), "cloud metadata (Alibaba)"},
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud host agent (Azure)"},
	{netip.MustParsePrefix("192.0.0.192/32"), "cloud metadata (Oracle)"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast (RFC 5771)"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast (RFC 919)"},

	{netip.MustParsePrefix("::/96"), "unspecified, loopback and IPv4-compatible (RFC 4291)"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4-translated (RFC 2765)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local (RFC 4291)"},
	{netip.MustParsePrefix("fec0::/10"), "site-local, deprecated (RFC 3879)"},
	{netip.MustParsePrefix("ff00::/8"), "multicast (RFC 4291)"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "cloud metadata (AWS)"},
	{netip.MustParsePrefix("fd00:ec2::23/128"), "cloud metadata (AWS, credentials of a pod)"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "cloud metadata (Google)"},
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), "cloud metadata (Oracle)"},
	{netip.MustParsePrefix("fd00:42::42/128"), "cloud metadata (Scaleway)"},
}

// embedding are IPv6 prefixes whose addresses a router turns into IPv4 ones, and the byte at which
// the IPv4 address stands: what is never reached must not be reached through them either.
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},   // NAT64 (RFC 6052)
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12}, // NAT64, local use with /96 prefixes (RFC 8215)
	{netip.MustParsePrefix("2002::/16"), 2},       // 6to4 (RFC 3056)
}

// embedded returns the IPv4 address that a stands for behind a translator.
func embedded(a netip.Addr) (netip.Addr, bool) {
	for _, e := range embedding {
		if e.prefix.Contains(a) {
			b := a.As16()
			return netip.AddrFrom4([4]byte(b[e.at : e.at+4])), true
		}
	}
	return netip.Addr{}, false
}
