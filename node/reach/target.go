package reach

import (
	"net/netip"
	"slices"
	"sort"
)

// Targets chooses what to probe: one address of each subnet of which the tunnel carries at least a part.
//
// allowed are the prefixes that go through the tunnel (a plan's AllowedIPs: nothing overlaps); what is carved
// out of a subnet is not in them. gateways are the gateway's overlay addresses, one per family; a family without one is left out.
// Equal inputs give equal targets, sorted by prefix.
func Targets(subnets, allowed []netip.Prefix, gateways []netip.Addr) []Target {
	subnets, allowed = normal(subnets), normal(allowed)
	var out []Target
	for _, subnet := range subnets {
		g := slices.IndexFunc(gateways, func(a netip.Addr) bool { return a.Is4() == subnet.Addr().Is4() })
		piece := largestPiece(subnet, allowed)
		if g >= 0 && piece.IsValid() {
			out = append(out, Target{subnet, addressIn(piece), gateways[g]})
		}
	}
	return out
}

// normal returns the prefixes masked, sorted and each once.
func normal(prefixes []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.IsValid() {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// largestPiece returns the largest prefix within subnet and one of allowed, the lowest of several, and the zero
// Prefix when there is none. allowed is sorted, and nothing in it overlaps.
func largestPiece(subnet netip.Prefix, allowed []netip.Prefix) (best netip.Prefix) {
	first := sort.Search(len(allowed), func(i int) bool {
		return allowed[i].Overlaps(subnet) || subnet.Addr().Less(allowed[i].Addr())
	})
	for _, piece := range allowed[first:] {
		if !piece.Overlaps(subnet) {
			break
		}
		if piece.Bits() < subnet.Bits() {
			piece = subnet
		}
		if !best.IsValid() || piece.Bits() < best.Bits() {
			best = piece
		}
	}
	return best
}

// addressIn returns the second address of p, the only one of a host prefix. The first may be a broadcast address
// of old (RFC 1122, section 3.2.1.3), and is the routers' anycast address in IPv6 (RFC 4291, section 2.6.1).
func addressIn(p netip.Prefix) netip.Addr {
	if p.IsSingleIP() {
		return p.Addr()
	}
	return p.Addr().Next()
}
