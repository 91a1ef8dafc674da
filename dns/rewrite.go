package dns

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	wire "github.com/miekg/dns"
)

// rename gives the records of m that belong to from the name to, wherever a resolver follows names through an answer:
// as an owner and as the target of an alias. Names inside other records stay as they are; they are names of their own.
// If the names differ only in spelling that is all.
// Otherwise signatures over renamed records would be wrong, so DNSSEC records go and AD is cleared.
func rename(m *wire.Msg, from, to string) {
	falsified := !strings.EqualFold(from, to)
	if falsified {
		m.AuthenticatedData = false
	}
	for i := range m.Question {
		renameName(&m.Question[i].Name, from, to)
	}
	for _, rrs := range []*[]wire.RR{&m.Answer, &m.Ns, &m.Extra} {
		if falsified {
			*rrs = slices.DeleteFunc(*rrs, dnssec)
		}
		for _, rr := range *rrs {
			renameName(&rr.Header().Name, from, to)
			if alias, ok := rr.(*wire.CNAME); ok {
				renameName(&alias.Target, from, to)
			}
		}
	}
}

func renameName(name *string, from, to string) {
	if strings.EqualFold(*name, from) {
		*name = to
	}
}

// adoptSOA makes the SOA record of a denial stand above the name it denies, as clients that remember denials require
// (RFC 2308 section 5): under its own name it would not, once the denied name is a shorter one.
func adoptSOA(m *wire.Msg, name string) {
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == wire.TypeSOA && !wire.IsSubDomain(rr.Header().Name, name) {
			rr.Header().Name = name
		}
	}
}

func dnssec(rr wire.RR) bool {
	switch rr.Header().Rrtype {
	case wire.TypeRRSIG, wire.TypeNSEC, wire.TypeNSEC3, wire.TypeNSEC3PARAM, wire.TypeDNSKEY, wire.TypeDS:
		return true
	}
	return false
}

// rrset names one set of records.
type rrset struct {
	owner string // canonical
	rtype uint16
}

func setOf(rr wire.RR) rrset {
	return rrset{wire.CanonicalName(rr.Header().Name), rr.Header().Rrtype}
}

// addrOf returns the address in a record, an IPv4 address mapped into IPv6 as what it is. It is not valid if there is
// none.
func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// ipOf returns addr for a field of size bytes. An IPv6 address does not fit into four.
func ipOf(addr netip.Addr, size int) net.IP {
	wide := addr.As16()
	return wide[16-size:]
}

// removeAddresses takes out of m every address that bad reports; see changeAddresses. It returns the addresses taken out
// and those left, in the order of m.
func removeAddresses(m *wire.Msg, bad func(netip.Addr) bool) (removed, kept []netip.Addr) {
	changeAddresses(m, func(addr netip.Addr) netip.Addr {
		if !addr.IsValid() || bad(addr) {
			removed = append(removed, addr)
			return netip.Addr{}
		}
		kept = append(kept, addr)
		return addr
	})
	return removed, kept
}

// changeAddresses puts instead(addr) in the place of every address in m, and takes out those for which it is not valid
// or of the other family: in A and AAAA records, and in the address hints of HTTPS and SVCB records (RFC 9460 section
// 7.3). An IPv4 address mapped into IPv6 is changed as what it is. Records without an address where there must be one
// count as the zero address. Signatures over sets that changed go, and sets with other addresses than before are not to
// be remembered for longer than [VirtualTTL].
func changeAddresses(m *wire.Msg, instead func(netip.Addr) netip.Addr) {
	c := change{instead: instead}
	for _, rrs := range []*[]wire.RR{&m.Answer, &m.Ns, &m.Extra} {
		*rrs = slices.DeleteFunc(*rrs, c.record)
	}
	if len(c.sets) == 0 {
		return
	}
	m.AuthenticatedData = false
	removeSignatures(m, c.sets)
	shorten(m, c.sets)
}

// change is one run of changeAddresses.
type change struct {
	instead func(netip.Addr) netip.Addr
	sets    map[rrset]bool // that changed; true: by another address, not only by one less

	removed, replaced bool // what happened to the present record
}

// record changes the addresses of rr and reports whether rr is to go.
func (c *change) record(rr wire.RR) (gone bool) {
	c.removed, c.replaced = false, false
	switch rr := rr.(type) {
	case *wire.A:
		rr.A, gone = c.address(rr.A, 4)
	case *wire.AAAA:
		rr.AAAA, gone = c.address(rr.AAAA, 16)
	case *wire.HTTPS:
		rr.Value = c.hints(rr.Value)
	case *wire.SVCB:
		rr.Value = c.hints(rr.Value)
	}
	if c.removed || c.replaced {
		if c.sets == nil {
			c.sets = make(map[rrset]bool)
		}
		set := setOf(rr)
		c.sets[set] = c.sets[set] || c.replaced
	}
	return gone
}

// address returns what takes the place of ip in a field of size bytes, or that nothing does.
func (c *change) address(ip net.IP, size int) (out net.IP, gone bool) {
	addr := addrOf(ip)
	to := c.instead(addr)
	switch {
	case !to.IsValid() || to.BitLen() != addr.BitLen():
		c.removed = true
		return ip, true
	case to == addr:
		return ip, false
	}
	c.replaced = true
	return ipOf(to, size), false
}

// hints changes the addresses in the hints of a record. A hint without addresses goes, also from the list of mandatory
// keys: a record without a key it calls mandatory is malformed (RFC 9460 section 8).
func (c *change) hints(values []wire.SVCBKeyValue) []wire.SVCBKeyValue {
	var gone []wire.SVCBKey
	values = slices.DeleteFunc(values, func(v wire.SVCBKeyValue) bool {
		empty := false
		switch hint := v.(type) {
		case *wire.SVCBIPv4Hint:
			hint.Hint = c.addresses(hint.Hint, 4)
			empty = len(hint.Hint) == 0
		case *wire.SVCBIPv6Hint:
			hint.Hint = c.addresses(hint.Hint, 16)
			empty = len(hint.Hint) == 0
		}
		if empty {
			gone = append(gone, v.Key())
		}
		return empty
	})
	return slices.DeleteFunc(values, func(v wire.SVCBKeyValue) bool {
		mandatory, ok := v.(*wire.SVCBMandatory)
		if !ok || len(gone) == 0 {
			return false
		}
		mandatory.Code = slices.DeleteFunc(mandatory.Code, func(k wire.SVCBKey) bool { return slices.Contains(gone, k) })
		return len(mandatory.Code) == 0
	})
}

// addresses is address for those of one hint.
func (c *change) addresses(ips []net.IP, size int) []net.IP {
	kept := ips[:0]
	for _, ip := range ips {
		if out, gone := c.address(ip, size); !gone {
			kept = append(kept, out)
		}
	}
	return kept
}

// removeSignatures takes the signatures over sets out of m: they are no longer true.
func removeSignatures(m *wire.Msg, sets map[rrset]bool) {
	for _, rrs := range []*[]wire.RR{&m.Answer, &m.Ns, &m.Extra} {
		*rrs = slices.DeleteFunc(*rrs, func(rr wire.RR) bool {
			sig, ok := rr.(*wire.RRSIG)
			if !ok {
				return false
			}
			_, changed := sets[rrset{wire.CanonicalName(sig.Hdr.Name), sig.TypeCovered}]
			return changed
		})
	}
}

// shorten caps the TTLs of those sets that hold other addresses than before; those of one set are alike (RFC 2181
// section 5.2).
func shorten(m *wire.Msg, sets map[rrset]bool) {
	for _, rrs := range [][]wire.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			h := rr.Header()
			if h.Ttl > uint32(VirtualTTL/time.Second) && sets[setOf(rr)] {
				h.Ttl = uint32(VirtualTTL / time.Second)
			}
		}
	}
}

// nobodys reports whether addr can be no address of a cluster: whoever names it means the host that asks.
func nobodys(addr netip.Addr) bool {
	if addr.Is4() && addr.As4()[0] == 0 {
		return true // "this host on this network", RFC 1122 section 3.2.1.3
	}
	return !addr.IsValid() || addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() ||
		addr.IsLinkLocalUnicast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
