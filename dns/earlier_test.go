package dns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// second is the configuration of a connection beside first, to a cluster that is much like that one's.
func second(first Config) Config {
	return Config{
		Namespace:       "default",
		Namespaces:      []string{"team-b"},
		Connection:      "second",
		IncludeSuffixes: []string{"db.corp.internal", "other.internal"},
		Reverse:         []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16"), netip.MustParsePrefix("10.140.0.0/16")},
		Earlier:         []Earlier{{"First", first.Domains()}},
		Up:              true,
	}
}

func TestNamesOfAnEarlierConnection(t *testing.T) {
	first := Config{
		Namespace:       "default",
		Connection:      "first",
		IncludeSuffixes: []string{"corp.internal"},
		Reverse:         []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16")},
	}
	cfg := second(first)
	alone := cfg
	alone.Earlier = nil
	other := cfg
	other.ClusterDomain = "other.local"
	for _, tt := range []struct {
		situation string
		cfg       Config
		name      string
		cluster   string // the name asked of the cluster; "" means upstream
		reason    string
	}{
		{"alone it has all", alone, "echo.default.svc.cluster.local.", "echo.default.svc.cluster.local.", "cluster domain"},
		{"the cluster domain", cfg, "echo.default.svc.cluster.local.", "", "those of connection first"},
		{"with svc", cfg, "echo.default.svc.", "", "those of connection first"},
		{"its namespace", cfg, "echo.default.", "", "those of connection first"},
		{"a namespace that the first does not list", cfg, "echo.team-b.", "", "short names"},
		{"a single label", cfg, "echo.", "", "short names"},
		{"its own alias", cfg, "echo.default.second.culvert.internal.", "echo.default.svc.cluster.local.", "alias"},
		{"the first's alias", cfg, "echo.default.first.culvert.internal.", "", "those of connection first"},
		{"a suffix within the first's", cfg, "x.db.corp.internal.", "x.db.corp.internal.", "included suffix"},
		{"the rest of that one's suffix", cfg, "x.corp.internal.", "", "those of connection first"},
		{"a suffix that only it has", cfg, "x.other.internal.", "x.other.internal.", "included suffix"},
		{"a reverse name of both", cfg, "1.0.130.10.in-addr.arpa.", "", "those of connection first"},
		{"a reverse name that only it has", cfg, "1.0.140.10.in-addr.arpa.", "1.0.140.10.in-addr.arpa.", "reverse"},
		{"nobody's name", cfg, "www.example.com.", "", "not a name of the cluster"},
		{"a cluster domain of its own", other, "echo.default.svc.other.local.", "echo.default.svc.other.local.", "cluster domain"},
		{"with it, too, svc is the first's", other, "echo.default.svc.", "", "those of connection first"},
		{"with it, too, short names are the first's", other, "echo.", "", "short names"},
	} {
		d := Route(tt.cfg, tt.name, wire.TypeA)
		if got := d.Source == SourceCluster; got != (tt.cluster != "") || got && d.Name != tt.cluster {
			t.Errorf("%s: %s", tt.situation, d)
		}
		if d.Source == SourceUpstream && d.Name != tt.name || !strings.Contains(d.Reason, tt.reason) {
			t.Errorf("%s: %s, want the reason %q", tt.situation, d, tt.reason)
		}
	}
}

// TestDomainsBesideAnEarlierConnection: what a connection has a host send to it, and what it cedes, are
// together what it would have alone.
func TestDomainsBesideAnEarlierConnection(t *testing.T) {
	first := Config{Namespace: "default", Connection: "first", Reverse: []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16")}}
	cfg := second(first)
	want := []string{"140.10.in-addr.arpa", "db.corp.internal", "other.internal", "second.culvert.internal"}
	if got := cfg.Domains(); !slices.Equal(got, want) {
		t.Errorf("domains %q, want %q", got, want)
	}
	ceded := slices.Sorted(maps.Keys(cfg.Ceded()))
	if want := []string{"130.10.in-addr.arpa", "cluster.local", "default", "svc"}; !slices.Equal(ceded, want) || cfg.Ceded()["svc"] != "first" {
		t.Errorf("ceded %q, want %q", ceded, want)
	}
	alone := cfg
	alone.Earlier = nil
	if len(alone.Ceded()) > 0 || !slices.Contains(alone.Domains(), "cluster.local") {
		t.Errorf("alone it has %q and cedes %q", alone.Domains(), alone.Ceded())
	}
}

// TestAQuestionOutlivesWhomItWasAskedOf: the resolver of an earlier connection is gone, and with it the answer to
// what was asked of it. The next configuration knows better.
func TestAQuestionOutlivesWhomItWasAskedOf(t *testing.T) {
	impatient(t, time.Hour, time.Hour) // it is not by giving up that the answer comes
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			gateway, gone, upstream := startFake(t, clusterZone(t)), startFake(t, silent), startFake(t, upstreamZone(t))
			second := connected(gateway, gone)
			second.Connection = "second"
			second.Earlier = []Earlier{{"first", []string{"cluster.local", "svc"}}}
			r := startResolver(t, second, Options{})
			first := connected(gateway, upstream)
			first.Connection = "second"
			replies := make(chan *wire.Msg)
			for _, name := range []string{"echo.default.svc.cluster.local", "www.example.com"} {
				go func() {
					c := &wire.Client{Net: network, Timeout: 12 * time.Second}
					reply, _, _ := c.Exchange(question(name, wire.TypeA), r.addr)
					replies <- reply
				}()
			}
			waitFor(t, "the questions", func() bool { return gone.queries.Load() >= 2 })
			r.Set(first)
			for range 2 {
				if m := <-replies; m == nil || m.Rcode != wire.RcodeSuccess || len(m.Answer) == 0 {
					t.Errorf("after those asked were replaced: %v", m)
				}
			}
		})
	}
}
