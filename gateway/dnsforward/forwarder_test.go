package dnsforward

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
)

// nameserver answers with handle on a loopback port, over UDP and TCP.
func nameserver(t testing.TB, handle dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	udp, tcp := listen(t)
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handle}, {Listener: tcp, Handler: handle, IdleTimeout: func() time.Duration { return time.Second }}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan struct{})
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

// listen returns sockets for UDP and TCP on one free port of the loopback.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return udp, tcp
		}
		tcp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// address answers every A question with an address that depends on the name.
func address(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5},
		A: addressOf(r.Question[0].Name)})
	_ = w.WriteMsg(m)
}

func addressOf(name string) net.IP {
	sum := 0
	for _, c := range name {
		sum = sum*31 + int(c)
	}
	return net.IPv4(10, byte(sum>>16), byte(sum>>8), byte(sum))
}

// serve runs a Forwarder on loopback sockets and returns their address, the same for UDP and TCP.
func serve(t testing.TB, limits Limits, upstreams ...netip.AddrPort) (addr string, f *Forwarder) {
	t.Helper()
	f, err := New(Config{Upstreams: upstreams, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp := listen(t)
	done := make(chan struct{})
	go func() { defer close(done); f.Serve(tcp, udp) }()
	t.Cleanup(func() {
		begin := time.Now()
		f.Stop()
		tcp.Close()
		udp.Close()
		closeStreams(t)
		<-done
		f.Close()
		if took := time.Since(begin); took >= answerTimeout {
			t.Errorf("closing took %v, as long as an answer may", took)
		}
	})
	return udp.LocalAddr().String(), f
}

// The data plane closes the streams of its listener with it; on loopback the test does.
var streams struct {
	sync.Mutex
	open map[testing.TB][]net.Conn
}

func dialStream(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	streams.Lock()
	defer streams.Unlock()
	if streams.open == nil {
		streams.open = map[testing.TB][]net.Conn{}
	}
	streams.open[t] = append(streams.open[t], c)
	return c
}

func closeStreams(t testing.TB) {
	streams.Lock()
	defer streams.Unlock()
	for _, c := range streams.open[t] {
		c.Close()
	}
	delete(streams.open, t)
}

// checkLeaks fails the test if goroutines are left at its end; call it first.
func checkLeaks(t *testing.T) { t.Cleanup(func() { goleak.VerifyNone(t) }) }

// takesUpTo runs do until it takes no longer than limit, and fails if that never happens: a busy machine
// holds do up now and then, what do waits for by design every time.
func takesUpTo(t *testing.T, limit time.Duration, do func()) {
	t.Helper()
	var took time.Duration
	for range 5 {
		begin := time.Now()
		if do(); t.Failed() {
			return
		}
		if took = time.Since(begin); took <= limit {
			return
		}
	}
	t.Errorf("took %v, want %v at most", took, limit)
}

func exchange(t testing.TB, network, addr string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 15 * time.Second, UDPSize: 65535}
	r, _, err := c.Exchange(m, addr)
	if err != nil {
		t.Fatalf("%s %s: %v", network, m.Question[0].Name, err)
	}
	return r
}

func TestForwarderAnswers(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{}, nameserver(t, address))
	for _, network := range []string{"udp", "tcp"} {
		r := exchange(t, network, addr, new(dns.Msg).SetQuestion("echo.default.", dns.TypeA))
		if a, ok := r.Answer[0].(*dns.A); !ok || !a.A.Equal(addressOf("echo.default.")) {
			t.Errorf("%s: %v", network, r)
		}
	}
}

func TestForwarderTellsQuestionsApart(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		time.Sleep(rand.N(5 * time.Millisecond)) // in whatever order
		address(w, r)
	}))
	for _, network := range []string{"udp", "tcp"} {
		var group sync.WaitGroup
		for i := range 300 {
			group.Go(func() {
				name := fmt.Sprintf("n%d.%s.example.", i, network)
				m := new(dns.Msg).SetQuestion(name, dns.TypeA)
				m.Id = 4711 // all the same
				c := dns.Client{Net: network, Timeout: 8 * time.Second}
				r, _, err := c.Exchange(m, addr)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				} else if !r.Answer[0].(*dns.A).A.Equal(addressOf(name)) {
					t.Errorf("%s got the answer of another", name)
				}
			})
			if i%50 == 49 { // below the limit of connections, and of the kernel's buffer of datagrams
				group.Wait()
			}
		}
		group.Wait()
	}
}

func TestForwarderPassesThroughWhatItDoesNotKnow(t *testing.T) {
	checkLeaks(t)
	var seen atomic.Pointer[dns.Msg]
	addr, _ := serve(t, Limits{}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		seen.Store(r.Copy())
		m := new(dns.Msg).SetReply(r)
		m.Truncated = true
		m.Answer = []dns.RR{&dns.RFC3597{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: 65280, Class: dns.ClassINET}, Rdata: "00ff10"}}
		m.SetEdns0(1400, true).Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("back")}}
		_ = w.WriteMsg(m)
	}))
	q := new(dns.Msg).SetQuestion("ECHO.default.", 65280)
	q.CheckingDisabled = true
	q.SetEdns0(1232, true).Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65002, Data: []byte("forth")}}
	r := exchange(t, "udp", addr, q)
	if s := seen.Load(); s.Question[0] != q.Question[0] || !s.CheckingDisabled || s.IsEdns0().String() != q.IsEdns0().String() {
		t.Errorf("the nameserver saw %v", s)
	}
	if !r.Truncated || r.Answer[0].(*dns.RFC3597).Rdata != "00ff10" || string(r.IsEdns0().Option[0].(*dns.EDNS0_LOCAL).Data) != "back" {
		t.Errorf("the client saw %v", r)
	}
}

func TestForwarderLargeAnswerOverTCP(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		for range 200 {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 250)}})
		}
		_ = w.WriteMsg(m)
	}))
	if r := exchange(t, "tcp", addr, new(dns.Msg).SetQuestion("big.", dns.TypeTXT)); len(r.Answer) != 200 {
		t.Errorf("%d records", len(r.Answer))
	}
}

func TestForwarderRefusesWhatItDoesNotForward(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{}, nameserver(t, func(dns.ResponseWriter, *dns.Msg) { t.Error("it was forwarded") }))
	update := new(dns.Msg).SetUpdate("cluster.local.")
	if r := exchange(t, "udp", addr, update); r.Rcode != dns.RcodeNotImplemented {
		t.Errorf("update: %v", r)
	}
	if r := exchange(t, "tcp", addr, new(dns.Msg).SetAxfr("cluster.local.")); r.Rcode != dns.RcodeRefused {
		t.Errorf("transfer: %v", r)
	}
}

func TestForwarderAsksTheNextServer(t *testing.T) {
	checkLeaks(t)
	failing := nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
	})
	closed := netip.MustParseAddrPort("127.0.0.1:1") // nobody listens: refused at once
	for name, first := range map[string]netip.AddrPort{"refused": closed, "failing": failing} {
		t.Run(name, func(t *testing.T) {
			addr, _ := serve(t, Limits{}, first, nameserver(t, address))
			for _, network := range []string{"udp", "tcp"} {
				takesUpTo(t, resendAfter, func() {
					if r := exchange(t, network, addr, new(dns.Msg).SetQuestion("echo.", dns.TypeA)); r.Rcode != dns.RcodeSuccess {
						t.Errorf("%s: %v", network, r)
					}
				})
			}
		})
	}
}

func TestForwarderPassesAFailureOn(t *testing.T) {
	checkLeaks(t)
	var asked atomic.Int32
	addr, _ := serve(t, Limits{}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		asked.Add(1)
		_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
	}))
	if r := exchange(t, "udp", addr, new(dns.Msg).SetQuestion("broken.", dns.TypeA)); r.Rcode != dns.RcodeServerFailure || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), r)
	}
}

func TestForwarderAsksAgainAfterALoss(t *testing.T) {
	checkLeaks(t)
	var asked atomic.Int32
	addr, _ := serve(t, Limits{}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if asked.Add(1) > 1 {
			address(w, r)
		}
	}))
	takesUpTo(t, 2*resendAfter, func() {
		asked.Store(0)
		begin := time.Now()
		r := exchange(t, "udp", addr, new(dns.Msg).SetQuestion("echo.", dns.TypeA))
		if took := time.Since(begin); len(r.Answer) != 1 || took < resendAfter {
			t.Errorf("after %v: %v", took, r)
		}
	})
}

func TestForwarderSaysWhenNobodyAnswers(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{}, nameserver(t, func(dns.ResponseWriter, *dns.Msg) {}))
	var r *dns.Msg
	takesUpTo(t, answerTimeout+300*time.Millisecond, func() {
		r = exchange(t, "udp", addr, new(dns.Msg).SetQuestion("echo.", dns.TypeA).SetEdns0(1232, false))
	})
	if ede, ok := r.IsEdns0().Option[0].(*dns.EDNS0_EDE); r.Rcode != dns.RcodeServerFailure || !ok || ede.InfoCode != dns.ExtendedErrorCodeNoReachableAuthority {
		t.Errorf("answer %v", r)
	}
}

func TestForwarderIgnoresForgedAnswers(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		other := new(dns.Msg).SetReply(r)
		other.Question[0].Name = "bank."
		_ = w.WriteMsg(other) // right id, another question
		number := new(dns.Msg).SetReply(r)
		number.Id++
		_ = w.WriteMsg(number)
		_, _ = w.Write([]byte("rubbish"))
		address(w, r)
	}))
	if r := exchange(t, "udp", addr, new(dns.Msg).SetQuestion("echo.", dns.TypeA)); len(r.Answer) != 1 {
		t.Errorf("answer %v", r)
	}
}

// dropped is how many datagrams f did not take.
func dropped(t *testing.T, f *Forwarder) float64 {
	t.Helper()
	var m dto.Metric
	if err := f.metrics.dropped.WithLabelValues("udp").Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func TestForwarderLimitsAPeer(t *testing.T) {
	checkLeaks(t)
	release := make(chan struct{})
	var once sync.Once
	addr, f := serve(t, Limits{Pending: 3}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		<-release
		address(w, r)
	}))
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 10 {
		if _, err := conn.Write(pack(t, fmt.Sprintf("n%d.", i), dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); dropped(t, f) < 7; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v of 10 questions were dropped at a limit of 3", dropped(t, f))
		}
	}
	once.Do(func() { close(release) })
	buf := make([]byte, 1000)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for range 3 {
		if _, err := conn.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := conn.Read(buf); err == nil || dropped(t, f) != 7 {
		t.Errorf("more than 3 questions were answered at a limit of 3; %v were dropped", dropped(t, f))
	}
}

func TestForwarderPipelinesOverTCP(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if strings.HasPrefix(r.Question[0].Name, "slow") {
			time.Sleep(200 * time.Millisecond)
		}
		address(w, r)
	}))
	conn := &dns.Conn{Conn: dialStream(t, addr)}
	for _, name := range []string{"slow.", "fast."} {
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range 2 {
		m, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Question[0].Name)
	}
	if slices.Sort(got); !slices.Equal(got, []string{"fast.", "slow."}) {
		t.Errorf("answers to %v", got)
	}
}

func TestForwarderSurvivesBrokenStreams(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{}, nameserver(t, address))
	for name, bytes := range map[string][]byte{
		"a length alone":       {1, 0},
		"a length of nothing":  {0, 0},
		"less than announced":  {0xff, 0xff, 1, 2, 3},
		"rubbish":              append([]byte{0, 20}, make([]byte, 20)...),
		"an answer, no query":  append([]byte{0, 12}, []byte{0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}...),
		"half of one, then go": append([]byte{0, 50}, make([]byte, 20)...),
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(bytes); err != nil {
			t.Error(name, err)
		}
		c.Close()
	}
	exchange(t, "tcp", addr, new(dns.Msg).SetQuestion("echo.", dns.TypeA))
}

func TestForwarderLimitsConnections(t *testing.T) {
	checkLeaks(t)
	addr, _ := serve(t, Limits{Conns: 2}, nameserver(t, address))
	for range 2 {
		c := dialStream(t, addr)
		if err := writeMessage(c, pack(t, "echo.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if _, err := readMessage(c); err != nil { // so that it is surely counted
			t.Fatal(err)
		}
	}
	third := dialStream(t, addr)
	third.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err != io.EOF && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Errorf("the third connection: %v", err)
	}
}

func TestForwarderReplacesAClosedConnection(t *testing.T) {
	checkLeaks(t)
	var conns atomic.Int32
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() { // a nameserver that hangs up after each answer
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer c.Close()
				var n [2]byte
				if _, err := io.ReadFull(c, n[:]); err != nil {
					return
				}
				raw := make([]byte, binary.BigEndian.Uint16(n[:]))
				if _, err := io.ReadFull(c, raw); err != nil {
					return
				}
				raw[2] |= 0x80
				_ = writeMessage(c, raw)
			}()
		}
	}()
	addr, _ := serve(t, Limits{}, listener.Addr().(*net.TCPAddr).AddrPort())
	for range 20 {
		exchange(t, "tcp", addr, new(dns.Msg).SetQuestion("echo.", dns.TypeA))
	}
	if n := conns.Load(); n != 20 {
		t.Errorf("%d connections for 20 questions", n)
	}
}

func TestLinesAreShared(t *testing.T) {
	checkLeaks(t)
	var mu sync.Mutex
	ports := map[string]bool{}
	addr, _ := serve(t, Limits{}, nameserver(t, func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		ports[w.RemoteAddr().Network()+w.RemoteAddr().String()] = true
		mu.Unlock()
		address(w, r)
	}))
	for range 50 {
		exchange(t, "udp", addr, new(dns.Msg).SetQuestion("echo.", dns.TypeA))
		exchange(t, "tcp", addr, new(dns.Msg).SetQuestion("echo.", dns.TypeA))
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ports) != 2 {
		t.Errorf("%d sockets for 100 questions: %v", len(ports), ports)
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	for _, s := range []string{"0.0.0.0:53", "224.0.0.1:53", "127.0.0.1:0"} {
		if _, err := New(Config{Upstreams: []netip.AddrPort{netip.MustParseAddrPort(s)}}); err == nil {
			t.Errorf("%s was accepted", s)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no nameserver was accepted")
	}
}

func TestReadResolver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	text := "search culvert.svc.k8s.example svc.k8s.example k8s.example\nnameserver 10.130.0.10\nnameserver 10.132.0.9\nnameserver fd00:130::a\noptions ndots:5\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := ReadResolver(path, []netip.Addr{netip.MustParseAddr("10.132.0.9")})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Servers); got != "[10.130.0.10:53 [fd00:130::a]:53]" {
		t.Errorf("servers %s", got)
	}
	if got := r.ClusterDomain(); got != "k8s.example" {
		t.Errorf("cluster domain %s", got)
	}
	if got := (Resolver{Search: []string{"corp.example", "svc."}}).ClusterDomain(); got != "cluster.local" {
		t.Errorf("cluster domain %s without a search list of a pod", got)
	}
	if _, err := ReadResolver(path+"-missing", nil); err == nil || !strings.Contains(err.Error(), "resolv.conf-missing") {
		t.Errorf("missing file: %v", err)
	}
}

func BenchmarkForwarder(b *testing.B) {
	addr, _ := serve(b, Limits{Rate: 1 << 30, Burst: 1 << 30}, nameserver(b, address))
	raw := pack(b, "echo.default.svc.cluster.local.", dns.TypeA)
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		buf := make([]byte, 1500)
		for pb.Next() {
			if _, err := conn.Write(raw); err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
