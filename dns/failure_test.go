package dns

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// impatient makes a server's resolvers give up soon, so that tests need not wait.
func impatient(t testing.TB, first, total time.Duration) {
	t.Helper()
	wait(t, timing{first: first, resend: first, total: total, dead: total / 2})
}

// wait makes a server's resolvers as patient with upstreams as w says.
func wait(t testing.TB, w timing) {
	t.Helper()
	old := upstreamTiming
	upstreamTiming = w
	t.Cleanup(func() { upstreamTiming = old })
}

// deadAddr is a loopback port nobody listens on.
func deadAddr(t testing.TB) netip.AddrPort {
	t.Helper()
	conn, listener := listenBoth(t)
	listener.Close()
	conn.Close()
	return localAddr(conn.LocalAddr())
}

// Where something has to wait, what must not be waited for takes an hour: an answer at all is one without that wait.
func TestUpstreamsFailing(t *testing.T) {
	const short = 50 * time.Millisecond
	patient := timing{first: time.Hour, resend: time.Hour, total: time.Hour, dead: time.Hour}
	first, refused, total := patient, patient, patient
	first.first = short
	refused.first, refused.dead = short, short
	total.first, total.total = short, 4*short
	good := upstreamZone(t)
	with := func(rcode int) func(*wire.Msg, bool) *wire.Msg {
		return func(q *wire.Msg, _ bool) *wire.Msg { return new(wire.Msg).SetRcode(q, rcode) }
	}
	for _, tt := range []struct {
		situation string
		handlers  []func(*wire.Msg, bool) *wire.Msg // nil: nobody listens
		rcode     int
		waits     timing
	}{
		{"the first is silent", []func(*wire.Msg, bool) *wire.Msg{silent, good}, wire.RcodeSuccess, first},
		{"the first refuses packets", []func(*wire.Msg, bool) *wire.Msg{nil, good}, wire.RcodeSuccess, patient},
		{"the first fails", []func(*wire.Msg, bool) *wire.Msg{with(wire.RcodeServerFailure), good}, wire.RcodeSuccess, patient},
		{"the first refuses", []func(*wire.Msg, bool) *wire.Msg{with(wire.RcodeRefused), good}, wire.RcodeSuccess, patient},
		{"the first denies", []func(*wire.Msg, bool) *wire.Msg{with(wire.RcodeNameError), good}, wire.RcodeNameError, patient},
		{"all refuse", []func(*wire.Msg, bool) *wire.Msg{with(wire.RcodeServerFailure), with(wire.RcodeRefused)}, wire.RcodeRefused, patient},
		{"one refuses, one is silent", []func(*wire.Msg, bool) *wire.Msg{with(wire.RcodeRefused), silent}, wire.RcodeRefused, refused},
		{"all are silent", []func(*wire.Msg, bool) *wire.Msg{silent, silent}, wire.RcodeServerFailure, total},
		{"nobody listens", []func(*wire.Msg, bool) *wire.Msg{nil, nil}, wire.RcodeServerFailure, patient},
		{"none is configured", nil, wire.RcodeServerFailure, patient},
	} {
		t.Run(tt.situation, func(t *testing.T) {
			wait(t, tt.waits)
			cfg := Config{}
			for _, h := range tt.handlers {
				if h == nil {
					cfg.Upstreams = append(cfg.Upstreams, deadAddr(t))
				} else {
					cfg.Upstreams = append(cfg.Upstreams, startFake(t, h).addr)
				}
			}
			if m := startResolver(t, cfg, Options{}).lookup("www.example.com", wire.TypeA); m.Rcode != tt.rcode {
				t.Errorf("%s, want %s", wire.RcodeToString[m.Rcode], wire.RcodeToString[tt.rcode])
			}
		})
	}
}

func TestADeadUpstreamIsAskedLastUntilItAnswers(t *testing.T) {
	impatient(t, time.Second, 10*time.Second) // the second server answers within the former, on any machine
	good := zone(t)
	var alive sync.WaitGroup
	alive.Add(1)
	var late sync.Map // names the first server was asked for after it was known to be dead
	first := startFake(t, func(q *wire.Msg, tcp bool) *wire.Msg {
		if name := q.Question[0].Name; strings.HasSuffix(name, ".late.example.com.") {
			late.Store(name, nil)
		}
		alive.Wait()
		return good(q, tcp)
	})
	second := startFake(t, good)
	events := make(chan Event, 100)
	r := startResolver(t, Config{Upstreams: []netip.AddrPort{first.addr, second.addr}}, Options{Events: func(e Event) { events <- e }})
	fresh := freshName()
	for i := range deadAfter {
		r.lookup(fresh(i)+"example.com", wire.TypeA)
	}
	if e := <-events; e.Kind != ServerDown || e.Server != first.addr || e.Source != SourceUpstream {
		t.Errorf("event %+v", e)
	}
	for i := range 10 {
		r.lookup(fresh(100+i)+"late.example.com", wire.TypeA)
	}
	asked := 0
	late.Range(func(any, any) bool { asked++; return true })
	if asked > 1 { // one that probes it, on the side
		t.Errorf("%d of ten questions went to a server that is known to be dead", asked)
	}
	alive.Done()
	waitFor(t, "the dead server to be tried again", func() bool {
		r.lookup(fresh(int(time.Now().UnixNano()%1e9))+"example.com", wire.TypeA)
		return r.Stats().Servers[0].Alive
	})
	if e := <-events; e.Kind != ServerUp || e.Server != first.addr {
		t.Errorf("event %+v", e)
	}
}

// waitFor waits until ok, or fails.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestASlowUpstreamDelaysNoClusterName(t *testing.T) {
	impatient(t, time.Hour, time.Hour) // the questions to the slow server outlast the test
	gateway := startFake(t, clusterZone(t))
	slow := startFake(t, silent)
	r := startResolver(t, connected(gateway, slow), Options{})
	conn, err := net.Dial("udp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fresh := freshName()
	for i := range 2 * upstreamQuestions { // more than are asked at once
		conn.Write(pack(t, question(fresh(i)+"example.com", wire.TypeA)))
		if i%50 == 0 { // more at once might not fit the socket's buffer
			waitFor(t, "the queries", func() bool { return r.Stats().Queries > uint64(i) })
		}
	}
	waitFor(t, "the slow server's questions", func() bool { return r.Stats().InFlight >= upstreamQuestions })
	for i := range 50 {
		if m := r.lookup(fresh(i), wire.TypeA); m.Rcode != wire.RcodeNameError {
			t.Fatalf("%v", m)
		}
	}
	if n := r.Stats().InFlight; n < upstreamQuestions {
		t.Errorf("only %d questions still wait for the slow server", n)
	}
}

func TestASilentClusterDelaysNothingElse(t *testing.T) {
	gateway, upstream := startFake(t, silent), startFake(t, upstreamZone(t))
	cfg := connected(gateway, upstream)
	cfg.LookupTimeout = 200 * time.Millisecond
	r := startResolver(t, cfg, Options{})
	start := time.Now()
	if m := r.lookup("echo.default.svc", wire.TypeA); m.Rcode != wire.RcodeServerFailure {
		t.Errorf("%v", m)
	}
	if took := time.Since(start); took < 200*time.Millisecond || took >= defaultLookupTimeout {
		t.Errorf("gave up after %v", took)
	}
	for name, want := range map[string]int{"www.example.com": wire.RcodeSuccess, "intranet": wire.RcodeSuccess, "echo": wire.RcodeServerFailure} {
		if m := r.lookup(name, wire.TypeA); m.Rcode != want {
			t.Errorf("%s: %s", name, wire.RcodeToString[m.Rcode])
		}
	}
}

func TestAFailingClusterLeavesShortNamesToTheHost(t *testing.T) {
	gateway := startFake(t, func(q *wire.Msg, _ bool) *wire.Msg { return new(wire.Msg).SetRcode(q, wire.RcodeServerFailure) })
	upstream := startFake(t, upstreamZone(t))
	r := startResolver(t, connected(gateway, upstream), Options{})
	for name, want := range map[string]int{"intranet": wire.RcodeSuccess, "echo": wire.RcodeServerFailure, "echo.default.svc": wire.RcodeServerFailure} {
		if m := r.lookup(name, wire.TypeA); m.Rcode != want {
			t.Errorf("%s: %s", name, wire.RcodeToString[m.Rcode])
		}
	}
}

func TestALostPacketIsSentAgain(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	good := clusterZone(t)
	gateway := startFake(t, func(q *wire.Msg, tcp bool) *wire.Msg {
		mu.Lock()
		defer mu.Unlock()
		if seen[q.Question[0].Name]++; seen[q.Question[0].Name] == 1 {
			return nil
		}
		return good(q, tcp)
	})
	r := startResolver(t, connected(gateway), Options{})
	if m := r.lookup("echo", wire.TypeA); addresses(m) != "10.130.0.7" {
		t.Errorf("%v", m)
	}
}

// A liar on the server's own address sends everything but the response first.
func TestStrayResponsesAreIgnored(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			q := new(wire.Msg)
			q.Unpack(buf[:n])
			lie := func(change func(*wire.Msg)) {
				m := new(wire.Msg).SetReply(q)
				m.Answer = []wire.RR{rr(t, q.Question[0].Name+" 60 IN A 192.0.2.66")}
				change(m)
				msg, _ := m.Pack()
				conn.WriteToUDPAddrPort(msg, from)
			}
			conn.WriteToUDPAddrPort([]byte{1, 2, 3}, from)
			lie(func(m *wire.Msg) { m.Id++ })
			lie(func(m *wire.Msg) { m.Question[0].Name = "other.example.com." })
			lie(func(m *wire.Msg) { m.Question[0].Qtype = wire.TypeAAAA })
			lie(func(m *wire.Msg) { m.Response = false })
			lie(func(m *wire.Msg) { m.Opcode = wire.OpcodeNotify })
			lie(func(m *wire.Msg) { m.Question = nil })
			lie(func(m *wire.Msg) { m.Answer = []wire.RR{rr(t, q.Question[0].Name+" 60 IN A 192.0.2.1")} })
		}
	}()
	defer func() { conn.Close(); <-done }()
	r := startResolver(t, Config{Upstreams: []netip.AddrPort{localAddr(conn.LocalAddr())}}, Options{})
	if m := r.lookup("www.example.com", wire.TypeA); addresses(m) != "192.0.2.1" {
		t.Errorf("%v", m)
	}
}

func TestSourcePortsChange(t *testing.T) {
	ports := map[string]int{}
	var mu sync.Mutex
	conn, listener := listenBoth(t)
	listener.Close()
	good := zone(t)
	serveFake(t, &wire.Server{PacketConn: conn, Handler: wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) {
		mu.Lock()
		ports[w.RemoteAddr().String()]++
		mu.Unlock()
		w.WriteMsg(good(q, false))
	})})
	r := startResolver(t, Config{Upstreams: []netip.AddrPort{localAddr(conn.LocalAddr())}}, Options{})
	fresh := freshName()
	for i := range 10 * socketUses {
		r.lookup(fresh(i)+"example.com", wire.TypeA)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ports) < 10 {
		t.Errorf("%d questions from %d ports", 10*socketUses, len(ports))
	}
}

func TestTheServerItselfIsNoUpstream(t *testing.T) {
	r := startResolver(t, Config{}, Options{})
	r.Set(Config{Upstreams: []netip.AddrPort{netip.MustParseAddrPort(r.addr)}})
	if m := r.lookup("www.example.com", wire.TypeA); m.Rcode != wire.RcodeServerFailure {
		t.Errorf("%v", m)
	}
	if n := r.Stats().Queries; n != 1 {
		t.Errorf("asked itself: %d queries", n)
	}
}
