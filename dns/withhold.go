package dns

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	wire "github.com/miekg/dns"
)

// Withheld is a prefix of the cluster's that is left to somebody else on this host. Packets to its addresses would go
// to an unrelated network, so the cluster's answers lose them: see [Config.Withheld].
type Withheld struct {
	Prefix netip.Prefix
	// Owner is who keeps the prefix, for people, as it reads after "is left to": "OpenVPN on tun0". "" is taken for
	// another network.
	Owner string
}

// codeWithheld tells clients why an address is missing. RFC 8914 section 4.18 has Filtered for what the client's side
// asked to have filtered, and that is what yielding is: a setting of this host, or one its user agreed to. Blocked
// (section 4.16) would be the resolver's own judgement, as it is of [AddressBlocked]; Prohibited (section 4.19) is
// about who asks, Network Error and No Reachable Authority about servers that could not be asked.
const codeWithheld = wire.ExtendedErrorCodeFiltered

// withheldSet finds the most specific prefix an address lies in. The zero value holds none.
//
// Prefixes are nested or disjoint. The last one that begins at or before an address, the longer of equal beginnings
// counting as the later, either contains the address or lies beside it in the narrowest prefix that does.
type withheldSet struct {
	prefixes []Withheld // by beginning, shorter prefixes first
	around   []int      // by prefix, the narrowest that contains it; -1 for none
}

// newWithheldSet returns the set of the prefixes that are valid; of equal ones the first counts.
func newWithheldSet(prefixes []Withheld) withheldSet {
	var s withheldSet
	for _, p := range prefixes {
		if p.Prefix.IsValid() && !p.Prefix.Addr().Is4In6() {
			s.prefixes = append(s.prefixes, Withheld{p.Prefix.Masked(), cmp.Or(p.Owner, "another network")})
		}
	}
	slices.SortStableFunc(s.prefixes, func(a, b Withheld) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	s.prefixes = slices.CompactFunc(s.prefixes, func(a, b Withheld) bool { return a.Prefix == b.Prefix })
	for i, p := range s.prefixes {
		s.around = append(s.around, s.narrowest(i-1, p.Prefix.Addr()))
	}
	return s
}

// narrowest returns the narrowest prefix with addr among the i-th and those around it, or -1.
func (s *withheldSet) narrowest(i int, addr netip.Addr) int {
	for i >= 0 && !s.prefixes[i].Prefix.Contains(addr) {
		i = s.around[i]
	}
	return i
}

// find returns the most specific prefix that holds addr.
func (s *withheldSet) find(addr netip.Addr) (Withheld, bool) {
	after, _ := slices.BinarySearchFunc(s.prefixes, addr, func(p Withheld, addr netip.Addr) int {
		if p.Prefix.Addr().Compare(addr) <= 0 {
			return -1
		}
		return 1
	})
	i := s.narrowest(after-1, addr)
	if i < 0 {
		return Withheld{}, false
	}
	return s.prefixes[i], true
}

// contains reports whether addr is withheld.
func (s *withheldSet) contains(addr netip.Addr) bool {
	_, ok := s.find(addr)
	return ok
}

// filter returns what the client that asked q is told of a: a itself unless an address in it is withheld. It allocates
// only then.
func (s *withheldSet) filter(q *query, a *answer) *answer {
	if len(s.prefixes) == 0 || !slices.ContainsFunc(a.addrs, s.contains) {
		return a
	}
	thin, err := s.thin(q, a)
	if err != nil {
		// Not even an answer that cannot be taken apart gives a withheld address away.
		thin = failure(wire.RcodeServerFailure, codeWithheld, clip(err.Error()))
	}
	thin.source = a.source
	return thin
}

// thin returns a without its withheld addresses. If they were all there was of what q asks for, that is a failure: the
// name exists, so it must not be denied.
func (s *withheldSet) thin(q *query, a *answer) (*answer, error) {
	m := new(wire.Msg)
	if err := m.Unpack(appendRecords(nil, q, a)); err != nil {
		return nil, fmt.Errorf("withhold addresses: %w", err)
	}
	before := answers(m, q.qtype)
	removed, kept := removeAddresses(m, s.contains)
	text := s.explain(removed, q)
	if before && !answers(m, q.qtype) {
		return failure(wire.RcodeServerFailure, codeWithheld, text), nil
	}
	m.Compress = true
	msg, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("withhold addresses: %w", err)
	}
	thin, err := parseAnswer(msg, q.end, lifetimes{}, a.born)
	if err != nil {
		return nil, fmt.Errorf("withhold addresses: %w", err)
	}
	thin.addrs = kept
	thin.opt, thin.ownOPT = appendOPT(nil, 0, 0, ""), true
	if a.ownOPT {
		thin.opt = slices.Clone(a.opt) // may say that something else was taken out
	}
	thin.opt = appendExtendedError(thin.opt, 0, codeWithheld, text)
	return thin, nil
}

// answers reports whether the answer section of m holds what a question of qtype is about, beyond the aliases that
// lead there.
func answers(m *wire.Msg, qtype uint16) bool {
	return slices.ContainsFunc(m.Answer, func(rr wire.RR) bool {
		rtype := rr.Header().Rrtype
		return rtype == qtype || qtype == wire.TypeANY && rtype != wire.TypeCNAME && !dnssec(rr)
	})
}

// explain says for people who keeps the first of the addresses, and where to read more.
func (s *withheldSet) explain(removed []netip.Addr, q *query) string {
	if len(removed) == 0 {
		return "withheld"
	}
	p, _ := s.find(removed[0])
	kept := fmt.Sprintf("%s is left to %s", removed[0], p.Owner)
	if name, err := q.name(); err == nil && plain(name) {
		text := fmt.Sprintf("%s; see `culvert why %s`", kept, strings.TrimSuffix(name, "."))
		if clip(text) == text {
			return text
		}
	}
	return clip(fmt.Sprintf("%s; see `culvert why %s`", kept, removed[0]))
}

// plain reports whether name means only itself in a command that people copy.
func plain(name string) bool {
	return !strings.HasPrefix(name, "-") && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}
