package connection

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/policy"
)

// earlierChanged takes in which connections on this host began before this one, and the names that they
// keep. When the first ends, the next has the cluster domain.
func (s *Session) earlierChanged(earlier []helper.Earlier) {
	s.log.Info("connections that began earlier", "connections", earlier)
	s.earlier = earlier
	if s.dns != nil {
		s.dns.Set(s.dnsConfig())
	}
	if s.applied {
		s.replan(s.ctx)
	}
}

// leaveToLater adds to settings that what connections which began after this one have taken is theirs:
// somebody wanted it so, and two that took it from each other in turn would never come to rest.
func (s *Session) leaveToLater(settings policy.Settings, cluster policy.Cluster) policy.Settings {
	resolve := policy.ResolveYield
	if settings.OnConflict == policy.ResolveVirtualize {
		resolve = policy.ResolveVirtualize
	}
	var rules []policy.RoutingRule
	for _, t := range s.takenLater() {
		for _, p := range contested(t.prefix, settings, cluster) {
			origin := policy.Origin{Source: policy.SourceFlag, Position: policy.Position{Name: "connection " + t.connection + ", which began later"}}
			rules = append(rules, policy.RoutingRule{Prefix: p, Resolve: resolve, Origin: origin, Enforced: true})
		}
	}
	settings.Routing = slices.Concat(settings.Routing, rules)
	return settings
}

// taken is a prefix that another connection on this host routes.
type taken struct {
	connection string
	prefix     netip.Prefix
}

// takenLater returns what connections that began after this one route. While this one connects it is the
// last itself.
func (s *Session) takenLater() []taken {
	if !s.applied {
		return nil
	}
	later := map[int]string{}
	for _, l := range s.knowledge.facts.Links {
		name, ours := strings.CutPrefix(l.Alias, policy.ConnectionAlias)
		before := slices.ContainsFunc(s.earlier, func(e helper.Earlier) bool { return e.Name == name })
		if ours && l.Name != s.iface && !before {
			later[l.Index] = name
		}
	}
	var out []taken
	for _, r := range s.knowledge.facts.Routes {
		if r.Protocol == policy.ProtocolCulvert && len(r.NextHops) == 1 && later[r.NextHops[0].Link] != "" {
			out = append(out, taken{later[r.NextHops[0].Link], r.Prefix})
		}
	}
	return out
}

// contested returns what of a prefix settings would take from whoever routes it: so finely that no rule
// says it more specifically.
func contested(p netip.Prefix, settings policy.Settings, cluster policy.Cluster) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range settings.Routing {
		if r.Resolve != policy.ResolveAllow || r.Symbol == "" && !r.Prefix.Overlaps(p) {
			continue
		}
		if r.Symbol == "" && r.Prefix.Bits() > p.Bits() {
			out = append(out, r.Prefix)
		}
		for _, subnet := range slices.Concat(cluster.Services, cluster.Pods) {
			if subnet.Prefix.Overlaps(p) {
				out = append(out, longer(subnet.Prefix, p))
			}
		}
	}
	return out
}

// longer returns the more specific one of two prefixes.
func longer(a, b netip.Prefix) netip.Prefix {
	if a.Bits() >= b.Bits() {
		return a
	}
	return b
}

// earlierNames converts for the resolver.
func earlierNames(list []helper.Earlier) []dns.Earlier {
	var out []dns.Earlier
	for _, e := range list {
		out = append(out, dns.Earlier{Connection: e.Name, Domains: e.Domains})
	}
	return out
}

// search is what this connection puts into the host's search list: short names are the first connection's.
func (s *Session) search() []string {
	if len(s.earlier) > 0 {
		return nil
	}
	return clusterSearch(s.kube.UserNamespace, s.cluster.Domain)
}

// cededStatus lists the domains that other connections have.
func cededStatus(config dns.Config) []api.Ceded {
	ceded := config.Ceded()
	var out []api.Ceded
	for _, domain := range slices.Sorted(maps.Keys(ceded)) {
		out = append(out, api.Ceded{
			Domain:     domain,
			Connection: ceded[domain],
			Instead:    fmt.Sprintf("NAME.%s.culvert.internal", config.Connection),
		})
	}
	return out
}
