package connection

import (
	"slices"
	"testing"

	wire "github.com/miekg/dns"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/helper"
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
