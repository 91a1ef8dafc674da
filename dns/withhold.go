package dns

import (
	"cmp"
	"fmt"
	"net/netip"
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

// newWithheldMap returns the map of the prefixes that are valid; of equal ones the first counts.
func newWithheldMap(prefixes []Withheld) prefixMap[Withheld] {
	normal := make([]Withheld, 0, len(prefixes))
	for _, p := range prefixes {
		normal = append(normal, Withheld{p.Prefix.Masked(), cmp.Or(p.Owner, "another network")})
	}
	return newPrefixMap(normal, func(w Withheld) netip.Prefix { return w.Prefix })
}

// explain says for people who keeps addr, and where to read more.
func (w Withheld) explain(addr netip.Addr, q *query) string {
	kept := fmt.Sprintf("%s is left to %s", addr, w.Owner)
	if name, err := q.name(); err == nil && plain(name) {
		text := fmt.Sprintf("%s; see `culvert why %s`", kept, strings.TrimSuffix(name, "."))
		if clip(text) == text {
			return text
		}
	}
	return clip(fmt.Sprintf("%s; see `culvert why %s`", kept, addr))
}

// plain reports whether name means only itself in a command that people copy.
func plain(name string) bool {
	return !strings.HasPrefix(name, "-") && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}
