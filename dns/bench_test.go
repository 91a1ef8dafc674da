package dns

import (
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// BenchmarkReplyFromMemory is the work per cached query without the sockets. It must not allocate.
func BenchmarkReplyFromMemory(b *testing.B) {
	s, msg := remembering(b, "echo.default.svc.cluster.local.")
	out := make([]byte, 0, usualBuffer)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if reply, _, _ := s.quick(out, msg, false, now); reply == nil {
			b.Fatal("not from memory")
		}
	}
}

// remembering returns a server that remembers the answer to the packed query msg.
func remembering(t testing.TB, name string) (s *Server, msg []byte) {
	t.Helper()
	s = NewServer(Options{})
	m := question(name, wire.TypeA)
	m.SetEdns0(1232, false)
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q, v := parseQuery(msg)
	if v != verdictAsk {
		t.Fatal(v)
	}
	response, _ := zone(t, name+" 3600 IN A 10.130.0.7", name+" 3600 IN A 10.130.0.8")(m, false).Pack()
	a, err := parseAnswer(response, q.end, upstreamLifetimes, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.state.Load().upstreamCache.put(string(q.appendKey(nil)), a)
	return s, msg
}

// BenchmarkCached asks over UDP for one name from memory: one client for the latency, many for the rate.
func BenchmarkCached(b *testing.B) {
	gateway := startFake(b, zone(b, "echo.default.svc.cluster.local. 3600 IN A 10.130.0.7"))
	r := startResolver(b, connected(gateway), Options{})
	for _, clients := range []int{1, 16} {
		b.Run(map[int]string{1: "one", 16: "sixteen"}[clients], func(b *testing.B) {
			load(b, r.addr, clients, func(int) string { return "echo.default.svc.cluster.local." })
		})
	}
}

// BenchmarkUncached asks for a new name each time, BenchmarkDirect the same of the server behind.
func BenchmarkUncached(b *testing.B) {
	gateway := startFake(b, zone(b))
	r := startResolver(b, connected(gateway), Options{})
	load(b, r.addr, 16, freshName())
}

func BenchmarkDirect(b *testing.B) {
	gateway := startFake(b, zone(b))
	load(b, gateway.addr.String(), 16, freshName())
}

func freshName() func(int) string {
	run := time.Now().Format("150405.000000")
	return func(i int) string { return "n" + strconv.Itoa(i) + "-" + run + ".default.svc.cluster.local." }
}

// load asks b.N questions of addr from several clients, each with one question at a time, and reports rate and latency.
func load(b *testing.B, addr string, clients int, name func(int) string) {
	took := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	b.ResetTimer()
	start := time.Now()
	for c := range clients {
		n := b.N / clients
		if c < b.N%clients {
			n++
		}
		wg.Go(func() { took[c] = client1(b, addr, c, clients, n, name) })
	}
	wg.Wait()
	elapsed := time.Since(start)
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) > 0 {
		b.ReportMetric(float64(len(all))/elapsed.Seconds(), "qps")
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	}
}

func client1(b *testing.B, addr string, id, clients, n int, name func(int) string) []time.Duration {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		b.Error(err)
		return nil
	}
	defer conn.Close()
	took := make([]time.Duration, 0, n)
	buf := make([]byte, 4096)
	for i := range n {
		msg, _ := question(name(i*clients+id), wire.TypeA).Pack()
		start := time.Now()
		conn.SetDeadline(start.Add(5 * time.Second))
		conn.Write(msg)
		if _, err := conn.Read(buf); err != nil || buf[0] != msg[0] || buf[1] != msg[1] {
			b.Errorf("query %d: %v", i, err)
			return took
		}
		took = append(took, time.Since(start))
	}
	return took
}
