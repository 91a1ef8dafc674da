package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
)

// randomHost makes inputs in a small part of the address space, so that everything meets everything.
type randomHost struct {
	r      *rand.Rand
	family Family
}

func (h randomHost) chance(oneIn int) bool { return h.r.IntN(oneIn) == 0 }

// randomVirtual is what twins on random hosts are made of.
var randomVirtual = Virtual{V4: netip.MustParsePrefix("246.0.0.0/8"), V6: netip.MustParsePrefix("fd46::/44")}

// prefix returns one of few prefixes of 10.128.0.0/9 or fd00::/16: lengths and bits are chosen so that
// nesting, equality and neighbourhood are all likely. Some lie where twins do.
func (h randomHost) prefix() netip.Prefix {
	p := h.plainPrefix()
	switch {
	case !h.chance(8):
	case p.Addr().Is4():
		b := p.Addr().As4()
		b[0] = 246
		p = netip.PrefixFrom(netip.AddrFrom4(b), p.Bits())
	case p.Bits() >= 48:
		b := p.Addr().As16()
		b[1], b[3] = 0x46, 0
		p = netip.PrefixFrom(netip.AddrFrom16(b), p.Bits())
	}
	return p
}

func (h randomHost) plainPrefix() netip.Prefix {
	if h.family == IPv4 {
		lengths := []int{9, 12, 14, 16, 16, 17, 24, 26, 31, 32}
		a := netip.AddrFrom4([4]byte{10, byte(128 + 2*h.r.IntN(3)), byte(64 * h.r.IntN(4)), byte(h.r.IntN(4))})
		p, _ := a.Prefix(lengths[h.r.IntN(len(lengths))])
		return p
	}
	lengths := []int{16, 32, 48, 64, 112, 127, 128}
	var b [16]byte
	b[0], b[1], b[3], b[5], b[15] = 0xfd, 0x10, byte(h.r.IntN(2)), byte(h.r.IntN(2)), byte(h.r.IntN(4))
	p, _ := netip.AddrFrom16(b).Prefix(lengths[h.r.IntN(len(lengths))])
	return p
}

// randomWorkloads are what addresses are reached by on random hosts.
var randomWorkloads = []string{"", WorkloadGateway, "echo", "shop/deployment/web"}

// via returns a rule of a proxyVia; two of them may have addresses in common, which settings refuse.
func (h randomHost) via() RoutingRule {
	r := RoutingRule{Prefix: h.prefix(), Resolve: ResolveVia, Via: randomWorkloads[h.r.IntN(len(randomWorkloads))]}
	switch {
	case h.chance(8):
		r.Prefix = loopbacks[slices.IndexFunc(loopbacks, func(p netip.Prefix) bool { return familyOf(p.Addr()) == h.family })]
	case h.chance(8) && h.family == IPv4:
		r.Prefix = netip.MustParsePrefix("127.64.0.0/10")
	}
	return r
}

func (h randomHost) addr() netip.Addr { return h.prefix().Addr() }

func (h randomHost) prefixes(most int) []netip.Prefix {
	var out []netip.Prefix
	for range h.r.IntN(most + 1) {
		out = append(out, h.prefix())
	}
	return out
}

var randomTables = []uint32{TableMain, TableMain, 51, 52, 77}

func (h randomHost) route() Route {
	r := Route{Prefix: h.prefix(), Table: randomTables[h.r.IntN(len(randomTables))], Type: Unicast, Protocol: 3, Metric: uint32(h.r.IntN(3))}
	r.NextHops = []NextHop{{Link: 1 + h.r.IntN(3)}}
	switch h.r.IntN(12) {
	case 0:
		r.Type, r.NextHops = Blackhole, nil
	case 1, 2:
		r.Type, r.NextHops = Throw, nil
	case 3:
		r.Protocol = ProtocolKernel
	case 4:
		r.NextHops[0].Addr = h.addr()
	case 5:
		r.TOS = 0x10
	}
	return r
}

func (h randomHost) defaults() []Route {
	all := all4
	halves := []string{"0.0.0.0/1", "128.0.0.0/1"}
	if h.family == IPv6 {
		all, halves = all6, []string{"::/1", "8000::/1"}
	}
	hop := NextHop{Addr: h.addr(), Link: 1 + h.r.IntN(3)}
	table := randomTables[h.r.IntN(len(randomTables))]
	out := []Route{{Prefix: all, Table: table, Type: Unicast, NextHops: []NextHop{hop}}}
	if h.chance(2) {
		return out
	}
	for _, p := range halves {
		out = append(out, Route{Prefix: netip.MustParsePrefix(p), Table: table, Type: Unicast, NextHops: []NextHop{hop}})
	}
	return out
}

// ipsec returns a policy; its source is often one that some packets have and others have not.
func (h randomHost) ipsec() IPsecPolicy {
	p := IPsecPolicy{Src: all4, Dst: h.prefix(), Action: IPsecProtect, Priority: uint32(h.r.IntN(4))}
	if h.family == IPv6 {
		p.Src = all6
	}
	switch h.r.IntN(10) {
	case 0, 1, 2, 3:
		p.Action = IPsecBypass
	case 4:
		p.Action = IPsecDiscard
	case 5:
		p.Peer = h.addr()
	case 6:
		p.Dst = p.Src
	}
	switch h.r.IntN(10) {
	case 0, 1:
		p.Src = h.prefix()
	case 2:
		p.Mark = Mark{0xca6c, ^uint32(0)}
	case 3:
		p.IfID = 42
	case 4:
		p.Link = 1 + h.r.IntN(3)
	case 5:
		p.Partial = true
	}
	return p
}

// randomVRF and its member eth1 are on every third host.
var randomVRF = Link{Index: 4, Name: "red", Kind: "vrf", VRFTable: 88}

func (h randomHost) addVRF(f *Facts) {
	f.Links = append(f.Links, randomVRF, Link{Index: 5, Name: "eth1", Master: randomVRF.Index, Addresses: []netip.Prefix{netip.PrefixFrom(h.addr(), 24)}})
	f.Rules = append(f.Rules, Rule{Family: h.family, Priority: 1000, L3MDev: true})
	r := h.route()
	r.Table = randomVRF.VRFTable
	f.Routes = append(f.Routes, r)
	if h.chance(4) {
		f.Rules = append(f.Rules, Rule{Family: h.family, Priority: 1001, Table: randomVRF.VRFTable})
	}
}

func (h randomHost) rule() Rule {
	r := Rule{Family: h.family, Priority: uint32(2 + h.r.IntN(40)), Table: randomTables[h.r.IntN(len(randomTables))]}
	if h.chance(2) {
		r.Priority = uint32(32740 + h.r.IntN(26))
	}
	if h.chance(5) {
		r.Mark = Mark{0xca6c, ^uint32(0)}
		r.Invert = h.chance(2)
	}
	if h.chance(4) {
		r.Dst = h.prefix()
	}
	if h.chance(6) {
		r.UIDs = &UIDRange{1000, 1000}
	}
	if h.chance(6) {
		r.MinPrefixLen = 1 + h.r.IntN(20)
	}
	switch h.r.IntN(16) {
	case 0:
		r.IIF = "lo"
	case 1:
		r.OIF = "eth0"
	case 2:
		r.Src = h.prefix()
	case 3:
		r.Partial = true
	case 4:
		r = Rule{Family: h.family, Priority: r.Priority, Action: ActionGoto, Goto: r.Priority + 1 + uint32(h.r.IntN(20))}
	case 5:
		r = Rule{Family: h.family, Priority: r.Priority, Action: ActionProhibit, Dst: h.prefix()}
	}
	return r
}

func (h randomHost) facts() Facts {
	f := Facts{Rules: DefaultRules(), Links: []Link{
		{Index: 1, Name: "eth0"},
		{Index: 2, Name: "tun0", Kind: "tun", PointToPoint: true},
		{Index: 3, Name: "wg0", Kind: "wireguard"},
	}}
	for i := range f.Links {
		if h.chance(3) {
			f.Links[i].Addresses = []netip.Prefix{netip.PrefixFrom(h.addr(), 24)}
		}
	}
	for range h.r.IntN(12) {
		f.Routes = append(f.Routes, h.route())
	}
	if !h.chance(4) {
		f.Routes = append(f.Routes, h.defaults()...)
	}
	for range h.r.IntN(5) {
		f.Rules = append(f.Rules, h.rule())
	}
	if h.chance(2) {
		for range h.r.IntN(5) {
			f.IPsec = append(f.IPsec, h.ipsec())
		}
	}
	if h.chance(3) {
		h.addVRF(&f)
	}
	return f
}

func (h randomHost) input() Input {
	in := Input{Facts: h.facts(), Own: Own{Interface: "culvert0", Table: 7830}}
	for _, p := range h.prefixes(2) {
		in.Cluster.Services = append(in.Cluster.Services, Subnet{Prefix: p})
	}
	for _, p := range h.prefixes(3) {
		in.Cluster.Pods = append(in.Cluster.Pods, Subnet{Prefix: p})
	}
	for _, rule := range []struct {
		resolve Resolve
		most    int
	}{{ResolveAllow, 3}, {ResolveAlso, 2}, {ResolveNever, 2}, {ResolveYield, 2}, {ResolveVirtualize, h.r.IntN(3)}} {
		for _, p := range h.prefixes(rule.most) {
			in.Settings.Routing = append(in.Settings.Routing, RoutingRule{Prefix: p, Resolve: rule.resolve, Origin: Origin{SourceFlag, Position{Name: "--" + string(rule.resolve)}}})
		}
	}
	for range h.r.IntN(1 + h.r.IntN(4)) {
		in.Settings.Routing = append(in.Settings.Routing, h.via())
	}
	switch h.r.IntN(5) {
	case 0:
		in.Settings.OnConflict = ResolveYield
	case 1, 2:
		in.Settings.OnConflict = ResolveVirtualize
	}
	if h.chance(4) {
		in.Virtual = Virtual{}
	} else {
		in.Virtual = randomVirtual
		if h.chance(2) { // twins that were there before what the host routes now
			bare := in
			bare.Facts = Facts{}
			in.Virtual = in.Virtual.Keep(NewPlan(bare).Undivided)
		}
	}
	for range h.r.IntN(3) {
		in.Protected = append(in.Protected, ProtectAddr(h.addr(), "API server"))
	}
	if h.chance(2) {
		in.Overlay = []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31")}
	}
	return in
}
