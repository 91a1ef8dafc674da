package dns

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	wire "github.com/miekg/dns"
)

// mergeAgent puts what an agent said into m, the gateway's answer to the same question, as far as it is about addresses
// that mine reports: where m names some, those give way to the agent's in the same place. Where the agent names none, or
// the same, m stays as it is, and so does all else of it. said does not change.
//
// A place is a set of A or AAAA records, or a hint of the HTTPS or SVCB records of one priority and target. In the answer
// section a set is that of its type under whatever name: both lead to it by aliases of their own, and m's stay. In the
// other sections it has the same name too, and may be anywhere in said.
//
// Signatures over sets that changed go. Their TTLs become the lowest that either gave, since those of one set are alike
// (RFC 2181 section 5.2).
func mergeAgent(m, said *wire.Msg, mine func(netip.Addr) bool) {
	g := merger{mine: mine, changed: map[rrset]bool{}, room: wire.MaxMsgSize / net.IPv4len}
	m.Answer = g.section(m.Answer, said.Answer, false)
	anywhere := slices.Concat(said.Answer, said.Ns, said.Extra)
	m.Ns = g.section(m.Ns, anywhere, true)
	m.Extra = g.section(m.Extra, anywhere, true)
	if len(g.changed) > 0 {
		m.AuthenticatedData = false
		removeSignatures(m, g.changed)
	}
}

// merger is one run of mergeAgent.
type merger struct {
	mine    func(netip.Addr) bool
	changed map[rrset]bool
	room    int // addresses that can still be put in: the agent's may stand in many places, and no message holds more
}

// place is where addresses stand: in the records of a set, or in a hint of some of its records.
type place struct {
	rrset
	priority uint16
	target   string
	key      wire.SVCBKey
}

// choice is what stands in a place: each address once, and the lowest TTL of the records.
type choice struct {
	addrs []netip.Addr
	known map[netip.Addr]bool // addrs
	ttl   uint32
}

// section returns rrs with the choices of theirs. Their names count only if named.
func (g *merger) section(rrs, theirs []wire.RR, named bool) []wire.RR {
	instead := g.instead(g.gather(rrs, true), g.gather(theirs, named), named)
	if len(instead) == 0 {
		return rrs
	}
	lowest := map[rrset]uint32{}
	for p, c := range instead {
		lowerTTL(lowest, p.rrset, c.ttl)
		g.changed[p.rrset] = true
	}
	var out []wire.RR
	placed := map[place]bool{}
	for _, rr := range rrs {
		set := setOf(rr)
		if _, ok := lowest[set]; ok {
			lowerTTL(lowest, set, rr.Header().Ttl)
		}
		out = append(out, g.record(rr, instead, placed)...)
	}
	for _, rr := range out {
		if ttl, ok := lowest[setOf(rr)]; ok {
			rr.Header().Ttl = ttl
		}
	}
	return out
}

// gather returns what mine reports of rrs, by its place. Unless named the places have no owner.
func (g *merger) gather(rrs []wire.RR, named bool) map[place]choice {
	out := map[place]choice{}
	for _, rr := range rrs {
		eachPlace(rr, func(p place, ips *[]net.IP) {
			if !named {
				p.owner = ""
			}
			for _, ip := range *ips {
				addr := addrOf(ip)
				if !g.mine(addr) {
					continue
				}
				c, seen := out[p]
				if !seen {
					c = choice{known: map[netip.Addr]bool{}, ttl: rr.Header().Ttl}
				}
				if !c.known[addr] {
					c.known[addr] = true
					c.addrs = append(c.addrs, addr)
				}
				c.ttl = min(c.ttl, rr.Header().Ttl)
				out[p] = c
			}
		})
	}
	return out
}

// instead returns the choices of theirs that take the place of others in ours.
func (g *merger) instead(ours, theirs map[place]choice, named bool) map[place]choice {
	out := map[place]choice{}
	for p, our := range ours {
		at := p
		if !named {
			at.owner = ""
		}
		if their, ok := theirs[at]; ok && !maps.Equal(our.known, their.known) {
			out[p] = their
		}
	}
	return out
}

// record returns what becomes of rr: copies of it for each address that stands in the place of the first of its set,
// nothing for the further ones. Places for which there is no room stay.
func (g *merger) record(rr wire.RR, instead map[place]choice, placed map[place]bool) []wire.RR {
	out := []wire.RR{rr}
	eachPlace(rr, func(p place, ips *[]net.IP) {
		c, ok := instead[p]
		switch {
		case !ok || p.key == 0 && !g.mine(addrOf((*ips)[0])):
			return
		case p.key == 0 && placed[p]:
			out = nil
			return
		case g.room < len(c.addrs):
			delete(instead, p)
			return
		}
		g.room -= len(c.addrs)
		if p.key != 0 {
			*ips = g.list(*ips, c.addrs)
			return
		}
		placed[p] = true
		out = nil
		for _, addr := range c.addrs {
			out = append(out, withAddress(rr, addr))
		}
	})
	return out
}

// list returns ips with addrs in the place of those that mine reports.
func (g *merger) list(ips []net.IP, addrs []netip.Addr) []net.IP {
	var out []net.IP
	placed := false
	for _, ip := range ips {
		if !g.mine(addrOf(ip)) {
			out = append(out, ip)
			continue
		}
		if placed {
			continue
		}
		placed = true
		for _, addr := range addrs {
			out = append(out, ipOf(addr, len(ip)))
		}
	}
	return out
}

// eachPlace calls f with each place in rr that holds addresses, and those in it. Of a hint, not of a record that is an
// address, f may change them.
func eachPlace(rr wire.RR, f func(place, *[]net.IP)) {
	switch rr := rr.(type) {
	case *wire.A:
		f(place{rrset: setOf(rr)}, &[]net.IP{rr.A})
	case *wire.AAAA:
		f(place{rrset: setOf(rr)}, &[]net.IP{rr.AAAA})
	case *wire.HTTPS:
		hintPlaces(setOf(rr), &rr.SVCB, f)
	case *wire.SVCB:
		hintPlaces(setOf(rr), rr, f)
	}
}

func hintPlaces(set rrset, rr *wire.SVCB, f func(place, *[]net.IP)) {
	p := place{rrset: set, priority: rr.Priority, target: wire.CanonicalName(rr.Target)}
	for _, v := range rr.Value {
		p.key = v.Key()
		switch hint := v.(type) {
		case *wire.SVCBIPv4Hint:
			f(p, &hint.Hint)
		case *wire.SVCBIPv6Hint:
			f(p, &hint.Hint)
		}
	}
}

// withAddress returns a copy of an A or AAAA record with another address.
func withAddress(rr wire.RR, addr netip.Addr) wire.RR {
	rr = wire.Copy(rr)
	switch rr := rr.(type) {
	case *wire.A:
		rr.A = ipOf(addr, net.IPv4len)
	case *wire.AAAA:
		rr.AAAA = ipOf(addr, net.IPv6len)
	}
	return rr
}

// lowerTTL makes ttl that of set, unless there is a lower one.
func lowerTTL(ttls map[rrset]uint32, set rrset, ttl uint32) {
	if known, ok := ttls[set]; !ok || ttl < known {
		ttls[set] = ttl
	}
}
