package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// kernel looks routes up as Linux does, slowly and obviously: rules in order, longest prefix, lowest
// metric.
type kernel struct {
	rules  []Rule
	routes []Route
}

// packet is what a rule can tell packets of this host's programs apart by.
type packet struct {
	dst     netip.Addr
	uid     uint32
	special bool // whether a rule's further selectors (ports, protocol) match
}

// ordinaryPackets are all kinds of packets to dst that the test hosts' rules could tell apart.
func ordinaryPackets(dst netip.Addr) []packet {
	return []packet{{dst, 1000, false}, {dst, 1000, true}, {dst, 2000, false}, {dst, 2000, true}}
}

func newKernel(f Facts) kernel {
	k := kernel{slices.Clone(f.Rules), f.Routes}
	slices.SortStableFunc(k.rules, func(a, b Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	return k
}

// matches reports whether a rule catches a packet without a mark, interface or source address.
func matches(r Rule, p packet) bool {
	match := (0^r.Mark.Value)&r.Mark.Mask == 0 &&
		(r.IIF == "" || r.IIF == "lo") && r.OIF == "" &&
		(!r.Src.IsValid() || r.Src.Bits() == 0) &&
		(!r.Dst.IsValid() || r.Dst.Contains(p.dst)) &&
		(r.UIDs == nil || r.UIDs.First <= p.uid && p.uid <= r.UIDs.Last) &&
		(!r.Partial || p.special)
	return match != r.Invert && r.Family == familyOf(p.dst)
}

// visit walks the rules that catch p, until stop says so.
func (k kernel) visit(p packet, stop func(Rule) bool) {
	for i := 0; i < len(k.rules); i++ {
		r := k.rules[i]
		if !matches(r, p) || r.Action == ActionNop || r.L3MDev {
			continue
		}
		if r.Action == ActionGoto {
			for i+1 < len(k.rules) && k.rules[i+1].Priority < r.Goto {
				i++
			}
			continue
		}
		if stop(r) {
			return
		}
	}
}

// lookup returns the route that p takes; the zero value if there is none.
func (k kernel) lookup(p packet) Route {
	var found Route
	k.visit(p, func(r Rule) bool {
		if r.Action != "" && r.Action != ActionLookup {
			found = Route{Type: RouteType(r.Action), Prefix: r.Dst}
			return true
		}
		best, ok := k.inTable(r.Table, p.dst)
		if !ok || best.Type == Throw || best.Prefix.Bits() < r.MinPrefixLen {
			return false
		}
		found = best
		return true
	})
	return found
}

func (k kernel) inTable(table uint32, dst netip.Addr) (best Route, ok bool) {
	for _, r := range k.routes {
		if r.Table != table || r.TOS != 0 || !r.Prefix.Contains(dst) {
			continue
		}
		if !ok || r.Prefix.Bits() > best.Prefix.Bits() || r.Prefix.Bits() == best.Prefix.Bits() && r.Metric < best.Metric {
			best, ok = r, true
		}
	}
	return best, ok
}

// applied returns the facts of a host on which a plan has been carried out.
func applied(f Facts, p Plan, own Own) Facts {
	index := 1000
	f.Links = append(slices.Clone(f.Links), Link{Index: index, Name: own.Interface, Kind: "tun", PointToPoint: true})
	f.Routes, f.Rules = slices.Clone(f.Routes), slices.Clone(f.Rules)
	for _, r := range p.Routes {
		route := Route{Prefix: r.Prefix, Table: own.Table, Protocol: ProtocolCulvert, Type: Throw}
		if r.Kind == RouteTunnel {
			route.Type, route.NextHops = Unicast, []NextHop{{Link: index}}
		}
		f.Routes = append(f.Routes, route)
	}
	for family, rule := range map[Family]PlannedRule{IPv4: p.Rules.V4, IPv6: p.Rules.V6} {
		if rule.Priority > 0 {
			f.Rules = append(f.Rules, Rule{Family: family, Priority: uint32(rule.Priority), Table: own.Table, Protocol: ProtocolCulvert})
		}
	}
	return f
}
