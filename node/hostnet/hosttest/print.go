package hosttest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// String prints the state, one line each, in a form that ip(8) and nft(8) would show: rules by
// priority and within one by age, the rest sorted.
func (s State) String() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.Links)) {
		out = append(out, s.Links[name].lines(name)...)
	}
	out = append(out, s.rules()...)
	var routes []string
	for _, r := range s.Routes {
		routes = append(routes, r.String())
	}
	slices.Sort(routes)
	out = append(out, routes...)
	for _, name := range slices.Sorted(maps.Keys(s.Filters)) {
		out = append(out, strings.TrimSpace("table inet culvert_"+name+" "+s.Filters[name]))
	}
	return strings.Join(out, "\n")
}

// lines are those of ip link, sysctl and ip address.
func (l Link) lines(name string) []string {
	state := "DOWN"
	if l.Up {
		state = "UP"
	}
	out := []string{strings.TrimSpace(fmt.Sprintf("%s: mtu %d state %s %s", name, l.MTU, state, l.Connection))}
	for _, setting := range slices.Sorted(maps.Keys(l.Settings)) {
		out = append(out, fmt.Sprintf("%s: %s = %s", name, setting, l.Settings[setting]))
	}
	var addresses []string
	for _, a := range l.Addresses {
		addresses = append(addresses, fmt.Sprintf("%s: inet %s", name, a))
	}
	slices.Sort(addresses)
	return append(out, addresses...)
}

// rules are the lines of ip rule and ip -6 rule.
func (s State) rules() []string {
	sorted := slices.Clone(s.Rules)
	slices.SortStableFunc(sorted, func(a, b Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	var out []string
	for _, r := range sorted {
		out = append(out, r.String())
	}
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(a[:len("ip -4")], b[:len("ip -4")]) })
	return out
}

// String prints the rule as ip rule shows it, with the family in front.
func (r Rule) String() string {
	family, selector := "ip -4 rule ", "from all"
	if r.IPv6 {
		family = "ip -6 rule "
	}
	if r.Not {
		selector = "not from all"
	}
	if !r.Mark.IsZero() {
		selector += " fwmark " + r.Mark.String()
	}
	return fmt.Sprintf("%s%d: %s lookup %d%s", family, r.Priority, selector, r.Table, proto(r.Protocol))
}

// String prints the route as ip route shows it.
func (r Route) String() string {
	text := r.Prefix.String()
	if r.Throw {
		text = "throw " + text
	}
	if r.Dev != "" {
		text += " dev " + r.Dev
	}
	return fmt.Sprintf("%s table %d%s", text, r.Table, proto(r.Protocol))
}

// proto is how ip(8) shows a protocol number; 0 stands for one of the usual ones.
func proto(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" proto %d", n)
}

// Ours reports whether a line of [State.String] belongs to a connection of ours.
func Ours(line string) bool {
	return strings.HasPrefix(line, "culvert") || strings.HasPrefix(line, "table inet culvert_") ||
		strings.HasSuffix(line, fmt.Sprintf(" proto %d", hostnet.Protocol))
}
