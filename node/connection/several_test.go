package connection

import (
	"net/netip"
	"slices"
	"testing"

	wire "github.com/miekg/dns"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/policy"
)

// TestTheFirstConnectionHasTheClusterDomain: beside an earlier connection only the names of its own are
// this one's, and when that one ends, the cluster domain and the search list are.
func TestTheFirstConnectionHasTheClusterDomain(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	s.request.Name = "b"
	domains := s.dnsConfig().Domains()
	first := s.dnsConfig()
	first.Connection = "a"
	earlier := []helper.Earlier{{Name: "a", Domains: first.Domains()}}
	s.helperNoticed(helper.Event{Earlier: &earlier})
	if got := s.dnsConfig().Domains(); !slices.Equal(got, []string{"b.culvert.internal"}) || s.search() != nil {
		t.Errorf("domains %q, search list %q", got, s.search())
	}
	name := "echo.default.svc.cluster.local."
	if d := dns.Route(s.dnsConfig(), name, wire.TypeA); d.Source != dns.SourceUpstream {
		t.Errorf("%s is asked of %s", name, d)
	}
	ceded := cededStatus(s.dnsConfig())
	if i := slices.IndexFunc(ceded, func(c api.Ceded) bool { return c.Domain == "cluster.local" }); i < 0 || ceded[i].Connection != "a" || ceded[i].Instead != "NAME.b.culvert.internal" {
		t.Errorf("status says %+v", ceded)
	}
	earlier = nil
	s.helperNoticed(helper.Event{Earlier: &earlier})
	if got := s.dnsConfig().Domains(); !slices.Equal(got, domains) || len(s.search()) != 3 || cededStatus(s.dnsConfig()) != nil {
		t.Errorf("once alone: domains %q, search list %q", got, s.search())
	}
}

// TestTwoConnectionsTakeFromEachOtherOnce: what the later one took stays its own, though settings of both
// allow to take it.
func TestTwoConnectionsTakeFromEachOtherOnce(t *testing.T) {
	for _, allow := range []string{"10.128.0.0/9", "10.132.0.0/16", "10.132.64.0/18", "pods"} {
		s := connectedTo(t, team("1", []string{allow}, "10.132.0.0/16"), policy.Facts{
			Rules: []policy.Rule{{Family: policy.IPv4, Priority: 32766, Table: policy.TableMain}},
		})
		facts := policy.Facts{
			Links: []policy.Link{{Index: 9, Name: "culvert2", Kind: "tun", Up: true, Alias: policy.ConnectionAlias + "b"}},
			Routes: []policy.Route{{
				Prefix: netip.MustParsePrefix("10.132.0.0/16"), Table: 7832, Protocol: policy.ProtocolCulvert, NextHops: []policy.NextHop{{Link: 9}},
			}},
			Rules: []policy.Rule{
				{Family: policy.IPv4, Priority: 32764, Table: 7832}, {Family: policy.IPv4, Priority: 32766, Table: policy.TableMain},
			},
		}
		took := func() bool {
			s.knowledge.facts = facts
			plan := policy.NewPlan(s.planInput(s.settings, s.cluster))
			return slices.ContainsFunc(plan.Routes, func(r policy.PlannedRoute) bool {
				return r.Kind != policy.RouteThrow && r.Prefix.Overlaps(netip.MustParsePrefix("10.132.64.0/18"))
			})
		}
		if !took() {
			t.Errorf("allow %s: connecting takes nothing", allow)
		}
		if s.applied = true; took() {
			t.Errorf("allow %s: it takes back what a later connection took", allow)
		}
		if s.earlier = []helper.Earlier{{Name: "b"}}; !took() {
			t.Errorf("allow %s: the earlier connection's is not taken", allow)
		}
	}
}

// TestTheClusterCannotNameAnotherConnectionsVirtualAddresses: they would lead a program to another cluster.
func TestTheClusterCannotNameAnotherConnectionsVirtualAddresses(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	route := func(prefix string, link int, protocol uint8) policy.Route {
		return policy.Route{Prefix: netip.MustParsePrefix(prefix), Table: 7832, Protocol: protocol, NextHops: []policy.NextHop{{Link: link}}}
	}
	s.knowledge.facts.Links = append(s.knowledge.facts.Links, policy.Link{Index: 9, Name: "culvert2", Kind: "tun", Alias: policy.ConnectionAlias + "b"})
	s.knowledge.facts.Routes = append(s.knowledge.facts.Routes,
		route("249.132.0.0/16", 9, policy.ProtocolCulvert), route("10.140.0.0/16", 9, policy.ProtocolCulvert),
		route("251.0.0.0/8", 9, 4), route("252.0.0.0/8", 7, policy.ProtocolCulvert))
	got := s.dnsConfig().OthersVirtual
	for prefix, want := range map[string]bool{"249.132.0.0/16": true, "10.140.0.0/16": false, "251.0.0.0/8": false, "252.0.0.0/8": false} {
		if slices.Contains(got, netip.MustParsePrefix(prefix)) != want {
			t.Errorf("%s among %v: %v, want %v", prefix, got, !want, want)
		}
	}
}
