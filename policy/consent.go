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
	c := Consent{Hash: consentHash(in.Cluster.UID, rules, suffixes)}
	c.Takes = append(takenRoutes(in), takenPrefixes(rules, in)...)
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

// TakesNoMore reports whether all that the cluster's Policy could take by the settings s, it could take
// by old as well, on whatever host: who agreed to old need not be asked about s.
func TakesNoMore(s, old Settings, c Cluster) bool {
	before := policyRules(old)
	for _, r := range policyRules(s) {
		inside := func(b RoutingRule) bool { return b.Resolve == r.Resolve && insideSubnet(r.subnet(), b.subnet()) }
		if !slices.ContainsFunc(before, inside) {
			return false
		}
	}
	suffixes := policySuffixes(old, c)
	for _, x := range policySuffixes(s, c) {
		inside := func(o string) bool { return x == o || strings.HasSuffix(x, "."+o) }
		if !slices.ContainsFunc(suffixes, inside) {
			return false
		}
	}
	return true
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

// consentHash is the same for the same content, however it is ordered or written.
func consentHash(clusterUID string, rules []RoutingRule, suffixes []string) string {
	lines := []string{"cluster " + clusterUID}
	for _, r := range rules {
		lines = append(lines, string(r.Resolve)+" "+r.subnet())
	}
	for _, s := range suffixes {
		lines = append(lines, "suffix "+s)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(lines), "\n")))
	return hex.EncodeToString(sum[:])
}

// takenRoutes names the routes of others that lose addresses to the cluster only because the Policy
// allows it: taken with it, open or yielded without it.
func takenRoutes(in Input) []string {
	var out []string
	without := in
	without.Settings.Routing = slices.DeleteFunc(slices.Clone(in.Settings.Routing), func(r RoutingRule) bool {
		return r.Origin.Source == SourcePolicy && r.Resolve == ResolveAllow
	})
	taken := rangesOf(NewPlan(in).AllowedIPs...)
	for _, c := range NewPlan(without).Conflicts {
		for _, p := range slices.Concat(c.Open, c.Yielded) {
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
