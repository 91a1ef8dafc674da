package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
)

// ErrNoOverlay is returned by [ProposeOverlay] when the host routes every candidate already.
var ErrNoOverlay = errors.New("no free overlay address: the host has routes for 245.0.0.0/8, 244.0.0.0/8 and 243.0.0.0/8, or the cluster has all of fd00::/8")

// GatewayAddr returns the gateway's address on the point-to-point link whose workstation has
// address a: the other one of the /31 or /127 (RFC 3021, RFC 6164). It is its own inverse.
func GatewayAddr(a netip.Addr) netip.Addr {
	b := a.As16()
	b[15] ^= 1
	if a.Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b).WithZone(a.Zone())
}

// overlayTries bounds the search in one pool. A pool has 2^23 pairs, so that 256 misses mean that
// nearly all of it is routed and the next pool is the better place.
const overlayTries = 256

// ProposeOverlay returns a /31 and a /127 for a new Peer. Each prefix's own address is the even one,
// the workstation's; [GatewayAddr] gives the gateway's. They overlap neither a route of the host,
// default routes and their halves aside, nor a prefix in avoid (the cluster's subnets, other
// Peers). The IPv6 prefix is from a random ULA (RFC 4193, section 3.2.2), and may lie in a route that
// is wider than any one site's.
//
// The seed is 16 random bytes from the caller; one seed always gives the same proposal.
func ProposeOverlay(seed [16]byte, facts Facts, avoid ...netip.Prefix) (v4, v6 netip.Prefix, err error) {
	taken := takenBy(facts, avoid)
	draws := drawer{seed: seed}
	free := func(draw func([32]byte) netip.Prefix) (netip.Prefix, bool) {
		for range overlayTries {
			if p := draw(draws.next()); !taken.overlaps(p) {
				return p, true
			}
		}
		return netip.Prefix{}, false
	}
	found := false
	for i := 0; i < len(overlayPools) && !found; i++ {
		v4, found = free(func(random [32]byte) netip.Prefix { return pair4(overlayPools[i], random) })
	}
	if found {
		v6, found = free(pair6)
	}
	if !found {
		return netip.Prefix{}, netip.Prefix{}, ErrNoOverlay
	}
	return v4, v6, nil
}

// siteBits is the length of one site's prefix in fd00::/8 (RFC 4193, section 3.1). Who routes a shorter
// one, as a VPN that takes all private addresses, has nobody at a random place in it.
const siteBits = 48

// takenBy returns the addresses that some route of the host, other than a default route or an IPv6
// route wider than a site's, steers, and those in avoid.
func takenBy(facts Facts, avoid []netip.Prefix) rangeSet {
	whole := wholeSpace(facts.Routes)
	prefixes := make([]netip.Prefix, 0, len(facts.Routes)+len(avoid))
	for i, r := range facts.Routes {
		if r.Prefix.IsValid() && !whole[i] && (r.Prefix.Addr().Is4() || r.Prefix.Bits() >= siteBits) {
			prefixes = append(prefixes, r.Prefix)
		}
	}
	for _, p := range avoid {
		if p.IsValid() {
			prefixes = append(prefixes, p)
		}
	}
	return rangesOf(prefixes...)
}

// pair4 makes a /31 in a /8 pool out of random bytes.
func pair4(pool netip.Prefix, random [32]byte) netip.Prefix {
	a := pool.Addr().As4()
	copy(a[1:], random[:3])
	return netip.PrefixFrom(netip.AddrFrom4(a), 31).Masked()
}

// pair6 makes a /127 in a unique local prefix: fd, 40 random bits, subnet 0, 64 random bits.
func pair6(random [32]byte) netip.Prefix {
	a := siteOf(random).Addr().As16()
	copy(a[8:], random[8:16])
	return netip.PrefixFrom(netip.AddrFrom16(a), 127).Masked()
}

// siteOf makes a site's unique local prefix out of random bytes.
func siteOf(random [32]byte) netip.Prefix {
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:6], random[:5])
	return netip.PrefixFrom(netip.AddrFrom16(a), siteBits)
}

// drawer stretches a seed into as many random blocks as the search needs.
type drawer struct {
	seed  [16]byte
	count uint64
}

func (d *drawer) next() [32]byte {
	var block [24]byte
	copy(block[:], d.seed[:])
	binary.BigEndian.PutUint64(block[16:], d.count)
	d.count++
	return sha256.Sum256(block[:])
}
