package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Consent is what a cluster's Policy would do to the host beyond reaching the cluster itself, for
// the user to agree to once per cluster and content.
type Consent struct {
	// Needed is false if the Policy takes nothing now.
	Needed bool `json:"needed"`
	// Hash identifies the cluster and the content agreed to. It does not depend on the host: a VPN that
	// comes or goes changes Needed and Takes, never Hash. "" if the Policy could not take anything.
	Hash string `json:"hash,omitempty"`
	// Takes has one sentence for each thing taken: routes of other networks, prefixes, domains.
	Takes []string `json:"takes,omitempty"`
	// Text is all of it for a terminal; "" if no consent is needed.
	Text string `json:"text,omitempty"`
}

// ConsentNeeded says what the rules that came from the cluster's Policy ([SourcePolicy]) take: routes
// of other networks that only they allow to be taken, prefixes outside the cluster that only they
// send through it, and domains outside the cluster that only they ask it for. What the user's own
// settings say as well needs no consent.
func ConsentNeeded(in Input) Consent {
	rules, suffixes := policyRules(in.Settings), policySuffixes(in.Settings, in.Cluster)
	if len(rules) == 0 && len(suffixes) == 0 {
		return Consent{}
	}
	c := Consent{Hash: consentHash(in.Cluster.UID, rules, wants(in.Cluster, in.Settings), suffixes)}
	c.Takes = append(takenRoutes(in), takenPrefixes(rules, in)...)
	c.Takes = append(c.Takes, takenFromUser(in)...)
	for _, s := range suffixes {
		c.Takes = append(c.Takes, "ask the cluster for the names in "+s)
	}
	c.Needed = len(c.Takes) > 0
	if c.Needed {
		c.Text = "The Policy of this cluster reaches beyond the cluster. On this workstation it would\n  " +
			strings.Join(c.Takes, "\n  ") + "\n"
	}
	return c
}

// TakesNoMore reports whether all that the cluster's Policy says by the settings s that could take
// something, it says by old as well, each with its cluster: who agreed to old need not be asked about s.
// A part of an old prefix is no such thing: the more specific wins where the wider did not.
func TakesNoMore(s Settings, c Cluster, old Settings, before Cluster) bool {
	subset := func(new, old []string) bool {
		return !slices.ContainsFunc(new, func(line string) bool { return !slices.Contains(old, line) })
	}
	return subset(ruleLines(policyRules(s), wants(c, s)), ruleLines(policyRules(old), wants(before, old))) &&
		subset(policySuffixes(s, c), policySuffixes(old, before))
}

// ruleLines are what rules say, a line for each prefix: symbols stand for what they mean now.
func ruleLines(rules []RoutingRule, wanted []want) []string {
	var out []string
	for _, r := range rules {
		if r.Symbol == "" {
			out = append(out, string(r.Resolve)+" "+r.Prefix.String())
		}
		for _, w := range wanted {
			if r.Symbol.means(w.kind) {
				out = append(out, string(r.Resolve)+" "+string(r.Symbol)+" "+w.prefix.String())
			}
		}
	}
	return out
}

// policyRules returns the rules of the cluster's Policy that can take something from the host.
func policyRules(s Settings) []RoutingRule {
	var out []RoutingRule
	for _, r := range s.Routing {
		if r.Origin.Source == SourcePolicy && r.takes() {
			out = append(out, r)
		}
	}
	return out
}

// policySuffixes returns the domains of the cluster's Policy that are not the cluster's own.
func policySuffixes(s Settings, c Cluster) []string {
	var out []string
	for _, x := range s.DNS.IncludeSuffixes {
		if x.Origin.Source == SourcePolicy && x.Name != c.Domain && !strings.HasSuffix(x.Name, "."+c.Domain) {
			out = append(out, x.Name)
		}
	}
	slices.Sort(out)
	return out
}

// consentHash is the same for the same content, however it is ordered or written. A symbol's content is
// what it stands for: a cluster that grows is another content.
func consentHash(clusterUID string, rules []RoutingRule, wanted []want, suffixes []string) string {
	lines := append([]string{"cluster " + clusterUID}, ruleLines(rules, wanted)...)
	for _, s := range suffixes {
		lines = append(lines, "suffix "+s)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(lines), "\n")))
	return hex.EncodeToString(sum[:])
}

// takenRoutes names the routes of others that lose addresses to the cluster only because the Policy
// allows it: taken with it, and left to them without it.
func takenRoutes(in Input) []string {
	var out []string
	without := in
	without.Settings.Routing = slices.DeleteFunc(slices.Clone(in.Settings.Routing), func(r RoutingRule) bool {
		return r.Origin.Source == SourcePolicy && r.Resolve == ResolveAllow
	})
	taken := rangesOf(NewPlan(in).AllowedIPs...)
	for _, c := range NewPlan(without).Conflicts {
		for _, p := range slices.Concat(c.Open, c.Yielded, c.Virtualized) {
			for _, q := range taken.within(p) {
				out = append(out, fmt.Sprintf("take %s (%s) from %s %s", q, c.Kind, c.Claim.Prefix, c.Claim.where()))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// takenPrefixes names the also-proxied prefixes of the Policy that lie outside the cluster.
func takenPrefixes(rules []RoutingRule, in Input) []string {
	own := append(in.Cluster.prefixes(), ownAlso(in.Settings)...)
	inside := rangesOf(own...)
	var out []string
	for _, r := range rules {
		if r.Resolve == ResolveAlso && !inside.covers(r.Prefix) {
			out = append(out, fmt.Sprintf("send %s through the cluster", r.Prefix))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// takenFromUser names what the user's own settings leave alone and the Policy sends through the tunnel.
func takenFromUser(in Input) []string {
	var out []string
	without := in
	without.Settings = in.Settings.Without(SourcePolicy)
	v := newView(in.Facts, in.Own)
	s, _ := v.sweep(without, wishesOf(without))
	s.run()
	taken := rangesOf(NewPlan(in).AllowedIPs...)
	for _, p := range s.never.prefixes() {
		for _, q := range taken.within(p) {
			out = append(out, fmt.Sprintf("send %s through the cluster, which your own settings leave alone", q))
		}
	}
	return out
}

// ownAlso returns the also-proxied prefixes that do not come from the cluster's Policy.
func ownAlso(s Settings) []netip.Prefix { return s.Without(SourcePolicy).rules(ResolveAlso) }

// prefixes returns the cluster's own subnets.
func (c Cluster) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, n := range append(slices.Clone(c.Services), c.Pods...) {
		out = append(out, n.Prefix)
	}
	return out
}
