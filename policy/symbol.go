package policy

import (
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

// expanded returns the rules with a rule per wanted subnet in place of those with a symbol, sorted. A
// rule for a prefix counts before one that a symbol makes of the same prefix.
func expanded(rules []RoutingRule, wanted []want) []RoutingRule {
	out := make([]RoutingRule, 0, len(rules))
	named := map[netip.Prefix]bool{}
	for _, r := range rules {
		if r.Symbol == "" {
			out = append(out, r)
			named[r.Prefix] = named[r.Prefix] || r.Resolve == ResolveAllow || r.Resolve == ResolveYield
		}
	}
	for _, r := range rules {
		for _, w := range wanted {
			if r.Symbol.means(w.kind) && !named[w.prefix] {
				x := r
				x.Prefix = w.prefix
				out = append(out, x)
			}
		}
	}
	slices.SortFunc(out, compareRules)
	return out
}
