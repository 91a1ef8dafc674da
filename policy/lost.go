package policy

import (
	"net/netip"

	"go4.org/netipx"
)

// Lost returns what went through the tunnel before and does not after, as few prefixes as possible: also
// what is reached by virtual addresses now, since connections to its own go astray. Virtual addresses
// are never lost while there is something that they stand for, unless the gateway or the workload that
// reaches it is another one: that knows nothing of the connections there are.
func Lost(before, after Plan) []netip.Prefix {
	lost := lostAmong(before.AllowedIPs, after.AllowedIPs)
	for _, v := range before.Vias {
		lost = joined(lost, lostAmong(v.AllowedIPs, after.allowedVia(v.Workload)))
	}
	return lost.prefixes()
}

// lostAmong returns the addresses that before has and after has not.
func lostAmong(before, after []netip.Prefix) rangeSet {
	var b netipx.IPSetBuilder
	for _, p := range before {
		b.AddPrefix(p)
	}
	for _, p := range after {
		b.RemovePrefix(p)
	}
	return rangesFrom(&b)
}
