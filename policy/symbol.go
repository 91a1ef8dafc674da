package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Symbol stands for subnets of the cluster that a setting means without naming them: they are looked
// up when a plan is made, so that it follows the cluster.
type Symbol string

// Symbols.
const (
	SymbolService Symbol = "service"
	SymbolPods    Symbol = "pods"
	SymbolAlso    Symbol = "also"
	SymbolAll     Symbol = "all"
)

var symbols = []string{string(SymbolService), string(SymbolPods), string(SymbolAlso), string(SymbolAll)}

// means reports whether the symbol stands for subnets of a kind.
func (s Symbol) means(kind SubnetKind) bool {
	switch s {
	case SymbolAll:
		return true
	case SymbolService:
		return kind == KindServices
	case SymbolPods:
		return kind == KindPods
	case SymbolAlso:
		return kind == KindAlso
	}
	return false
}

// prefixOrSymbol reads what names a part of the cluster.
func prefixOrSymbol(s string) (string, error) {
	if slices.Contains(symbols, s) {
		return s, nil
	}
	if s != "" && !strings.ContainsAny(s, ".:/") {
		hint := ""
		if word := suggest(s, symbols); word != "" {
			hint = fmt.Sprintf("did you mean %s? ", word)
		}
		return "", fmt.Errorf("%q is neither a prefix nor one of the symbols %s; %swrite 10.128.0.0/9, for example", s, strings.Join(symbols, ", "), hint)
	}
	return anyPrefix(s)
}

// routingRule makes a rule of a prefix or symbol that prefixOrSymbol has accepted.
func routingRule(subnet string, resolve Resolve, origin Origin) RoutingRule {
	if slices.Contains(symbols, subnet) {
		return RoutingRule{Symbol: Symbol(subnet), Resolve: resolve, Origin: origin}
	}
	return RoutingRule{Prefix: netip.MustParsePrefix(subnet), Resolve: resolve, Origin: origin}
}

// expanded returns the rules with a rule per wanted subnet in place of those with a symbol, settled and
// sorted.
func expanded(rules []RoutingRule, wanted []want) []RoutingRule {
	out := make([]RoutingRule, 0, len(rules))
	for _, r := range rules {
		if r.Symbol == "" {
			out = append(out, r)
		}
		for _, w := range wanted {
			if r.Symbol.means(w.kind) {
				x := r
				x.Prefix = w.prefix
				out = append(out, x)
			}
		}
	}
	out = settle(withoutForbidden(out), func(r RoutingRule) string { return r.Prefix.String() })
	slices.SortFunc(out, compareRules)
	return out
}

// withoutForbidden drops what other sources allow inside a prefix that the team enforces to be yielded,
// however specific it is.
func withoutForbidden(rules []RoutingRule) []RoutingRule {
	var yielded []netip.Prefix
	for _, r := range rules {
		if r.Enforced && r.Resolve == ResolveYield {
			yielded = append(yielded, r.Prefix)
		}
	}
	return slices.DeleteFunc(rules, func(r RoutingRule) bool {
		return r.Resolve == ResolveAllow && r.Origin.Source != SourcePolicy &&
			slices.ContainsFunc(yielded, func(p netip.Prefix) bool { return covers(p, r.Prefix) })
	})
}

// precedence lists the sources, the highest first.
var precedence = []Source{SourceFlag, SourceEnvironment, SourceFile, SourceUserFile, SourceKubeconfig, SourcePolicy, SourceDefault}

// settle drops those rules that a weightier one on the same subnet contradicts: allow against yield. What
// is enforced counts most, then the source of higher precedence, then what names the prefix before what a
// symbol means, then the yield.
func settle(rules []RoutingRule, subnet func(RoutingRule) string) []RoutingRule {
	decides := func(r RoutingRule) bool { return r.Resolve == ResolveAllow || r.Resolve == ResolveYield }
	best := map[string]RoutingRule{}
	for _, r := range rules {
		if b, said := best[subnet(r)]; decides(r) && (!said || compareWeight(r, b) < 0) {
			best[subnet(r)] = r
		}
	}
	return slices.DeleteFunc(rules, func(r RoutingRule) bool {
		return decides(r) && r.Resolve != best[subnet(r)].Resolve
	})
}

// compareWeight orders rules on one subnet, the one that counts first.
func compareWeight(a, b RoutingRule) int {
	return cmp.Or(
		first(a.Enforced, b.Enforced),
		cmp.Compare(slices.Index(precedence, a.Origin.Source), slices.Index(precedence, b.Origin.Source)),
		first(a.Symbol == "", b.Symbol == ""),
		first(a.Resolve == ResolveYield, b.Resolve == ResolveYield),
	)
}

// first orders what is true before what is not.
func first(a, b bool) int {
	switch {
	case a && !b:
		return -1
	case b && !a:
		return 1
	}
	return 0
}
