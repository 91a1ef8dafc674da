package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// DefaultVirtualSubnet is where IPv4 virtual addresses come from unless settings say otherwise: class E,
// which no LAN and no VPN uses, and not what overlay addresses are taken from.
var DefaultVirtualSubnet = netip.MustParsePrefix("246.0.0.0/8")

// Virtual is what twins are made of. [ChooseVirtual] makes one, when connecting.
type Virtual struct {
	// V4 and V6 are the subnets that programs' virtual addresses lie in; a family whose subnet is not
	// valid has no twins.
	V4 netip.Prefix `json:"v4,omitzero"`
	V6 netip.Prefix `json:"v6,omitzero"`
	// NoClassE says that this host cannot route 240.0.0.0/4, as Windows cannot: every IPv4 twin is pooled
	// then.
	NoClassE bool `json:"noClassE,omitempty"`
	// Assigned are the twins of all plans made for this cluster in these subnets; see [Virtual.Keep]. They
	// never move: not when a prefix grows, shrinks, leaves and returns, and not when somebody else comes
	// to route their addresses.
	Assigned []Twin `json:"assigned,omitempty"`
}

// Twin is a prefix under which a cluster subnet can be reached whatever becomes of the subnet's own:
// 1:1, with the same host bits.
type Twin struct {
	Real netip.Prefix `json:"real"`
	Kind SubnetKind   `json:"kind"`
	// Virtual is as long as Real, in 240.0.0.0/4 or fc00::/7, and what stands on the wire: the gateway
	// translates it to Real and back. It is not valid if there is none, and Reason says why.
	Virtual netip.Prefix `json:"virtual,omitzero"`
	// Via is the workload whose agent Virtual belongs to, in the normal form of [Workload]; "" for the
	// gateway. Another one may come to have it: the same addresses, by another way.
	Via string `json:"via,omitempty"`
	// Pooled says that programs on this host cannot use Virtual itself: addresses leased from one of
	// [Plan.Pools] stand for those of it, one by one.
	Pooled bool   `json:"pooled,omitempty"`
	Reason string `json:"reason,omitempty"`
}

func (t Twin) around() netip.Prefix { return t.Real }

// VirtualOf returns the address that stands for a, an address of t.Real. It is not valid if t has none.
func (t Twin) VirtualOf(a netip.Addr) netip.Addr { return moved(a, t.Real, t.Virtual) }

// RealOf is the inverse of VirtualOf.
func (t Twin) RealOf(a netip.Addr) netip.Addr { return moved(a, t.Virtual, t.Real) }

// moved returns the address of to that lies where a lies in from; not valid if a is not in from, or to
// is not valid.
func moved(a netip.Addr, from, to netip.Prefix) netip.Addr {
	if !to.IsValid() || !from.IsValid() || !from.Contains(a) {
		return netip.Addr{}
	}
	return Transplant(a, to)
}

// Keep returns v with a plan's undivided twins among the assigned ones. It is to be kept on the machine, by
// cluster, and used for the next plan: then no twin ever moves. Twins that it replaces are those of
// exactly the same prefixes.
func (v Virtual) Keep(twins []Twin) Virtual {
	v.Assigned = normalTwins(slices.Concat(v.Assigned, twins))
	return v
}

// normalTwins sorts twins that have a virtual prefix, without those that another says as well: of one
// prefix the last counts.
func normalTwins(twins []Twin) []Twin {
	var valid, out, around []Twin
	for _, t := range twins {
		if t.isTwin() {
			t.Real, t.Virtual = t.Real.Masked(), t.Virtual.Masked()
			valid = append(valid, t)
		}
	}
	slices.Reverse(valid)
	slices.SortStableFunc(valid, func(a, b Twin) int { return comparePrefix(a.Real, b.Real) })
	valid = slices.CompactFunc(valid, func(a, b Twin) bool { return a.Real == b.Real })
	for _, t := range valid {
		for n := len(around); n > 0 && !covers(around[n-1].Real, t.Real); n-- {
			around = around[:n-1]
		}
		if n := len(around); n == 0 || !around[n-1].says(t) {
			out, around = append(out, t), append(around, t)
		}
	}
	return out
}

// isTwin reports whether t has a virtual prefix, as one should be.
func (t Twin) isTwin() bool {
	return t.Virtual.IsValid() && t.Real.IsValid() && t.Virtual.Bits() == t.Real.Bits() && t.Virtual.Addr().BitLen() == t.Real.Addr().BitLen()
}

// says reports whether t, whose prefix is around that of u, gives the same virtual addresses.
func (t Twin) says(u Twin) bool {
	return t.Pooled == u.Pooled && covers(t.Real, u.Real) && transplant(u.Real, t.Virtual) == u.Virtual
}

// share is how much of the virtual subnet one twin may take, as a difference in length: 1/16. So much
// of it is the pool, too.
const share = 4

// smallestShared4 is the length of the smallest IPv4 virtual subnet that is shared between twins and the
// pool: 1/16 of it still has 4,096 addresses. A smaller one is all pool.
const smallestShared4 = 16

// subnet returns what virtual addresses of a family lie in; not valid if there is none.
func (v Virtual) subnet(f Family) netip.Prefix {
	if f == IPv4 {
		return v.V4
	}
	return v.V6
}

// direct reports whether programs can use twins of a family themselves.
func (v Virtual) direct(f Family) bool {
	if f == IPv4 {
		return v.V4.IsValid() && !v.NoClassE && covers(classE, v.V4) && v.V4.Bits() <= smallestShared4
	}
	return v.V6.IsValid() && covers(uniqueLocal6, v.V6)
}

// pool returns what addresses for pooled twins of a family are leased from: the last 1/16 of a subnet
// that is shared, which direct twins keep clear of, else all of it. The end of class E is not used:
// 255.255.255.255 is the limited broadcast, and some take all of 255.0.0.0/8 for it.
func (v Virtual) pool(f Family) netip.Prefix {
	s := v.subnet(f)
	if !v.direct(f) || !s.IsValid() {
		return s
	}
	p := netip.PrefixFrom(lastAddr(s), s.Bits()+share).Masked()
	for p.Overlaps(endOfClassE) && s.Contains(p.Addr().Prev()) {
		p = netip.PrefixFrom(p.Addr().Prev(), p.Bits()).Masked()
	}
	return p
}

// vipRange is a prefix of virtual addresses that programs use: a direct twin, or a pool.
type vipRange struct {
	prefix netip.Prefix
	reason string
	// claim is one plus the place of the first claim that overlaps it; 0 if there is none.
	claim int32
}

// vipRanges returns what leads to twins.
func vipRanges(v Virtual, twins []Twin) []vipRange {
	var out []vipRange
	for _, t := range twins {
		if t.Virtual.IsValid() && !t.Pooled {
			out = append(out, vipRange{prefix: t.Virtual, reason: fmt.Sprintf("stands for %s (%s)%s", t.Real, t.Kind, t.agentNote())})
		}
	}
	for _, pool := range poolsFor(v, twins) {
		subnets := someTexts(pooledSubnets(twins, familyOf(pool.Addr())), ", ")
		out = append(out, vipRange{prefix: pool, reason: "leased one by one for " + subnets})
	}
	return out
}

func prefixesOfVIPs(vips []vipRange) []netip.Prefix {
	out := make([]netip.Prefix, len(vips))
	for i, x := range vips {
		out[i] = x.prefix
	}
	return out
}

// poolsFor returns the pools of those families that have pooled twins.
func poolsFor(v Virtual, twins []Twin) []netip.Prefix {
	var out []netip.Prefix
	for _, f := range []Family{IPv4, IPv6} {
		if len(pooledSubnets(twins, f)) > 0 {
			out = append(out, v.pool(f))
		}
	}
	return out
}

// pooledSubnets names what the pooled twins of a family stand for: "10.128.0.0/9 (pods)".
func pooledSubnets(twins []Twin, f Family) []string {
	var out []string
	for _, t := range twins {
		if t.Pooled && t.Virtual.IsValid() && familyOf(t.Real.Addr()) == f {
			out = append(out, fmt.Sprintf("%s (%s)", t.Real, t.Kind))
		}
	}
	return out
}

// reachable leaves out of wants what only virtual addresses could reach, and none do.
func reachable(wants []want, twins []Twin) []want {
	if !slices.ContainsFunc(wants, func(w want) bool { return w.hidden }) {
		return wants
	}
	var out []want
	for _, w := range wants {
		stands := func(t Twin) bool { return t.Virtual.IsValid() && t.Real.Overlaps(w.prefix) }
		if !w.hidden || slices.ContainsFunc(twins, stands) {
			out = append(out, w)
		}
	}
	return out
}

// onWire returns the addresses that packets to the gateway are for.
func (s *sweep) onWire() rangeSet {
	if len(s.twins) == 0 {
		return s.tunnel
	}
	var b netipx.IPSetBuilder
	for _, r := range s.tunnel {
		b.AddRange(r)
	}
	for _, t := range s.twins {
		if t.Virtual.IsValid() && t.Via == "" {
			b.AddPrefix(t.Virtual)
		}
	}
	for _, t := range s.twins {
		if t.Virtual.IsValid() && t.Via != "" { // a subnet that the cluster came to have later may be there too
			b.RemovePrefix(t.Virtual)
		}
	}
	return rangesFrom(&b)
}

// routed returns the addresses that programs send into the tunnel.
func (s *sweep) routed() rangeSet {
	if len(s.entered) == 0 {
		return s.tunnel
	}
	return joined(s.tunnel, s.entered)
}

// virtualWarnings says where virtual addresses are less than was asked for, or are in somebody's way.
func (s *sweep) virtualWarnings() []string {
	var out []string
	if s.asksForVirtual() {
		for _, t := range s.twins {
			if !t.Virtual.IsValid() {
				out = append(out, fmt.Sprintf("%s (%s) has no virtual addresses: %s", t.Real, t.Kind, t.Reason))
			}
		}
		if len(s.twins) == 0 && len(s.wants) > 0 {
			out = append(out, "nothing has virtual addresses: there is no virtual subnet")
		}
	}
	for _, x := range s.vips {
		if x.claim != 0 {
			c, fate := s.claims[x.claim-1], "they stay in use, and the overlap is not reached by that route"
			if s.v.route(c.route).Protocol == ProtocolCulvert {
				fate = "one connection of the two has them: quit the other and connect it again"
			}
			out = append(out, fmt.Sprintf("%s %s overlaps the virtual addresses %s (%s); %s", c.named, s.v.where(c), x.prefix, x.reason, fate))
		}
	}
	return out
}

// asksForVirtual reports whether any setting asks for virtual addresses.
func (s *sweep) asksForVirtual() bool {
	return s.onConflict == ResolveVirtualize || slices.ContainsFunc(s.rules, func(r RoutingRule) bool {
		return r.Resolve == ResolveVirtualize || r.Resolve == ResolveVia
	})
}
