package egress

import (
	"net/netip"
	"slices"
)

// CompileAgent makes the Set of an agent for a node whose twins stand for reals. All of reals is permitted, the
// pod's own addresses too, as those who speak through an agent speak as its pod; loopback is where a prefix lies
// within it, not where one merely covers it. The rest of what is never dialled stays closed, whatever reals say.
func CompileAgent(reals []netip.Prefix) *Set {
	in := Input{Pods: reals}
	for _, p := range reals {
		if isLoopback(p) {
			in.Allow = append(in.Allow, p)
		}
	}
	return Compile(in)
}

// NeverOfAgent returns why an agent dials no address of p, or "" if it may dial some.
func NeverOfAgent(p netip.Prefix) string {
	if isLoopback(p) {
		return ""
	}
	covering := slices.DeleteFunc(slices.Clone(wellKnown), func(f forbidden) bool { return f.prefix.Bits() > p.Bits() })
	return narrowest(covering, p.Addr())
}

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8") // RFC 1122
	loopback6 = netip.MustParsePrefix("::1/128")     // RFC 4291
)

// isLoopback reports whether p lies within loopback.
func isLoopback(p netip.Prefix) bool {
	return loopback4.Bits() <= p.Bits() && loopback4.Contains(p.Addr()) || p == loopback6
}
