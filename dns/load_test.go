package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// 10,000 questions, 100 at a time, half of them of the cluster, half new: every one is answered, and about itself.
func TestNoQuestionIsLost(t *testing.T) {
	gateway := startFake(t, clusterZone(t))
	upstream := startFake(t, func(q *wire.Msg, tcp bool) *wire.Msg {
		m := new(wire.Msg).SetReply(q)
		m.Answer = []wire.RR{&wire.TXT{Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeTXT, Class: wire.ClassINET, Ttl: 60}, Txt: []string{q.Question[0].Name}}}
		return m
	})
	r := startResolver(t, connected(gateway, upstream), Options{})
	var wg sync.WaitGroup
	for c := range 100 {
		wg.Go(func() {
			conn, err := net.Dial("udp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for i := range 100 {
				name, qtype := "echo.default.", wire.TypeA
				if i%2 == 0 {
					name, qtype = fmt.Sprintf("n%d-%d.example.com.", c, i), wire.TypeTXT
				}
				if err := askRaw(conn, name, qtype); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	if s := r.Stats(); s.Queries != 10_000 || s.ServFail != 0 || s.Dropped != 0 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

// askRaw asks one question on conn, without repeating it.
func askRaw(conn net.Conn, name string, qtype uint16) error {
	q := question(name, qtype)
	msg, err := q.Pack()
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(msg); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	m := new(wire.Msg)
	if err := m.Unpack(buf[:n]); err != nil {
		return err
	}
	if m.Id != q.Id || m.Rcode != wire.RcodeSuccess || len(m.Answer) != 1 || m.Answer[0].Header().Name != name || m.Question[0].Name != name {
		return fmt.Errorf("reply %v", m)
	}
	if txt, ok := m.Answer[0].(*wire.TXT); ok && txt.Txt[0] != name {
		return fmt.Errorf("somebody else's answer %v", m)
	}
	return nil
}

// bigTXT answers every question with 4 kB of text.
func bigTXT(q *wire.Msg, tcp bool) *wire.Msg {
	m := new(wire.Msg).SetReply(q)
	txt := &wire.TXT{Hdr: wire.RR_Header{Name: q.Question[0].Name, Rrtype: wire.TypeTXT, Class: wire.ClassINET, Ttl: 60}}
	for range 20 {
		txt.Txt = append(txt.Txt, strings.Repeat("x", 200))
	}
	m.Answer = []wire.RR{txt}
	size := wire.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = int(opt.UDPSize())
		m.SetEdns0(1232, false)
	}
	if !tcp {
		m.Truncate(size)
	}
	return m
}

func TestLongAnswers(t *testing.T) {
	gateway, upstream := startFake(t, bigTXT), startFake(t, bigTXT)
	r := startResolver(t, connected(gateway, upstream), Options{})
	for _, name := range []string{"big.default.svc.cluster.local", "big", "big.example.com"} {
		for round := range 2 { // asked and from memory
			m := r.lookup(name, wire.TypeTXT)
			if !m.Truncated || len(m.Answer) != 0 {
				t.Errorf("%s by UDP, round %d: %v", name, round, m)
			}
			m = r.ask("tcp", question(name, wire.TypeTXT))
			if m.Truncated || len(m.Answer) != 1 || len(m.Answer[0].(*wire.TXT).Txt) != 20 {
				t.Errorf("%s by TCP, round %d: %v", name, round, m)
			}
			q := question(name, wire.TypeTXT)
			q.SetEdns0(8192, false)
			m = r.ask("udp", q)
			if m.Truncated || len(m.Answer) != 1 || m.IsEdns0() == nil {
				t.Errorf("%s by UDP in 8192 bytes, round %d: %v", name, round, m)
			}
		}
	}
}

func TestQuestionsGoUpstreamAsTheyWere(t *testing.T) {
	seen := make(chan *wire.Msg, 10)
	upstream := startFake(t, func(q *wire.Msg, tcp bool) *wire.Msg {
		seen <- q.Copy()
		m := new(wire.Msg).SetReply(q)
		m.AuthenticatedData = true
		return m
	})
	r := startResolver(t, Config{Upstreams: []netip.AddrPort{upstream.addr}}, Options{})
	q := question("wWw.eXample.com", 65280)
	q.RecursionDesired, q.AuthenticatedData, q.CheckingDisabled = false, true, true
	q.SetEdns0(1400, true)
	q.IsEdns0().Option = []wire.EDNS0{
		&wire.EDNS0_COOKIE{Code: wire.EDNS0COOKIE, Cookie: "0102030405060708"},
	}
	r.ask("udp", q)
	got := <-seen
	if got.Question[0] != q.Question[0] || got.RecursionDesired || !got.AuthenticatedData || !got.CheckingDisabled {
		t.Errorf("became %v", got)
	}
	if opt := got.IsEdns0(); opt == nil || opt.UDPSize() != 1400 || !opt.Do() || len(opt.Option) != 0 {
		t.Errorf("EDNS became %v", opt)
	}
	q.IsEdns0().Option = []wire.EDNS0{&wire.EDNS0_NSID{Code: wire.EDNS0NSID}}
	r.ask("udp", q)
	if opt := (<-seen).IsEdns0(); opt == nil || len(opt.Option) != 1 {
		t.Errorf("option lost: %v", opt)
	}
	if m := r.lookup("www.example.com", wire.TypeA); (<-seen).IsEdns0() != nil || m.IsEdns0() != nil {
		t.Error("EDNS without being asked")
	}
	version := question("version.bind", wire.TypeTXT)
	version.Question[0].Qclass = wire.ClassCHAOS
	r.ask("udp", version)
	if got := <-seen; got.Question[0].Qclass != wire.ClassCHAOS {
		t.Errorf("class became %v", got)
	}
}

func TestBadMessages(t *testing.T) {
	r := startResolver(t, Config{}, Options{})
	conn, err := net.Dial("udp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	response := new(wire.Msg).SetReply(question("x", wire.TypeA))
	for _, msg := range [][]byte{{}, {1}, make([]byte, 11), pack(t, response)} { // no reply
		conn.Write(msg)
	}
	bad := pack(t, question("x", wire.TypeA))
	conn.Write(bad[:len(bad)-1])
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	m := new(wire.Msg)
	if err != nil || m.Unpack(buf[:n]) != nil || m.Rcode != wire.RcodeFormatError || buf[0] != bad[0] {
		t.Errorf("%v %v", m, err)
	}
	for _, tt := range []struct {
		change func(*wire.Msg)
		rcode  int
	}{
		{func(m *wire.Msg) { m.Opcode = wire.OpcodeUpdate }, wire.RcodeNotImplemented},
		{func(m *wire.Msg) { m.SetEdns0(512, false); m.IsEdns0().SetVersion(7) }, wire.RcodeBadVers},
		{func(m *wire.Msg) { m.Question[0].Qtype = wire.TypeAXFR }, wire.RcodeRefused},
	} {
		q := question("x", wire.TypeA)
		tt.change(q)
		if m := r.ask("tcp", q); m.Rcode != tt.rcode {
			t.Errorf("%v", m)
		}
	}
}

func TestOnlyAllowedSourcesAreAnswered(t *testing.T) {
	r := startResolver(t, Config{}, Options{AllowedSource: func(a netip.Addr) bool { return a != netip.MustParseAddr("127.0.0.1") }})
	conn, err := net.Dial("udp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(pack(t, question("x", wire.TypeA)))
	waitFor(t, "the query to be refused", func() bool { return r.Stats().Refused == 1 })
	tcp, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcp.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := tcp.Read(make([]byte, 1)); err == nil {
		t.Error("a connection from a source that is not allowed stays open")
	}
	other := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	allowed, err := other.Dial("udp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer allowed.Close()
	allowed.SetDeadline(time.Now().Add(5 * time.Second))
	allowed.Write(pack(t, question("x", wire.TypeA)))
	if _, err := allowed.Read(make([]byte, 512)); err != nil {
		t.Error(err)
	}
}

func TestHostAddrs(t *testing.T) {
	addrs := []net.Addr{&net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}
	reads := 0
	h := HostAddrs{list: func() ([]net.Addr, error) { reads++; return addrs, nil }}
	for range 10 {
		if !h.Contains(netip.MustParseAddr("::ffff:192.0.2.1")) || h.Contains(netip.MustParseAddr("192.0.2.2")) {
			t.Error("wrong about the addresses")
		}
	}
	if reads != 1 {
		t.Errorf("read the addresses %d times", reads)
	}
	addrs = append(addrs, &net.IPNet{IP: net.ParseIP("2001:db8::1"), Mask: net.CIDRMask(64, 128)})
	h.read = h.read.Add(-hostAddrsMiss)
	if !h.Contains(netip.MustParseAddr("2001:db8::1")) {
		t.Error("a new address is not noticed")
	}
	addrs = nil
	h.read = h.read.Add(-hostAddrsHit)
	if h.Contains(netip.MustParseAddr("192.0.2.1")) {
		t.Error("a lost address is not noticed")
	}
	if !new(HostAddrs).Contains(netip.MustParseAddr("127.0.0.1")) {
		t.Error("127.0.0.1 is not ours")
	}
}

// dialTCP connects to r; the connection ends with the test.
func dialTCP(t *testing.T, r *resolver) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

func TestPipelining(t *testing.T) {
	const questions = 5 * tcpPipeline
	impatient(t, time.Hour, time.Hour)
	overtaken := make(chan struct{})
	slowFirst := func(q *wire.Msg, _ bool) *wire.Msg {
		if strings.HasPrefix(q.Question[0].Name, "n0.") {
			<-overtaken
		}
		return new(wire.Msg).SetReply(q)
	}
	upstream := startFake(t, slowFirst)
	release := sync.OnceFunc(func() { close(overtaken) })
	t.Cleanup(release)
	r := startResolver(t, Config{Upstreams: []netip.AddrPort{upstream.addr}}, Options{})
	conn := dialTCP(t, r)
	out := bufio.NewWriter(conn)
	for i := range questions {
		q := question(fmt.Sprintf("n%d.example.com", i), wire.TypeA)
		q.Id = uint16(i)
		out.Write(frame(nil, pack(t, q)))
	}
	out.Flush()
	conn.CloseWrite() // the replies come all the same
	got := map[uint16]bool{}
	var first uint16
	for i := range questions {
		msg, err := readFrame(conn)
		if err != nil {
			t.Fatalf("reply %d: %v", i, err)
		}
		id := binary.BigEndian.Uint16(msg)
		if i == 0 {
			first = id
			release()
		}
		got[id] = true
	}
	if len(got) != questions || first == 0 {
		t.Errorf("%d of %d replies, the first to question %d", len(got), questions, first)
	}
	if _, err := readFrame(conn); err != io.EOF {
		t.Errorf("after the last reply: %v", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	r := startResolver(t, Config{}, Options{})
	for range tcpConnections {
		dialTCP(t, r)
	}
	waitFor(t, "the connections", func() bool { return r.Stats().TCPConnections == tcpConnections })
	if _, err := dialTCP(t, r).Read(make([]byte, 1)); err == nil {
		t.Error("one connection too many stays open")
	}
}

func TestAConnectionThatSendsNonsenseIsClosed(t *testing.T) {
	r := startResolver(t, Config{}, Options{})
	conn := dialTCP(t, r)
	conn.Write([]byte{0xFF, 0xFF})
	conn.Write(make([]byte, maxQueryBytes+10))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("stays open")
	}
	waitFor(t, "its end", func() bool { return r.Stats().TCPConnections == 0 })
}

// Run waits for none of the questions that are going on: each takes an hour.
func TestRunEndsPromptly(t *testing.T) {
	impatient(t, time.Hour, time.Hour)
	slow := startFake(t, silent)
	cfg := connected(slow, slow)
	cfg.LookupTimeout = time.Hour
	r := startResolver(t, cfg, Options{})
	conn := dialTCP(t, r)
	udp, err := net.Dial("udp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for i, name := range []string{"a.example.com", "echo", "echo.default.svc", "b.example.com"} {
		msg := pack(t, question(name, wire.TypeA))
		udp.Write(msg)
		conn.Write(frame(nil, msg))
		waitFor(t, "the questions", func() bool { return r.Stats().InFlight == 2*(i+1) })
	}
	r.stop()
}

func TestRunFailsWithItsSockets(t *testing.T) {
	conn, listener := listenBoth(t)
	s := NewServer(Options{UDP: []net.PacketConn{conn}, TCP: []net.Listener{listener}})
	conn.Close()
	if err := s.Run(context.Background()); err == nil {
		t.Error("no error although a socket was closed")
	}
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("the other socket is still open")
	}
}

// The configuration changes all the time while questions are asked; every reply fits one of the configurations.
func TestSetDuringQuestions(t *testing.T) {
	a, b := startFake(t, zone(t, "echo.default.svc.cluster.local. 30 IN A 10.130.0.1")), startFake(t, zone(t, "echo.default.svc.cluster.local. 30 IN A 10.130.0.2"))
	r := startResolver(t, connected(a), Options{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			cfg := connected([]*fake{a, b}[i%2], a)
			cfg.Generation = uint64(i / 3)
			r.Set(cfg)
			time.Sleep(time.Millisecond)
		}
	})
	for range 300 {
		if m := r.lookup("echo", wire.TypeA); addresses(m) != "10.130.0.1" && addresses(m) != "10.130.0.2" {
			t.Errorf("%v", m)
		}
	}
	close(stop)
	wg.Wait()
	r.Set(connected(b))
	if m := r.lookup("echo", wire.TypeA); addresses(m) != "10.130.0.2" {
		t.Errorf("after the last change: %v", m)
	}
}
