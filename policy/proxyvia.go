package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// WorkloadGateway is the gateway as the workload of a [ResolveVia].
const WorkloadGateway = "gateway"

// acceptWorkloads says whether proxyVia takes workloads beside the gateway. The CRD and the chart's schema
// say the same in their own way.
const acceptWorkloads = false

// workloads are what is offered where proxyVia is typed.
var workloads = []string{WorkloadGateway}

// proxyVia reads one entry of proxyVia as a flag gives it: SUBNET=WORKLOAD.
func proxyVia(s string) (string, error) { return readVia(s, acceptWorkloads) }

// readVia is proxyVia, where only the gateway counts as a workload unless others are accepted.
func readVia(s string, accept bool) (string, error) {
	subnet, text, _ := strings.Cut(s, "=")
	subnet, text = strings.TrimSpace(subnet), strings.TrimSpace(text)
	if text == "" {
		return "", fmt.Errorf("%q names no workload; write SUBNET=WORKLOAD, such as all=%s", s, WorkloadGateway)
	}
	w, err := ParseWorkload(text)
	if !accept && !w.IsGateway() {
		return "", fmt.Errorf("%q is not a workload that can be used; use %s", text, strings.Join(workloads, ", "))
	}
	if err != nil {
		return "", err
	}
	normal, err := symbolOr(func(s string) (string, error) { return viaPrefix(s, w, accept) })(subnet)
	if err != nil {
		return "", err
	}
	return normal + "=" + w.String(), nil
}

// viaPrefix reads a prefix that w is to reach: one that can be routed, or a pod's loopback. accept says
// whether there are workloads that have one.
func viaPrefix(s string, w Workload, accept bool) (string, error) {
	p, err := ParsePrefix(s)
	switch {
	case err != nil || !isLoopback(p):
		return routedPrefix(s)
	case !w.IsGateway():
		return p.String(), nil
	case accept:
		return "", fmt.Errorf("%q is loopback, and %s; name the workload whose it is, such as %s=echo", s, noLoopback, s)
	}
	return "", fmt.Errorf("%q is loopback, and %s", s, noLoopback)
}

// viaParts are the two sides of SUBNET=WORKLOAD.
func viaParts(v *v1alpha1.ProxyVia) (subnet, workload *string) { return &v.Subnet, &v.Workload }

// viaRule makes a rule of an entry of proxyVia in normal form, without "+".
func viaRule(text string, origin Origin) RoutingRule {
	subnet, workload, _ := strings.Cut(text, "=")
	r := routingRule(subnet, ResolveVia, origin)
	r.Via = workload
	return r
}

// viaText is the entry that a rule was made of.
func (r RoutingRule) viaText() string { return r.subnet() + "=" + r.Via }

// CheckProxyVia reports entries of proxyVia that have addresses in common, now that the cluster says what
// symbols stand for: an address is reached by one workload only. Each problem is a [*SettingError] that
// names both entries and where they were written. What needs no cluster to be known, [Merge] has refused.
func CheckProxyVia(s Settings, c Cluster) error { return checkVia(s, wants(c, s)) }

// checkVia is CheckProxyVia with what symbols stand for.
func checkVia(s Settings, wanted []want) error {
	var via []RoutingRule
	for _, r := range s.Routing {
		if r.Resolve == ResolveVia {
			via = append(via, r)
		}
	}
	slices.SortStableFunc(via, func(a, b RoutingRule) int { // who counts less is told to go
		return cmp.Compare(slices.Index(precedence, a.Origin.Source), slices.Index(precedence, b.Origin.Source))
	})
	var problems []error
	for _, x := range viaClashes(via, wanted) {
		problems = append(problems, &SettingError{via[x.second].Origin.Position, keyProxyVia, x.problem(via)})
	}
	return errors.Join(problems...)
}

// viaClash is two rules, by index, that speak of one address.
type viaClash struct {
	first, second int // first is less
	// prefix is what they have in common; not valid if no cluster is needed to know that they do.
	prefix netip.Prefix
}

// problem says what is wrong with the second rule.
func (c viaClash) problem(rules []RoutingRule) string {
	a, b := rules[c.first], rules[c.second]
	verb, place, where := "overlaps", "", ""
	if a.viaText() == b.viaText() {
		verb = "repeats"
	}
	if at := a.Origin.Position.String(); at != "" {
		place = " (" + at + ")"
	}
	if a.Symbol != b.Symbol && c.prefix.IsValid() {
		where = " in " + c.prefix.String()
	}
	return fmt.Sprintf("%s %s %s%s%s; an address can be reached in one way only, so leave one of them out", b.viaText(), verb, a.viaText(), place, where)
}

// viaClashes returns the rules that have addresses in common with one before, each once, sorted by second.
// Symbols stand for what is wanted; that two of them mean the same is known without.
func viaClashes(rules []RoutingRule, wanted []want) []viaClash {
	found := map[int]viaClash{}
	note := func(a, b int, p netip.Prefix) {
		first, second := min(a, b), max(a, b)
		if old, again := found[second]; first != second && (!again || first < old.first) {
			found[second] = viaClash{first, second, p}
		}
	}
	clashingSymbols(rules, func(a, b int) { note(a, b, netip.Prefix{}) })
	parts := reached(rules, wanted)
	owner := map[netip.Prefix]int{}
	for _, part := range parts {
		if rule, taken := owner[part.prefix]; taken {
			note(rule, part.rule, part.prefix)
			continue
		}
		owner[part.prefix] = part.rule
	}
	for _, part := range parts {
		for bits := part.prefix.Bits() - 1; bits >= 0; bits-- {
			if rule, taken := owner[netip.PrefixFrom(part.prefix.Addr(), bits).Masked()]; taken {
				note(rule, part.rule, part.prefix)
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b viaClash) int { return a.second - b.second })
}

// clashingSymbols calls note for pairs of rules whose symbols mean the same, or one the other as well.
func clashingSymbols(rules []RoutingRule, note func(a, b int)) {
	seen := map[Symbol]int{}
	for i, r := range rules {
		if r.Symbol == "" {
			continue
		}
		for symbol, before := range seen {
			if symbol == r.Symbol || symbol == SymbolAll || r.Symbol == SymbolAll {
				note(before, i)
			}
		}
		if _, again := seen[r.Symbol]; !again {
			seen[r.Symbol] = i
		}
	}
}

// reach is a prefix that a rule, by index, speaks of.
type reach struct {
	prefix netip.Prefix
	rule   int
}

// reached returns the prefixes that rules speak of, symbols looked up in what is wanted.
func reached(rules []RoutingRule, wanted []want) []reach {
	var out []reach
	for i, r := range rules {
		if r.Symbol == "" {
			out = append(out, reach{r.Prefix, i})
		}
		for _, w := range wanted {
			if r.Symbol.means(w.kind) {
				out = append(out, reach{w.prefix, i})
			}
		}
	}
	return out
}
