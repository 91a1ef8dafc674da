package policy

import "testing"

func TestVirtualSubnets(t *testing.T) {
	for text, want := range map[string]string{ // to the error of virtualIPSubnet, "" for none
		"":                     "",
		"246.0.0.0/8":          "",
		"240.0.0.0/4":          "",
		"211.55.48.0/20":       "",
		"10.99.0.0/28":         "",
		"246.0.0.0/29":         `"246.0.0.0/29" has a length of 29; write an IPv4 prefix of length 4 to 28, such as 246.0.0.0/8`,
		"0.0.0.0/0":            `"0.0.0.0/0" has a length of 0; write an IPv4 prefix of length 4 to 28, such as 246.0.0.0/8`,
		"246.0.0.1/8":          `"246.0.0.1/8" has bits set behind its length of 8; write 246.0.0.0/8`,
		"246.0.0.0":            `"246.0.0.0" is an address, not a prefix; for this one address write 246.0.0.0/32`,
		"246.0.0.0/8,247.0/16": `"246.0.0.0/8,247.0/16" is not a prefix; write an address and a length, such as 10.128.0.0/9 or fd00:1::/48`,
		"fd00:246::/48":        `"fd00:246::/48" is an IPv6 prefix; write an IPv4 prefix, such as 246.0.0.0/8, and IPv6 in cluster.virtualIPv6Subnet`,
		"100.96.0.0/16":        `"100.96.0.0/16" overlaps 100.64.0.0/10, carrier-grade NAT, which Tailscale and others use (RFC 6598); write an IPv4 prefix that nobody uses, such as 246.0.0.0/8`,
		"96.0.0.0/4":           `"96.0.0.0/4" overlaps 100.64.0.0/10, carrier-grade NAT, which Tailscale and others use (RFC 6598); write an IPv4 prefix that nobody uses, such as 246.0.0.0/8`,
		"198.18.0.0/15":        `"198.18.0.0/15" overlaps 198.18.0.0/15, benchmarking, which other programs take virtual addresses from (RFC 2544); write an IPv4 prefix that nobody uses, such as 246.0.0.0/8`,
		"127.0.0.0/16":         `"127.0.0.0/16" overlaps 127.0.0.0/8, loopback (RFC 1122, section 3.2.1.3); write an IPv4 prefix that nobody uses, such as 246.0.0.0/8`,
		"169.254.0.0/16":       `"169.254.0.0/16" overlaps 169.254.0.0/16, link-local (RFC 3927); write an IPv4 prefix that nobody uses, such as 246.0.0.0/8`,
		"224.0.0.0/4":          `"224.0.0.0/4" overlaps 224.0.0.0/4, multicast (RFC 5771); write an IPv4 prefix that nobody uses, such as 246.0.0.0/8`,
		"0.0.0.0/8":            `"0.0.0.0/8" overlaps 0.0.0.0/8, "this network" (RFC 1122, section 3.2.1.3); write an IPv4 prefix that nobody uses, such as 246.0.0.0/8`,
	} {
		if got, err := virtualIPSubnet(text); textOf(err) != want || err == nil && got != text {
			t.Errorf("IPv4 %q: %q, %v\nwant %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{ // likewise virtualIPv6Subnet
		"":                   "",
		"fd00:246::/48":      "",
		"fc00::/32":          "",
		"fdff:ffff:0:1::/64": "",
		"fd00::/16":          `"fd00::/16" has a length of 16; write an IPv6 prefix of length 32 to 64, such as fd00:246::/48`,
		"fd00::/96":          `"fd00::/96" has a length of 96; write an IPv6 prefix of length 32 to 64, such as fd00:246::/48`,
		"2001:db8::/48":      `"2001:db8::/48" is not inside fc00::/7; write a unique local prefix (RFC 4193), such as fd00:246::/48`,
		"fe80::/64":          `"fe80::/64" is not inside fc00::/7; write a unique local prefix (RFC 4193), such as fd00:246::/48`,
		"::/0":               `"::/0" is not inside fc00::/7; write a unique local prefix (RFC 4193), such as fd00:246::/48`,
		"246.0.0.0/8":        `"246.0.0.0/8" is an IPv4 prefix; write an IPv6 prefix, such as fd00:246::/48, and IPv4 in cluster.virtualIPSubnet`,
		"fd00::1/48":         `"fd00::1/48" has bits set behind its length of 48; write fd00::/48`,
	} {
		if got, err := virtualIPv6Subnet(text); textOf(err) != want || err == nil && got != text {
			t.Errorf("IPv6 %q: %q, %v\nwant %s", text, got, err, want)
		}
	}
}
