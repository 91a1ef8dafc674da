package dns

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	wire "github.com/miekg/dns"

	"github.com/culvert-dev/culvert/policy"
)

// Twin is a prefix of the cluster's with the one that stands for it on this host.
type Twin struct {
	Real netip.Prefix
	// Virtual is as long as Real and has its addresses in the same order: an address of Virtual stands for the one of
	// Real with the same host bits. It is not looked at if Pooled.
	Virtual netip.Prefix
	// Pooled says that the addresses that stand for those of Real are leased from [Options.Pool].
	Pooled bool
}

// Pool leases virtual addresses. It is called from many goroutines, for each address of every reply.
type Pool interface {
	// Lease returns the address that stands for real, and keeps it so for longer than [VirtualTTL] from now on. name
	// is the absolute name, in lower case, that real was found under. The error says why there is no address, in
	// a few words for people.
	Lease(real netip.Addr, name string) (netip.Addr, error)
	// Real returns what vip stands for, if anything, and does not prolong it.
	Real(vip netip.Addr) (real netip.Addr, ok bool)
}

// VirtualTTL is the longest that clients are told to remember a virtual address. A pool must keep an address that it
// took back out of use for longer.
const VirtualTTL = 30 * time.Second

var (
	errUsedUp = errors.New("the pool of virtual addresses is used up")
	errFamily = errors.New("the pool of virtual addresses has none of this family")
	errNoTwin = errors.New("there is no virtual address for this one")
)

// normal returns t with prefixes in their normal form, and reports whether anything can be done with it.
func (t Twin) normal() (Twin, bool) {
	if !t.Real.IsValid() || t.Real.Addr().Is4In6() {
		return t, false
	}
	t.Real = t.Real.Masked()
	if t.Pooled {
		return Twin{Real: t.Real, Pooled: true}, true
	}
	t.Virtual = t.Virtual.Masked()
	return t, t.Virtual.Bits() == t.Real.Bits() && t.Virtual.Addr().BitLen() == t.Real.Addr().BitLen() && !t.Virtual.Addr().Is4In6()
}

// normalTwins returns the twins that are of use, in the order of their real prefixes.
func normalTwins(twins []Twin) []Twin {
	var out []Twin
	for _, t := range twins {
		if t, ok := t.normal(); ok {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Twin) int {
		if c := a.Real.Addr().Compare(b.Real.Addr()); c != 0 {
			return c
		}
		return a.Real.Bits() - b.Real.Bits()
	})
	return out
}

// virtual returns the prefixes that stand for others as a whole.
func (c *Config) virtual() []netip.Prefix {
	var out []netip.Prefix
	for _, t := range c.Twins {
		if !t.Pooled {
			out = append(out, t.Virtual)
		}
	}
	return out
}

// standIn reports whether addr stands for another here, or might.
func (c *Config) standIn(addr netip.Addr) bool { return containsAddr(c.VirtualSubnets, addr) }

// othersStandIn reports whether addr stands for another in another connection of this host.
func (c *Config) othersStandIn(addr netip.Addr) bool { return containsAddr(c.OthersVirtual, addr) }

func containsAddr(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// lease returns the address of the pool that stands for real, found under name.
func lease(pool Pool, real netip.Addr, name string) (netip.Addr, error) {
	if pool == nil {
		return netip.Addr{}, errUsedUp
	}
	vip, err := pool.Lease(real, name)
	if err == nil && vip.BitLen() != real.BitLen() {
		return netip.Addr{}, errFamily
	}
	return vip, err
}

const (
	reasonVirtual = "reverse name of a virtual address"
	reasonVacant  = "reverse name of a virtual address that stands for nothing"
)

// virtualReverse decides about the reverse names of virtual addresses, which only this host has. Of an address that
// may be leased it says which one it is, in vip, and denies it.
func (c *Config) virtualReverse(name string) (Decision, bool) {
	if len(c.Twins)+len(c.Pools) == 0 {
		return Decision{}, false
	}
	named, ok := reversePrefix(name)
	if !ok {
		return Decision{}, false
	}
	vacant := Decision{Source: SourceNone, Name: name, Reason: reasonVacant}
	addr, whole := named.Addr(), named.IsSingleIP()
	if whole && reverseName(addr) != name {
		whole = false // a name below that of an address
	} else {
		vacant.exists = !whole
	}
	for _, t := range c.Twins {
		if t.Pooled || !within(named, t.Virtual) {
			continue
		}
		if whole {
			return c.reverseOf(policy.Transplant(addr, t.Real)), true
		}
		return vacant, true
	}
	for _, p := range c.Pools {
		if within(named, p) {
			if whole {
				vacant.vip = addr
			}
			return vacant, true
		}
	}
	return Decision{}, false
}

// reverseOf is the decision for the reverse name of a virtual address that stands for real.
func (c *Config) reverseOf(real netip.Addr) Decision {
	return Decision{Source: SourceCluster, Name: reverseName(real), Reason: reasonVirtual}
}

// reverseName returns the name that the PTR record of addr stands under.
func reverseName(addr netip.Addr) string {
	name, _ := wire.ReverseAddr(addr.String()) // fails for what is no address only
	return name
}

// within reports whether inner is outer or a part of it.
func within(inner, outer netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
