// Package overlay says where the addresses of workstations, of gateways as those see them, and of twins come
// from: ranges that neither the internet nor, as a rule, clusters use. Those clusters that do are for the
// callers to tell apart. The package has no state.
package overlay

import (
	"fmt"
	"net/netip"
)

var (
	space4 = netip.MustParsePrefix("240.0.0.0/4") // class E (RFC 1112, section 4)
	space6 = netip.MustParsePrefix("fc00::/7")    // unique local (RFC 4193)

	broadcast = netip.MustParseAddr("255.255.255.255") // RFC 919
)

// Space returns the range of a's family.
func Space(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return space4
	}
	return space6
}

// Holds reports whether p lies wholly within the ranges.
func Holds(p netip.Prefix) bool {
	space := Space(p.Addr())
	return space.Bits() <= p.Bits() && space.Contains(p.Addr())
}

// Check returns why no Peer can have p for its own or for a twin, or nil.
func Check(p netip.Prefix) error {
	switch {
	case !Holds(p):
		return fmt.Errorf("%s is not in %s or %s", p, space4, space6)
	case p.Contains(broadcast):
		return fmt.Errorf("%s holds the broadcast address", p)
	}
	return nil
}
