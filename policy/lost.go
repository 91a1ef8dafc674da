package policy

import (
	"net/netip"

	"go4.org/netipx"
)

// Lost returns what went through the tunnel before and does not after, as few prefixes as possible: also
// what is reached by virtual addresses now, since connections to its own go astray. Virtual addresses
// are never lost while there is something that they stand for.
func Lost(before, after Plan) []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, p := range before.AllowedIPs {
		b.AddPrefix(p)
	}
	for _, p := range after.AllowedIPs {
		b.RemovePrefix(p)
	}
	return rangesFrom(&b).prefixes()
}
