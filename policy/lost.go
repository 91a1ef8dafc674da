package policy

import (
	"net/netip"

	"go4.org/netipx"
)

// Lost returns what went through the tunnel before and does not after, as few prefixes as possible.
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
