package dns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// summary is a trace in a few words: names with who answered, rcode and addresses by type, "*" for from memory.
func summary(t Trace) string {
	var out []string
	for _, l := range t.Lookups {
		text := l.Name
		for _, q := range l.Questions {
			text += fmt.Sprintf(" %s:%s:%s%v", q.Type, q.AnsweredBy, q.Rcode, q.Addresses)
			if q.Cached {
				text += "*"
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

func TestTrace(t *testing.T) {
	r, _, cfg := yielding(t)
	cfg.Search = []string{"default.svc.cluster.local", "corp.example"}
	cfg.ClusterDomain = "cluster.local"
	r.Set(cfg)
	for _, tt := range []struct {
		situation, name string
		matched         string
		withheld        int
		reason          string // of the first lookup
		want            string
	}{
		{"a bare name, completed by the search list", "stays", "stays.default.svc.cluster.local.", 0, "in the cluster domain",
			"stays.default.svc.cluster.local. A:cluster:NOERROR[10.130.0.9] AAAA:cluster:NOERROR[]"},
		{"again, from memory", "stays", "stays.default.svc.cluster.local.", 0, "in the cluster domain",
			"stays.default.svc.cluster.local. A:cluster:NOERROR[10.130.0.9]* AAAA:cluster:NOERROR[]*"},
		{"a bare name left to others: programs go on through the list", "gone", "", 3, "in the cluster domain",
			"gone.default.svc.cluster.local. A:cluster:SERVFAIL[] AAAA:cluster:SERVFAIL[]\n" +
				"gone.corp.example. A:upstream:NXDOMAIN[] AAAA:upstream:NXDOMAIN[]\n" +
				"gone. A:cluster:SERVFAIL[] AAAA:cluster:SERVFAIL[]"},
		{"partly left to others", "half.default.svc.cluster.local.", "half.default.svc.cluster.local.", 1, "in the cluster domain",
			"half.default.svc.cluster.local. A:cluster:NOERROR[10.130.0.8] AAAA:cluster:NOERROR[fd00:130::8]"},
		{"a dotted name, tried as it is first", "db.corp.internal", "", 1, "in the included suffix corp.internal.",
			"db.corp.internal. A:cluster:SERVFAIL[] AAAA:cluster:NOERROR[]\n" +
				"db.corp.internal.default.svc.cluster.local. A:cluster:NXDOMAIN[] AAAA:cluster:NXDOMAIN[]\n" +
				"db.corp.internal.corp.example. A:upstream:NXDOMAIN[] AAAA:upstream:NXDOMAIN[]"},
		{"the host's own resolvers", "www.example.com", "www.example.com.", 0, "not a name of the cluster",
			"www.example.com. A:upstream:NOERROR[10.132.64.99] AAAA:upstream:NOERROR[]"},
		{"the host's own resolvers after the cluster", "intranet.", "intranet.", 0, "a service of the namespace default",
			"intranet. A:upstream:NOERROR[10.132.64.98] AAAA:upstream:NOERROR[]"},
		{"an address", "10.132.64.7", "", 0, "", ""},
		{"nobody is asked", "wpad.default.svc.cluster.local.", "", 0, "wpad is never asked of the cluster",
			"wpad.default.svc.cluster.local. A:none:NXDOMAIN[] AAAA:none:NXDOMAIN[]"},
	} {
		tr, err := r.Trace(t.Context(), tt.name)
		if err != nil {
			t.Errorf("%s: %v", tt.situation, err)
		}
		if got := summary(tr); got != tt.want || tr.Matched != tt.matched {
			t.Errorf("%s: matched %q\n%s\nwant\n%s", tt.situation, tr.Matched, got, tt.want)
		}
		if len(tr.Lookups) > 0 && tr.Lookups[0].Reason != tt.reason {
			t.Errorf("%s: reason %q", tt.situation, tr.Lookups[0].Reason)
		}
		if got := tr.Withheld(); len(got) != tt.withheld {
			t.Errorf("%s: withheld %v", tt.situation, got)
		}
		if tt.matched != "" && len(tr.Addresses) == 0 || tt.matched == "" && len(tr.Lookups) > 0 && len(tr.Addresses) > 0 {
			t.Errorf("%s: addresses %v", tt.situation, tr.Addresses)
		}
	}
	if n := r.Stats().Queries; n != 0 {
		t.Errorf("%d traced questions counted as queries", n)
	}
}

// What a trace says of a withheld name is what a client is told, and survives JSON.
func TestTraceOfAWithheldName(t *testing.T) {
	r, _, _ := yielding(t)
	tr, err := r.Trace(t.Context(), "alias.lab.culvert.internal.")
	if err != nil {
		t.Fatal(err)
	}
	l := tr.Lookups[0]
	if l.Source != "cluster" || l.Asked != "alias.default.svc.cluster.local." || l.Reason != "alias in culvert.internal." || l.Fallback {
		t.Errorf("%+v", l)
	}
	want := []WithheldAddr{
		{netip.MustParseAddr("10.132.64.7"), netip.MustParsePrefix("10.132.64.0/26"), "WireGuard on wg0"},
		{netip.MustParseAddr("10.132.70.1"), netip.MustParsePrefix("10.132.0.0/16"), "OpenVPN on tun0"},
	}
	a := l.Questions[0]
	if !slices.Equal(a.Withheld, want) || len(a.Given) != 2 || a.Addresses != nil || !slices.Equal(a.Aliases, []string{"gone.default.svc.cluster.local."}) {
		t.Errorf("%+v", a)
	}
	client := r.ask("udp", withEDNS("alias.lab.culvert.internal", wire.TypeA))
	if a.Rcode != wire.RcodeToString[client.Rcode] || !slices.Equal(a.Errors, extendedErrors(client)) || len(a.Errors) != 1 {
		t.Errorf("trace %+v, client %v", a, client)
	}
	text, err := json.Marshal(tr)
	if err != nil {
		t.Fatal(err)
	}
	var again Trace
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(tr, again) {
		t.Errorf("%v\nbecame (%v)\n%v", tr, err, again)
	}
}

func TestTraceFollowsTruncation(t *testing.T) {
	var records []string
	for i := range 200 {
		records = append(records, fmt.Sprintf("big.example.com. 300 IN A 192.0.2.%d", i))
	}
	upstream := startFake(t, zone(t, records...))
	r := startResolver(t, connected(startFake(t, zone(t)), upstream), Options{})
	tr, err := r.Trace(t.Context(), "big.example.com")
	if err != nil || len(tr.Addresses) != 200 {
		t.Errorf("%d addresses, %v", len(tr.Addresses), err)
	}
}

func TestTraceWhileTheTunnelIsDown(t *testing.T) {
	r := startResolver(t, Config{ClusterDomain: "cluster.local"}, Options{})
	tr, err := r.Trace(t.Context(), "echo.default.svc.cluster.local.")
	if err != nil {
		t.Fatal(err)
	}
	q := tr.Lookups[0].Questions[0]
	if q.AnsweredBy != "none" || q.Rcode != "SERVFAIL" || len(q.Errors) != 1 || q.Errors[0].Text != errDown.Error() {
		t.Errorf("%+v", q)
	}
}

func TestTraceEndsEarly(t *testing.T) {
	cfg := connected(startFake(t, silent))
	cfg.LookupTimeout = time.Hour // by itself
	r := startResolver(t, cfg, Options{})
	if _, err := r.Trace(t.Context(), strings.Repeat("a", 64)); err == nil {
		t.Error("a label of 64 octets is taken for a name")
	}
	if _, err := r.Trace(t.Context(), ""); err == nil {
		t.Error("nothing is taken for a name")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := r.Trace(ctx, "echo.default.svc.cluster.local.")
		done <- err
	}()
	waitFor(t, "the questions", func() bool { return r.Stats().InFlight == 2 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	go func() {
		_, err := r.Trace(context.Background(), "other.default.svc.cluster.local.")
		done <- err
	}()
	waitFor(t, "the questions", func() bool { return r.Stats().InFlight >= 2 && r.Stats().Cluster == 4 })
	r.stop()
	if err := <-done; !errors.Is(err, errEnded) {
		t.Errorf("the server ended: %v", err)
	}
	if _, err := r.Trace(context.Background(), "echo."); !errors.Is(err, errEnded) {
		t.Errorf("after the end: %v", err)
	}
}

func TestExpand(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 60)+".", 4)
	for _, tt := range []struct {
		situation string
		name      string
		ndots     int
		search    []string
		want      []string
	}{
		{"short", "echo", 0, []string{"a.example", "b.example."}, []string{"echo.a.example.", "echo.b.example.", "echo."}},
		{"dotted", "echo.default", 0, []string{"a.example"}, []string{"echo.default.", "echo.default.a.example."}},
		{"fewer dots than ndots", "echo.default", 2, []string{"a.example"}, []string{"echo.default.a.example.", "echo.default."}},
		{"absolute", "echo.", 5, []string{"a.example"}, []string{"echo."}},
		{"no search list", "echo", 0, nil, []string{"echo."}},
		{"too long with one of the domains", strings.TrimSuffix(long, "."), 0, []string{"far.too.long.example", "b"}, []string{long, long + "b."}},
		{"capitals", "Echo", 0, []string{"A.Example"}, []string{"Echo.a.example.", "Echo."}},
		{"the root", ".", 0, []string{"a.example"}, nil},
		{"an empty label", "a..b", 0, nil, nil},
	} {
		cfg := Config{Search: tt.search, Ndots: tt.ndots}.normalized()
		var got []string
		for _, l := range cfg.expand(tt.name) {
			got = append(got, l.Name)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.situation, got, tt.want)
		}
	}
}
