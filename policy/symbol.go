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

// Symbols returns all symbols as they are written. The caller owns the slice.
func Symbols() []string { return slices.Clone(symbols) }

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

// symbolOr returns a check for what names a part of the cluster: a symbol, or a prefix that prefix accepts.
func symbolOr(prefix func(string) (string, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		if slices.Contains(symbols, s) {
			return s, nil
		}
		if s != "" && !strings.ContainsAny(s, ".:/") {
			hint := ""
			if word := Suggest(s, symbols); word != "" {
				hint = fmt.Sprintf("did you mean %s? ", word)
			}
			return "", fmt.Errorf("%q is neither a prefix nor one of the symbols %s; %swrite 10.128.0.0/9, for example", s, strings.Join(symbols, ", "), hint)
		}
		return prefix(s)
	}
}

// routingRule makes a rule of a prefix or symbol that symbolOr's check has accepted.
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
			if r.Symbol.means(w.kind) && !w.hidden {
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

// withoutForbidden drops what other sources allow inside a prefix that the team enforces to be left to its
// owner, however specific it is.
func withoutForbidden(rules []RoutingRule) []RoutingRule {
	var left []netip.Prefix
	for _, r := range rules {
		if r.Enforced && r.leaves() {
			left = append(left, r.Prefix)
		}
	}
	return slices.DeleteFunc(rules, func(r RoutingRule) bool {
		return r.Resolve == ResolveAllow && r.Origin.Source != SourcePolicy &&
			slices.ContainsFunc(left, func(p netip.Prefix) bool { return covers(p, r.Prefix) })
	})
}

// precedence lists the sources, the highest first.
var precedence = []Source{SourceFlag, SourceEnvironment, SourceFile, SourceUserFile, SourceKubeconfig, SourcePolicy, SourceDefault}

// settle drops those rules that a weightier one on the same subnet contradicts: of allow, yield and
// virtualize one stands. What the team enforces to be left to its owner counts more than any allow of
// others; then counts the source of higher precedence, then what names the prefix before what a symbol
// means, then the order of caution: yield, virtualize, allow.
func settle(rules []RoutingRule, subnet func(RoutingRule) string) []RoutingRule {
	forbidden := map[string]bool{}
	for _, r := range rules {
		forbidden[subnet(r)] = forbidden[subnet(r)] || r.Enforced && r.leaves()
	}
	best := map[string]RoutingRule{}
	for _, r := range rules {
		if !r.decides() || forbidden[subnet(r)] && r.Resolve == ResolveAllow {
			continue
		}
		if b, said := best[subnet(r)]; !said || compareWeight(r, b) < 0 {
			best[subnet(r)] = r
		}
	}
	return slices.DeleteFunc(rules, func(r RoutingRule) bool {
		return r.decides() && r.Resolve != best[subnet(r)].Resolve
	})
}

// caution orders what rules on one subnet say where nothing else does.
var caution = []Resolve{ResolveYield, ResolveVirtualize, ResolveAllow}

// compareWeight orders rules on one subnet, the one that counts first.
func compareWeight(a, b RoutingRule) int {
	return cmp.Or(
		cmp.Compare(slices.Index(precedence, a.Origin.Source), slices.Index(precedence, b.Origin.Source)),
		first(a.Symbol == "", b.Symbol == ""),
		cmp.Compare(slices.Index(caution, a.Resolve), slices.Index(caution, b.Resolve)),
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
