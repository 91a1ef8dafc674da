package egress

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"go4.org/netipx"
)

// Input is everything the decision rests on. The zero value permits nothing.
type Input struct {
	// Services and Pods are the cluster's own prefixes.
	Services, Pods []netip.Prefix
	// Allow is the chart's egress.allow. An entry inside a prefix that is otherwise never dialled
	// (169.254.20.10/32, a node-local resolver) opens just that entry; one that merely covers it
	// (0.0.0.0/0) does not.
	Allow []netip.Prefix
	// Own are the gateway's own addresses.
	Own []netip.Addr
	// Overlays are the address pairs of all Peers, each a /31 or /127.
	Overlays []netip.Prefix
}

// Decision is what may be done with a destination. The zero value refuses.
type Decision uint8

const (
	// Refused destinations are not dialled; [Set.Check] says why.
	Refused Decision = iota
	// Permitted destinations are dialled.
	Permitted
	// PermittedByName is a destination that is otherwise never dialled and that egress.allow names.
	PermittedByName
)

// Set is one compiled decision. It is immutable; the nil Set permits nothing.
type Set struct {
	permitted *netipx.IPSet
	closed    *netipx.IPSet // the union of never, less what Allow opens of each
	opened    *netipx.IPSet // what Allow opens of never
	never     []forbidden   // for the words of a refusal
}

// Compile makes the Set of in. Prefixes are masked; invalid and IPv4-mapped ones are left out.
func Compile(in Input) *Set {
	s := &Set{never: neverOf(in)}
	var closed, opened, permitted netipx.IPSetBuilder
	for _, f := range s.never {
		opened.AddPrefix(f.prefix)
		closed.AddSet(without(f.prefix, in.Allow))
	}
	for _, list := range [][]netip.Prefix{in.Services, in.Pods, in.Allow} {
		for _, p := range list {
			if usable(p) {
				permitted.AddPrefix(p.Masked())
			}
		}
	}
	s.closed = built(&closed)
	opened.RemoveSet(s.closed)
	s.opened = built(&opened)
	permitted.RemoveSet(s.closed)
	s.permitted = built(&permitted)
	return s
}

// without returns never less the entries of allow that lie inside it.
func without(never netip.Prefix, allow []netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddPrefix(never)
	for _, p := range allow {
		if usable(p) && never.Bits() <= p.Bits() && never.Contains(p.Addr()) {
			b.RemovePrefix(p.Masked())
		}
	}
	return built(&b)
}

// built returns the set of b. Only invalid prefixes make it fail and none was added, so a failure is
// a mistake in this package.
func built(b *netipx.IPSetBuilder) *netipx.IPSet {
	set, err := b.IPSet()
	if err != nil {
		panic(fmt.Sprintf("egress: %v", err))
	}
	return set
}

// neverOf returns the prefixes not dialled in this cluster.
func neverOf(in Input) []forbidden {
	never := append([]forbidden(nil), wellKnown...)
	for _, a := range in.Own {
		a = a.Unmap().WithZone("")
		if a.IsValid() {
			never = append(never, forbidden{netip.PrefixFrom(a, a.BitLen()), "the gateway's own address"})
		}
	}
	for _, p := range in.Overlays {
		if usable(p) {
			never = append(never, forbidden{p.Masked(), "the overlay address of a Peer"})
		}
	}
	return never
}

// usable reports whether p can stand in a set: valid and not IPv4-mapped, which would overlap
// nothing although it reads like an IPv4 prefix.
func usable(p netip.Prefix) bool { return p.IsValid() && !p.Addr().Is4In6() }

// Decide says what may be done with dst. It accepts any address a packet can carry; IPv4-mapped IPv6
// and zoned addresses are refused, as dialling them would reach something else than what was checked.
func (s *Set) Decide(dst netip.Addr) Decision {
	if s == nil || !dst.IsValid() || dst.Is4In6() || dst.Zone() != "" || !s.permitted.Contains(dst) {
		return Refused
	}
	if inner, ok := embedded(dst); ok && s.closed.Contains(inner) {
		return Refused
	}
	if s.opened.Contains(dst) {
		return PermittedByName
	}
	return Permitted
}

// Check returns nil if dst may be dialled, else an error that says why not.
func (s *Set) Check(dst netip.Addr) error {
	if s.Decide(dst) != Refused {
		return nil
	}
	return fmt.Errorf("%s is not reachable through the gateway: %s", dst, s.why(dst))
}

// why explains a refusal of dst.
func (s *Set) why(dst netip.Addr) string {
	switch {
	case s == nil:
		return "the cluster's subnets are not known yet"
	case !dst.IsValid() || dst.Is4In6() || dst.Zone() != "":
		return "it is not a plain IPv4 or IPv6 address"
	}
	if s.closed.Contains(dst) {
		return narrowest(s.never, dst)
	}
	if inner, ok := embedded(dst); ok && s.closed.Contains(inner) {
		return fmt.Sprintf("it stands for %s, which is never dialled", inner)
	}
	return "it is in no service or pod subnet and not in egress.allow"
}

// narrowest returns the reason of the longest prefix of never that contains a.
func narrowest(never []forbidden, a netip.Addr) string {
	var best forbidden
	for _, f := range never {
		if f.prefix.Contains(a) && (best.why == "" || f.prefix.Bits() > best.prefix.Bits()) {
			best = f
		}
	}
	return best.why
}

// Gate holds the Set in force. The zero Gate refuses everything.
type Gate struct{ set atomic.Pointer[Set] }

// Replace puts s in force for every later question.
func (g *Gate) Replace(s *Set) { g.set.Store(s) }

// Decide asks the Set in force; see [Set.Decide].
func (g *Gate) Decide(dst netip.Addr) Decision { return g.set.Load().Decide(dst) }

// Check asks the Set in force; see [Set.Check].
func (g *Gate) Check(dst netip.Addr) error { return g.set.Load().Check(dst) }
