package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go4.org/netipx"
)

// ParsePrefix reads a CIDR into the one form used everywhere: unmapped, masked. An address without
// a length, an IPv4-mapped IPv6 prefix and a prefix with host bits set are errors that name what
// was probably meant.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.Prefix{}, fmt.Errorf("%q is an address, not a prefix; for this one address write %s", s, hostPrefix(a))
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a prefix; write an address and a length, such as 10.128.0.0/9 or fd00:1::/48", s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 prefix in IPv6 form; %s", s, unmappedHint(p))
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its length of %d; write %s", s, p.Bits(), m)
	}
	return p, nil
}

func hostPrefix(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

func unmappedHint(p netip.Prefix) string {
	if p.Bits() < 96 {
		return "write it as IPv4"
	}
	return "write " + netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked().String()
}

// routedPrefix reads a prefix that is to be routed into the tunnel.
func routedPrefix(s string) (string, error) {
	p, err := ParsePrefix(s)
	if err != nil {
		return "", err
	}
	if p.Bits() == 0 {
		return "", fmt.Errorf("%q is a default route; the tunnel takes prefixes of the cluster only", s)
	}
	if reason, ok := unroutable(p); ok {
		return "", fmt.Errorf("%q cannot be routed into a tunnel: %s", s, reason)
	}
	return p.String(), nil
}

// anyPrefix reads a prefix that only says yes or no to routes, so that 0.0.0.0/0 has a meaning.
func anyPrefix(s string) (string, error) {
	p, err := ParsePrefix(s)
	return p.String(), err
}

// dnsLabel is a name as Kubernetes allows it for namespaces (RFC 1123, section 2.1).
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func namespace(s string) (string, error) {
	if !dnsLabel.MatchString(s) {
		return "", fmt.Errorf("%q is not the name of a namespace; use lower-case letters, digits and '-', at most 63", s)
	}
	return s, nil
}

// suffix reads a DNS domain into lower case without a trailing dot. Underscores are allowed, as in
// the names of services (RFC 2782).
func suffix(s string) (string, error) {
	name := strings.ToLower(strings.Trim(s, "."))
	if name == "" {
		return "", fmt.Errorf("%q is the root; name a domain, such as corp.example", s)
	}
	for _, label := range strings.Split(name, ".") {
		if len(name) > 253 || !dnsLabel.MatchString(strings.ReplaceAll(label, "_", "a")) {
			return "", fmt.Errorf("%q is not a domain; write labels of letters, digits and '-' joined by dots, such as corp.example", s)
		}
	}
	return name, nil
}

// Bounds of dns.lookupTimeout.
const (
	minLookupTimeout = 100 * time.Millisecond
	maxLookupTimeout = time.Minute
)

func lookupTimeout(s string) (string, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < minLookupTimeout || d > maxLookupTimeout {
		return "", fmt.Errorf("%q is not a duration between %v and %v; write a number with a unit, such as 4s or 500ms", s, minLookupTimeout, maxLookupTimeout)
	}
	return d.String(), nil
}

// Bounds of transport.mtu: the least that IPv6 needs (RFC 8200, section 5) and a usual jumbo frame.
const (
	minMTU = 1280
	maxMTU = 9000
)

func mtu(s string) (string, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n != 0 && (n < minMTU || n > maxMTU) {
		return "", fmt.Errorf("%q is not an MTU; write a number of bytes between %d and %d, or 0 to derive it from the route", s, minMTU, maxMTU)
	}
	return strconv.Itoa(n), nil
}

// lastAddr is the last address of p.
func lastAddr(p netip.Prefix) netip.Addr { return netipx.PrefixLastIP(p) }

// othersUse are ranges that programs beside VPNs take addresses from without a route that tells.
var othersUse = []wellKnown{
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT, which Tailscale and others use (RFC 6598)"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking, which other programs take virtual addresses from (RFC 2544)"},
}

// Bounds of the virtual subnets' lengths.
const (
	minVirtualBits4, maxVirtualBits4 = 4, 28
	minVirtualBits6, maxVirtualBits6 = 32, 64
)

// virtualIPSubnet reads the prefix that virtual IPv4 addresses are taken from, or "".
func virtualIPSubnet(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	p, err := ParsePrefix(s)
	switch {
	case err != nil:
		return "", err
	case !p.Addr().Is4():
		return "", fmt.Errorf("%q is an IPv6 prefix; write an IPv4 prefix, such as %s, and IPv6 in cluster.virtualIPv6Subnet", s, DefaultVirtualSubnet)
	case p.Bits() < minVirtualBits4 || p.Bits() > maxVirtualBits4:
		return "", fmt.Errorf("%q has a length of %d; write an IPv4 prefix of length %d to %d, such as %s", s, p.Bits(), minVirtualBits4, maxVirtualBits4, DefaultVirtualSubnet)
	}
	for _, r := range slices.Concat(neverRouted, othersUse) {
		if !r.prefix.IsSingleIP() && r.prefix.Overlaps(p) { // the broadcast address is one of class E that is not handed out
			return "", fmt.Errorf("%q overlaps %s, %s; write an IPv4 prefix that nobody uses, such as %s", s, r.prefix, r.reason, DefaultVirtualSubnet)
		}
	}
	return p.String(), nil
}

// virtualIPv6Subnet reads the prefix that virtual IPv6 addresses are taken from, or "".
func virtualIPv6Subnet(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	p, err := ParsePrefix(s)
	const example = "such as fd00:246::/48"
	switch {
	case err != nil:
		return "", err
	case p.Addr().Is4():
		return "", fmt.Errorf("%q is an IPv4 prefix; write an IPv6 prefix, %s, and IPv4 in cluster.virtualIPSubnet", s, example)
	case !covers(uniqueLocal6, p):
		return "", fmt.Errorf("%q is not inside %s; write a unique local prefix (RFC 4193), %s", s, uniqueLocal6, example)
	case p.Bits() < minVirtualBits6 || p.Bits() > maxVirtualBits6:
		return "", fmt.Errorf("%q has a length of %d; write an IPv6 prefix of length %d to %d, %s", s, p.Bits(), minVirtualBits6, maxVirtualBits6, example)
	}
	return p.String(), nil
}
