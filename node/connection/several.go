package connection

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/helper"
)

// earlierChanged takes in which connections on this host began before this one, and the names that they
// keep. When the first ends, the next has the cluster domain.
func (s *Session) earlierChanged(earlier []helper.Earlier) {
	s.log.Info("connections that began earlier", "connections", earlier)
	s.earlier = earlier
	if s.dns != nil {
		s.dns.Set(s.dnsConfig())
	}
	if !s.applied {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, helperPatience)
	defer cancel()
	s.notice(noticeHost, s.apply(ctx))
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
