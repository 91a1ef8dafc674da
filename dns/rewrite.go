package dns

import (
	"net"
	"net/netip"
	"slices"
	"strings"

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

// removeAddresses takes out of m every address that bad reports: A and AAAA records, and the address hints of HTTPS and
// SVCB records (RFC 9460 section 7.3). Signatures over sets that lost something go with it. It returns the addresses
// taken out and those left, in the order of m.
func removeAddresses(m *wire.Msg, bad func(netip.Addr) bool) (removed, kept []netip.Addr) {
	check := func(ip []byte) bool {
		addr, ok := netip.AddrFromSlice(ip)
		addr = addr.Unmap()
		if ok && !bad(addr) {
			kept = append(kept, addr)
			return false
		}
		removed = append(removed, addr)
		return true
	}
	thinned := make(map[rrset]bool)
	for _, rrs := range []*[]wire.RR{&m.Answer, &m.Ns, &m.Extra} {
		*rrs = slices.DeleteFunc(*rrs, func(rr wire.RR) bool {
			before := len(removed)
			gone := removeFrom(rr, check)
			if len(removed) > before {
				thinned[rrset{wire.CanonicalName(rr.Header().Name), rr.Header().Rrtype}] = true
			}
			return gone
		})
	}
	if len(thinned) > 0 {
		m.AuthenticatedData = false
		removeSignatures(m, thinned)
	}
	return removed, kept
}

// removeFrom takes the addresses that bad reports out of rr, and reports whether rr is one of them itself.
func removeFrom(rr wire.RR, bad func([]byte) bool) bool {
	switch rr := rr.(type) {
	case *wire.A:
		return bad(rr.A)
	case *wire.AAAA:
		return bad(rr.AAAA)
	case *wire.HTTPS:
		rr.Value = cleanHints(rr.Value, bad)
	case *wire.SVCB:
		rr.Value = cleanHints(rr.Value, bad)
	}
	return false
}

// removeSignatures takes the signatures over sets out of m: they are no longer true.
func removeSignatures(m *wire.Msg, sets map[rrset]bool) {
	for _, rrs := range []*[]wire.RR{&m.Answer, &m.Ns, &m.Extra} {
		*rrs = slices.DeleteFunc(*rrs, func(rr wire.RR) bool {
			sig, ok := rr.(*wire.RRSIG)
			return ok && sets[rrset{wire.CanonicalName(sig.Hdr.Name), sig.TypeCovered}]
		})
	}
}

// cleanHints takes the addresses that bad reports out of the hints. A hint without addresses goes, also from the list
// of mandatory keys: a record without a key it calls mandatory is malformed (RFC 9460 section 8).
func cleanHints(values []wire.SVCBKeyValue, bad func([]byte) bool) []wire.SVCBKeyValue {
	var gone []wire.SVCBKey
	values = slices.DeleteFunc(values, func(v wire.SVCBKeyValue) bool {
		empty := false
		switch hint := v.(type) {
		case *wire.SVCBIPv4Hint:
			hint.Hint = slices.DeleteFunc(hint.Hint, func(ip net.IP) bool { return bad(ip) })
			empty = len(hint.Hint) == 0
		case *wire.SVCBIPv6Hint:
			hint.Hint = slices.DeleteFunc(hint.Hint, func(ip net.IP) bool { return bad(ip) })
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

// nobodys reports whether addr can be no address of a cluster: whoever names it means the host that asks.
func nobodys(addr netip.Addr) bool {
	if addr.Is4() && addr.As4()[0] == 0 {
		return true // "this host on this network", RFC 1122 section 3.2.1.3
	}
	return !addr.IsValid() || addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() ||
		addr.IsLinkLocalUnicast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
