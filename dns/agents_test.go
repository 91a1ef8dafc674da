package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// cast are the servers of these tests: the gateway, and the agents in two workloads.
type cast struct{ gateway, echo, web *fake }

func agentsZone(t testing.TB) func(*wire.Msg, bool) *wire.Msg {
	return zone(t,
		"one.default.svc.cluster.local. 5 IN A 10.132.0.1",
		"both.default.svc.cluster.local. 5 IN A 10.150.0.2",
		"both.default.svc.cluster.local. 5 IN A 10.132.0.2",
		"both.default.svc.cluster.local. 5 IN A 10.130.0.2",
		"same.default.svc.cluster.local. 5 IN A 10.132.0.3",
		"unknown.default.svc.cluster.local. 5 IN A 10.132.0.4",
		"lo.default.svc.cluster.local. 5 IN A 127.0.0.1",
		"lo6.default.svc.cluster.local. 5 IN AAAA ::1",
		"mesh.default.svc.cluster.local. 5 IN A 240.240.0.5",
		"virtual.default.svc.cluster.local. 5 IN A 240.1.0.5",
		"native.default.svc.cluster.local. 5 IN A 10.150.0.1",
		"alias.default.svc.cluster.local. 5 IN CNAME one.default.svc.cluster.local.",
		"refused.default.svc.cluster.local. 5 IN A 10.132.0.5",
		"special.default.svc.cluster.local. 5 IN A 10.150.0.6",
		"db.mesh.internal. 5 IN A 10.150.0.7",
		"own.default.svc.cluster.local. 5 IN A 10.132.9.9",
	)
}

func echoZone(t testing.TB) func(*wire.Msg, bool) *wire.Msg {
	records := zone(t,
		"one.default.svc.cluster.local. 5 IN A 10.132.0.11",
		"one.default.svc.cluster.local. 5 IN A 10.150.0.99",
		"both.default.svc.cluster.local. 5 IN A 10.132.0.12",
		"both.default.svc.cluster.local. 5 IN A 10.130.0.99",
		"same.default.svc.cluster.local. 5 IN A 10.132.0.3",
		"lo.default.svc.cluster.local. 5 IN A 127.0.0.1",
		"lo6.default.svc.cluster.local. 5 IN AAAA ::1",
		"mesh.default.svc.cluster.local. 5 IN A 240.240.0.5",
		"alias.default.svc.cluster.local. 5 IN A 10.132.0.14",
		"absent.default.svc.cluster.local. 5 IN A 240.240.0.9",
		"own.default.svc.cluster.local. 5 IN A 10.132.9.9",
		"special.default.svc.cluster.local. 5 IN A 240.240.0.6",
		"db.mesh.internal. 5 IN A 240.240.0.7",
		"db.mesh.internal. 5 IN A 10.150.0.98",
		"db.mesh.internal. 5 IN A 10.130.0.98",
		"out.mesh.internal. 5 IN A 10.150.0.97",
		"text.mesh.internal. 5 IN TXT words",
		"wpad.mesh.internal. 5 IN A 240.240.0.8",
	)
	return func(q *wire.Msg, tcp bool) *wire.Msg {
		if strings.HasPrefix(q.Question[0].Name, "refused.") {
			return new(wire.Msg).SetRcode(q, wire.RcodeRefused)
		}
		return records(q, tcp)
	}
}

// throughAgents is what most tests here configure: echo is the way to 10.132.0.0/16, a mesh's addresses and loopback,
// web to 10.130.0.0/16.
func throughAgents(cfg Config, echo, web []netip.AddrPort) Config {
	cfg.Twins = []Twin{
		{Real: netip.MustParsePrefix("10.132.0.0/16"), Virtual: netip.MustParsePrefix("246.132.0.0/16")},
		{Real: netip.MustParsePrefix("10.130.0.0/16"), Virtual: netip.MustParsePrefix("246.130.0.0/16")},
		{Real: netip.MustParsePrefix("240.240.0.0/16"), Virtual: netip.MustParsePrefix("246.240.0.0/16")},
		{Real: netip.MustParsePrefix("127.0.0.0/8"), Pooled: true},
	}
	cfg.VirtualSubnets = prefixes("240.0.0.0/4", "211.55.48.0/20")
	cfg.Agents = []Agent{
		{Workload: "deployment/echo", Subnets: prefixes("10.132.0.0/16", "240.240.0.0/16", "127.0.0.0/8", "::1/128"), Servers: echo,
			Suffixes: []string{"mesh.internal", "special.default.svc.cluster.local", "0.240.240.in-addr.arpa"}},
		{Workload: "statefulset/web", Subnets: prefixes("10.130.0.0/16"), Servers: web},
	}
	return cfg
}

func agentsResolver(t testing.TB, opts Options) (*resolver, cast, Config) {
	c := cast{startFake(t, agentsZone(t)), startFake(t, echoZone(t)), startFake(t, zone(t, "both.default.svc.cluster.local. 5 IN A 10.130.0.13"))}
	cfg := throughAgents(connected(c.gateway, startFake(t, zone(t))), []netip.AddrPort{c.echo.addr}, []netip.AddrPort{c.web.addr})
	cfg.Connection = "lab"
	opts.Pool = newTestPool(3)
	return startResolver(t, cfg, opts), c, cfg
}

// asked returns how often each was asked since the last call.
func (c cast) asked() (gateway, echo, web int64) {
	return c.gateway.queries.Swap(0), c.echo.queries.Swap(0), c.web.queries.Swap(0)
}

func TestAgentsAreAskedForTheirAddresses(t *testing.T) {
	own := netip.MustParseAddr("10.132.9.9")
	r, c, _ := agentsResolver(t, Options{Own: func(a netip.Addr) bool { return a == own }})
	const blocked = "which cannot be one of its addresses"
	for _, tt := range []struct {
		situation, name    string
		qtype              uint16
		gateway, echo, web int64 // how often each is asked
		rcode              int
		want, text         string // text is part of an extended error
	}{
		{"the agent names another address", "one", wire.TypeA, 1, 1, 0, 0, "246.132.0.11", ""},
		{"addresses of two agents, and others", "both", wire.TypeA, 1, 1, 1, 0, "10.150.0.2 246.132.0.12 246.130.0.13", ""},
		{"the agent names the same", "same", wire.TypeA, 1, 1, 0, 0, "246.132.0.3", ""},
		{"the agent does not know the name", "unknown", wire.TypeA, 1, 1, 0, 0, "246.132.0.4", ""},
		{"loopback of the pod", "lo", wire.TypeA, 1, 1, 0, 0, "211.55.48.1", ""},
		{"loopback without a twin", "lo6", wire.TypeAAAA, 1, 1, 0, wire.RcodeServerFailure, "", "there is no virtual address"},
		{"addresses of a mesh among the virtual ones", "mesh", wire.TypeA, 1, 1, 0, 0, "246.240.0.5", ""},
		{"virtual addresses that are nobody's", "virtual", wire.TypeA, 1, 0, 0, 0, "", blocked},
		{"an address that is also the host's", "own", wire.TypeA, 1, 1, 0, 0, "246.132.9.9", ""},
		{"no address of an agent", "native", wire.TypeA, 1, 0, 0, 0, "10.150.0.1", ""},
		{"aliases of the gateway", "alias", wire.TypeA, 1, 1, 0, 0, "246.132.0.14", ""},
		{"a name that the gateway denies", "absent.default", wire.TypeA, 1, 0, 0, wire.RcodeNameError, "", ""},
		{"no record of the type", "one", wire.TypeAAAA, 1, 0, 0, 0, "", ""},
		{"the agent refuses", "refused", wire.TypeA, 1, 1, 0, wire.RcodeServerFailure, "", "no answer from the agent in deployment/echo: REFUSED"},

		{"by name, in the cluster's domain", "special", wire.TypeA, 0, 1, 0, 0, "246.240.0.6", ""},
		{"by name, through an alias", "special.default.svc.lab.culvert.internal", wire.TypeA, 0, 1, 0, 0, "246.240.0.6", ""},
		{"by name, outside", "db.mesh.internal", wire.TypeA, 0, 1, 0, 0, "246.240.0.7", "the agent in deployment/echo named 10.150.0.98, which is not reached through it"},
		{"by name, nothing that is reached through it", "out.mesh.internal", wire.TypeA, 0, 1, 0, wire.RcodeServerFailure, "", "the agent in deployment/echo named 10.150.0.97"},
		{"by name, denied", "gone.mesh.internal", wire.TypeA, 0, 1, 0, wire.RcodeNameError, "", ""},
		{"by name, without addresses", "text.mesh.internal", wire.TypeTXT, 0, 1, 0, 0, "", ""},
		{"wpad by name", "wpad.mesh.internal", wire.TypeA, 0, 0, 0, wire.RcodeNameError, "", "wpad is never asked"},
		{"the reverse name of a virtual address", "7.0.240.246.in-addr.arpa", wire.TypePTR, 0, 1, 0, wire.RcodeNameError, "", ""},
	} {
		c.asked()
		for range 2 { // the second from memory
			m := r.ask("udp", withEDNS(tt.name, tt.qtype))
			texts := fmt.Sprint(extendedErrors(m))
			if m.Rcode != tt.rcode || addresses(m) != tt.want || !strings.Contains(texts, tt.text) || tt.text == "" && texts != "[]" {
				t.Errorf("%s: %v", tt.situation, m)
			}
			if strings.HasPrefix(tt.text, "no answer") || tt.text == blocked {
				break // not remembered
			}
		}
		if g, e, w := c.asked(); g != tt.gateway || e != tt.echo || w != tt.web {
			t.Errorf("%s: the gateway was asked %d times, echo %d, web %d", tt.situation, g, e, w)
		}
	}
	if s := r.Stats(); s.Agents != 18 || s.Blocked != 1 {
		t.Errorf("%+v", s)
	}
}

// An agent that is silent costs the addresses it is the way to, and no more.
func TestAgentsThatDoNotAnswer(t *testing.T) {
	none := []netip.AddrPort{}
	mute := func(t *testing.T) []netip.AddrPort { return []netip.AddrPort{startFake(t, silent).addr} }
	for _, tt := range []struct {
		situation string
		echo      func(*testing.T) []netip.AddrPort
		name      string
		rcode     int
		want      string
		text      string
	}{
		{"silent", mute, "one", wire.RcodeServerFailure, "", "no answer from the agent in deployment/echo: ask 127."},
		{"silent, other addresses", mute, "both", 0, "10.150.0.2 246.130.0.13", "no answer from the agent in deployment/echo: ask 127."},
		{"silent, not concerned", mute, "native", 0, "10.150.0.1", ""},
		{"silent, by name", mute, "db.mesh.internal", wire.RcodeServerFailure, "", "no answer from the agent in deployment/echo: ask 127."},
		{"not there", func(*testing.T) []netip.AddrPort { return none }, "one", wire.RcodeServerFailure, "", "no answer from the agent in deployment/echo: there is none at present"},
		{"not there, other addresses", func(*testing.T) []netip.AddrPort { return none }, "both", 0, "10.150.0.2 246.130.0.13", "there is none at present"},
	} {
		t.Run(tt.situation, func(t *testing.T) {
			gateway := startFake(t, agentsZone(t))
			web := startFake(t, zone(t, "both.default.svc.cluster.local. 5 IN A 10.130.0.13"))
			cfg := throughAgents(connected(gateway), tt.echo(t), []netip.AddrPort{web.addr})
			cfg.LookupTimeout = 300 * time.Millisecond
			r := startResolver(t, cfg, Options{Pool: newTestPool(3)})
			for i := range 2 {
				m := r.ask("udp", withEDNS(tt.name, wire.TypeA))
				errs := extendedErrors(m)
				if m.Rcode != tt.rcode || addresses(m) != tt.want || (len(errs) > 0) != (tt.text != "") {
					t.Errorf("%v", m)
				}
				if len(errs) > 0 && (errs[0].Code != wire.ExtendedErrorCodeNoReachableAuthority || !strings.HasPrefix(errs[0].Text, tt.text) && !strings.HasSuffix(errs[0].Text, tt.text)) {
					t.Errorf("extended errors %v", errs)
				}
				// What is missing something is not remembered.
				if n := gateway.queries.Load(); !strings.HasSuffix(tt.name, "internal") && tt.text != "" && n != int64(i+1) {
					t.Errorf("the gateway was asked %d times", n)
				}
			}
		})
	}
}

func TestAgentsWhileTheTunnelIsDown(t *testing.T) {
	r, c, cfg := agentsResolver(t, Options{})
	cfg.Up = false
	r.Set(cfg)
	for _, name := range []string{"one", "special", "db.mesh.internal"} {
		if m := r.lookup(name, wire.TypeA); m.Rcode != wire.RcodeServerFailure {
			t.Errorf("%s: %v", name, m)
		}
	}
	if g, e, w := c.asked(); g+e+w != 0 {
		t.Errorf("the gateway was asked %d times, echo %d, web %d", g, e, w)
	}
}

// Answers are remembered as long as those hold who were asked for them.
func TestAgentsChange(t *testing.T) {
	r, c, cfg := agentsResolver(t, Options{})
	other := startFake(t, zone(t, "one.default.svc.cluster.local. 5 IN A 10.132.0.77", "db.mesh.internal. 5 IN A 240.240.0.77"))
	step := func(situation string, change func(), asked int64, one, db string) {
		t.Helper()
		cfg.Agents = slices.Clone(cfg.Agents)
		change()
		r.Set(cfg)
		c.asked()
		if m := r.lookup("one", wire.TypeA); addresses(m) != one {
			t.Errorf("%s: %v", situation, m)
		}
		if g, _, _ := c.asked(); g != asked {
			t.Errorf("%s: the gateway was asked %d times", situation, g)
		}
		if m := r.lookup("db.mesh.internal", wire.TypeA); addresses(m) != db {
			t.Errorf("%s: %v", situation, m)
		}
	}
	echo := &cfg.Agents[0]
	step("at first", func() {}, 1, "246.132.0.11", "246.240.0.7")
	step("no change", func() {}, 0, "246.132.0.11", "246.240.0.7")
	step("the same otherwise written", func() {
		cfg.Agents[0].Suffixes = []string{"Mesh.Internal.", "special.default.svc.cluster.local", "0.240.240.in-addr.arpa"}
	}, 0, "246.132.0.11", "246.240.0.7")
	step("another server", func() { cfg.Agents[0].Servers = []netip.AddrPort{other.addr} }, 1, "246.132.0.77", "246.240.0.77")
	step("no server", func() { cfg.Agents[0].Servers = nil }, 1, "", "")
	step("back again", func() { cfg.Agents[0].Servers = []netip.AddrPort{c.echo.addr} }, 1, "246.132.0.11", "246.240.0.7")
	step("without its subnet", func() { cfg.Agents[0].Subnets = prefixes("240.240.0.0/16") }, 1, "10.132.0.1", "246.240.0.7")
	step("with it", func() { cfg.Agents[0].Subnets = echo.Subnets }, 1, "246.132.0.11", "246.240.0.7")
	step("another order", func() { slices.Reverse(cfg.Agents) }, 1, "246.132.0.11", "246.240.0.7")
	step("without suffixes", func() { cfg.Agents[1].Suffixes = nil }, 1, "246.132.0.11", "")
	step("none", func() { cfg.Agents = nil }, 1, "10.132.0.1", "")
	if s := r.Stats(); len(s.Servers) != 2 {
		t.Errorf("servers %v", s.Servers)
	}
	step("two again", func() { cfg.Agents = []Agent{*echo, {Workload: "w", Servers: []netip.AddrPort{other.addr}}} }, 1, "246.132.0.11", "246.240.0.7")
	want := []ServerState{
		{c.gateway.addr, SourceCluster, "", true}, {cfg.Upstreams[0], SourceUpstream, "", true},
		{c.echo.addr, SourceAgent, "deployment/echo", true}, {other.addr, SourceAgent, "w", true},
	}
	if s := r.Stats(); !slices.Equal(s.Servers, want) {
		t.Errorf("servers %v", s.Servers)
	}
}

func TestRouteToAgents(t *testing.T) {
	cfg := Config{Namespace: "default", Connection: "lab", IncludeSuffixes: []string{"deep.mesh.internal", "corp"}, Reverse: prefixes("10.130.0.0/16")}
	cfg.Agents = []Agent{
		{Workload: "a", Suffixes: []string{"Mesh.internal", "corp", "local", "."}},
		{Workload: "b", Suffixes: []string{"b.mesh.internal.", "svc.cluster.local", "130.10.in-addr.arpa", "single"}},
	}
	cfg.Twins = []Twin{{Real: netip.MustParsePrefix("10.130.0.0/16"), Virtual: netip.MustParsePrefix("246.130.0.0/16")}}
	for name, want := range map[string]string{
		"mesh.internal":                     "agent a mesh.internal.",
		"X.MESH.internal.":                  "agent a x.mesh.internal.",
		"xmesh.internal":                    "upstream  xmesh.internal.",
		"x.b.mesh.internal":                 "agent b x.b.mesh.internal.",
		"x.deep.mesh.internal":              "cluster  x.deep.mesh.internal.",
		"x.corp":                            "agent a x.corp.",
		"cluster.local":                     "cluster  cluster.local.",
		"x.cluster.local":                   "cluster  x.cluster.local.",
		"printer.local":                     "agent a printer.local.",
		"echo.default.svc":                  "agent b echo.default.svc.cluster.local.",
		"echo":                              "agent b echo.default.svc.cluster.local. fallback",
		"single":                            "agent b single.",
		"echo.default.lab.culvert.internal": "agent b echo.default.svc.cluster.local.",
		"1.0.130.10.in-addr.arpa":           "agent b 1.0.130.10.in-addr.arpa.",
		"1.0.130.246.in-addr.arpa":          "agent b 1.0.130.10.in-addr.arpa.",
		"wpad.mesh.internal":                "none  wpad.mesh.internal.",
		"www.example.com":                   "upstream  www.example.com.",
	} {
		d := Route(cfg, name, wire.TypeA)
		got := fmt.Sprintf("%s %s %s", d.Source, d.Workload, d.Name)
		if d.Fallback {
			got += " fallback"
		}
		if got != want || d.Source == SourceAgent && !strings.HasSuffix(d.Reason, "of workload "+d.Workload) {
			t.Errorf("%s: %s (%s), want %s", name, got, d.Reason, want)
		}
	}
	domains := cfg.Domains()
	for _, want := range []string{"mesh.internal", "corp", "b.mesh.internal", "single"} {
		if !slices.Contains(domains, want) {
			t.Errorf("%s is not among %v", want, domains)
		}
	}
	cfg.Earlier = []Earlier{{"first", []string{"mesh.internal", "cluster.local"}}}
	for name, want := range map[string]string{"x.mesh.internal": "upstream ", "x.b.mesh.internal": "agent b", "echo.default.svc.cluster.local": "agent b"} {
		if d := Route(cfg, name, wire.TypeA); fmt.Sprint(d.Source, " ", d.Workload) != want {
			t.Errorf("beside an earlier connection: %s: %v", name, d)
		}
	}
}

func TestTraceThroughAgents(t *testing.T) {
	r, _, cfg := agentsResolver(t, Options{})
	trace := func(name string) (Lookup, Question) {
		t.Helper()
		tr, err := r.Trace(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return tr.Lookups[0], tr.Lookups[0].Questions[0]
	}
	for _, tt := range []struct{ name, source, given, addresses, virtual string }{
		{"both.", "cluster: cluster[deployment/echo statefulset/web]", "[10.150.0.2 10.132.0.12 10.130.0.13]", "[10.150.0.2 246.132.0.12 246.130.0.13]", "[{10.132.0.12 246.132.0.12 } {10.130.0.13 246.130.0.13 }]"},
		{"native.", "cluster: cluster[]", "[10.150.0.1]", "[10.150.0.1]", "[]"},
		{"db.mesh.internal.", "agent:deployment/echo agent[deployment/echo]", "[240.240.0.7 10.150.0.98 10.130.0.98]", "[246.240.0.7]", "[{240.240.0.7 246.240.0.7 }]"},
	} {
		for _, cached := range []bool{false, true} {
			l, q := trace(tt.name)
			if got := fmt.Sprint(l.Source, ":", l.Workload, " ", q.AnsweredBy, q.Agents); got != tt.source || q.Cached != cached ||
				fmt.Sprint(q.Given) != tt.given || fmt.Sprint(q.Addresses) != tt.addresses || fmt.Sprint(q.Virtual) != tt.virtual {
				t.Errorf("%s: %s %+v", tt.name, got, q)
			}
		}
	}
	cfg.Agents = slices.Clone(cfg.Agents)
	cfg.Agents[0].Servers = nil
	r.Set(cfg)
	if l, q := trace("one."); l.Source != "cluster" || q.AnsweredBy != "none" || q.Rcode != "SERVFAIL" || len(q.Errors) != 1 {
		t.Errorf("without the agent: %+v", q)
	}
}

// A question that waits for an agent is asked again when another takes its place.
func TestAgentIsReplacedDuringAQuestion(t *testing.T) {
	gateway, echo, mute := startFake(t, agentsZone(t)), startFake(t, echoZone(t)), startFake(t, silent)
	web := startFake(t, zone(t, "both.default.svc.cluster.local. 5 IN A 10.130.0.13"))
	cfg := throughAgents(connected(gateway), []netip.AddrPort{mute.addr}, []netip.AddrPort{web.addr})
	cfg.LookupTimeout = 10 * time.Second
	r := startResolver(t, cfg, Options{Pool: newTestPool(3)})
	var asking sync.WaitGroup
	for name, want := range map[string]string{"one": "246.132.0.11", "both": "10.150.0.2 246.132.0.12 246.130.0.13", "special": "246.240.0.6"} {
		asking.Go(func() {
			if m := r.lookup(name, wire.TypeA); addresses(m) != want {
				t.Errorf("%s: %v", name, m)
			}
		})
	}
	waitFor(t, "the questions to reach the agent", func() bool { return mute.queries.Load() >= 3 })
	cfg.Agents = slices.Clone(cfg.Agents)
	cfg.Agents[0].Servers = []netip.AddrPort{echo.addr}
	r.Set(cfg)
	asking.Wait()
}

// ending is a context that counts what waits for its end.
type ending struct {
	context.Context
	waiting *atomic.Int64
}

func (e ending) Value(any) any { return nil }

func (e ending) AfterFunc(func()) func() bool {
	e.waiting.Add(1)
	return func() bool { e.waiting.Add(-1); return true }
}

func TestSetLeavesNothingBehind(t *testing.T) {
	s := NewServer(Options{})
	life := ending{s.life, new(atomic.Int64)}
	s.life = life
	for i := range 20 {
		cfg := throughAgents(Config{Upstreams: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:53")}}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, nil)
		if i%5 == 0 {
			cfg.LookupTimeout = time.Duration(i+1) * time.Second
		}
		s.Set(cfg)
	}
	if n, want := life.waiting.Load(), int64(len(s.state.Load().groups())); n != want {
		t.Errorf("%d groups of servers are left, %d in use", n, want)
	}
}

// What is known of an agent's servers stays while they do, wherever the agent stands in the list.
func TestSetKeepsWhatIsKnownOfAgents(t *testing.T) {
	echo, web := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:53")}
	s := NewServer(Options{})
	cfg := throughAgents(Config{}, echo, web)
	s.Set(cfg)
	before := s.state.Load().agents
	slices.Reverse(cfg.Agents)
	cfg.Namespace = "other"
	s.Set(cfg)
	if after := s.state.Load().agents; after[0] != before[1] || after[1] != before[0] || after[0].life.Err() != nil {
		t.Errorf("%v became %v", before, after)
	}
	cfg.Agents = slices.Clone(cfg.Agents)
	cfg.Agents[0].Servers = echo
	s.Set(cfg)
	if after := s.state.Load().agents; after[0] == before[1] || after[1] != before[0] || before[1].life.Err() == nil {
		t.Errorf("with other servers %v became %v", before, after)
	}
}

func TestReverseNameOfALeasedAddressOfAnAgent(t *testing.T) {
	r, c, cfg := agentsResolver(t, Options{})
	cfg.Pools = prefixes("211.55.48.0/20")
	cfg.Agents = slices.Clone(cfg.Agents)
	cfg.Agents[0].Suffixes = []string{"127.in-addr.arpa"}
	r.Set(cfg)
	r.lookup("lo", wire.TypeA)
	c.asked()
	r.lookup("1.48.55.211.in-addr.arpa", wire.TypePTR)
	if g, e, w := c.asked(); g != 0 || e != 1 || w != 0 {
		t.Errorf("the gateway was asked %d times, echo %d, web %d", g, e, w)
	}
}

// Replies follow agents that come and go, and each is right for one configuration.
func TestAgentsWhileTheConfigurationChanges(t *testing.T) {
	r, c, cfg := agentsResolver(t, Options{})
	cfg.Hidden = prefixes("10.132.0.0/16", "10.130.0.0/16", "240.240.0.0/16")
	r.Set(cfg)
	stop := make(chan struct{})
	var setting, asking sync.WaitGroup
	setting.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := cfg
			next.Agents = slices.Clone(cfg.Agents)
			switch i % 4 {
			case 0:
				next.Agents = nil
			case 1:
				slices.Reverse(next.Agents)
			case 2:
				next.Agents[1].Servers = []netip.AddrPort{c.web.addr, c.web.addr}
			}
			r.Set(next)
		}
	})
	for name, want := range map[string][]string{
		"one":     {"246.132.0.1", "246.132.0.11"},
		"both":    {"10.150.0.2 246.132.0.2 246.130.0.2", "10.150.0.2 246.132.0.12 246.130.0.13"},
		"special": {"10.150.0.6", "246.240.0.6", ""}, // none if the agent is gone meanwhile
	} {
		asking.Go(func() {
			client := &wire.Client{Timeout: 12 * time.Second}
			for range 150 {
				m, _, err := client.Exchange(question(name, wire.TypeA), r.addr)
				if err != nil || !slices.Contains(want, addresses(m)) {
					t.Errorf("%s: %v %v", name, err, m)
					return
				}
			}
		})
	}
	asking.Wait()
	close(stop)
	setting.Wait()
}

// An answer of the gateway is not looked at where there are no agents.
func TestNoAgentsCostNothing(t *testing.T) {
	rules := newOutward(&Config{}, nil)
	m := new(wire.Msg)
	m.Answer = records(t, []string{"x. 5 IN A 10.132.0.1"})
	if n := testing.AllocsPerRun(100, func() { rules.concerned(m) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkAgents asks one client's questions for new names, by who has to be asked.
func BenchmarkAgents(b *testing.B) {
	named := func(last byte) *fake {
		return startFake(b, func(q *wire.Msg, _ bool) *wire.Msg {
			m := new(wire.Msg).SetReply(q)
			h := wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 30}
			m.Answer = []wire.RR{&wire.A{Hdr: h, A: []byte{10, 132, 0, last}}}
			return m
		})
	}
	gateway, agent := named(1), named(2)
	twin := Twin{Real: netip.MustParsePrefix("10.132.0.0/16"), Virtual: netip.MustParsePrefix("246.132.0.0/16")}
	for _, bb := range []struct {
		name    string
		subnets []netip.Prefix
	}{{"none", nil}, {"not-concerned", prefixes("10.99.0.0/16")}, {"asked", prefixes("10.132.0.0/16")}} {
		cfg := connected(gateway)
		cfg.Twins, cfg.Hidden = []Twin{twin}, prefixes("10.132.0.0/16")
		if bb.subnets != nil {
			cfg.Agents = []Agent{{Workload: "echo", Subnets: bb.subnets, Servers: []netip.AddrPort{agent.addr}}}
		}
		r := startResolver(b, cfg, Options{})
		b.Run(bb.name, func(b *testing.B) { load(b, r.addr, 1, freshName()) })
	}
}

// BenchmarkMerge is the work on an answer of the gateway beyond asking: finding the agents concerned and merging what
// they say.
func BenchmarkMerge(b *testing.B) {
	for _, n := range []int{1, 100} {
		m, said := new(wire.Msg), new(wire.Msg)
		for i := range n {
			m.Answer = append(m.Answer, rr(b, fmt.Sprintf("x.default.svc.cluster.local. 5 IN A 10.132.0.%d", i)))
			said.Answer = append(said.Answer, rr(b, fmt.Sprintf("x.default.svc.cluster.local. 5 IN A 10.132.1.%d", i)))
		}
		for name, agents := range map[string][]Agent{"no-agent": nil, "agent": {{Workload: "echo", Subnets: prefixes("10.132.0.0/16")}}} {
			rules := newOutward(&Config{Agents: agents}, nil)
			b.Run(fmt.Sprintf("%s-%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					for _, agent := range rules.concerned(m) {
						mergeAgent(m, said, func(addr netip.Addr) bool { return rules.way(addr) == agent })
						m.Answer, said.Answer = said.Answer, m.Answer
					}
				}
			})
		}
	}
}
