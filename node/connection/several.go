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
	s.setDNS()
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
	return slices.DeleteFunc(s.takenByOthers(), func(t taken) bool {
		return slices.ContainsFunc(s.earlier, func(e helper.Earlier) bool { return e.Name == t.connection })
	})
}

// takenByOthers returns what other connections route.
func (s *Session) takenByOthers() []taken {
	others := map[int]string{}
	for _, l := range s.knowledge.facts.Links {
		if name, ours := strings.CutPrefix(l.Alias, policy.ConnectionAlias); ours && l.Name != s.iface {
			others[l.Index] = name
		}
	}
	var out []taken
	for _, r := range s.knowledge.facts.Routes {
		if r.Protocol == policy.ProtocolCulvert && len(r.NextHops) == 1 && others[r.NextHops[0].Link] != "" {
			out = append(out, taken{others[r.NextHops[0].Link], r.Prefix})
		}
	}
	return out
}

// classE is where virtual addresses on the wire and overlay addresses come from (RFC 1112, section 4).
var classE = netip.MustParsePrefix("240.0.0.0/4")

// othersVirtual returns the virtual addresses of other connections: this one's cluster cannot mean them. The IPv6
// ones nobody in a cluster can guess.
func (s *Session) othersVirtual() []netip.Prefix {
	var out []netip.Prefix
	for _, t := range s.takenByOthers() {
		if classE.Overlaps(t.prefix) {
			out = append(out, t.prefix)
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
				out = append(out, smaller(subnet.Prefix, p))
			}
		}
	}
	return out
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
