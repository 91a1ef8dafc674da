package dns

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a resolver on loopback, by UDP and TCP on one port, that answers as its handler says.
type fake struct {
	addr    netip.AddrPort
	queries atomic.Int64
}

// startFake runs a fake until the test ends. handle fills in the reply; returning nil keeps silent.
func startFake(t testing.TB, handle func(q *wire.Msg, tcp bool) *wire.Msg) *fake {
	t.Helper()
	f := new(fake)
	conn, listener := listenBoth(t)
	f.addr = localAddr(conn.LocalAddr())
	h := wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) {
		f.queries.Add(1)
		_, tcp := w.RemoteAddr().(*net.TCPAddr)
		if m := handle(q, tcp); m != nil {
			w.WriteMsg(m)
		}
	})
	serveFake(t, &wire.Server{PacketConn: conn, Handler: h})
	serveFake(t, &wire.Server{Listener: listener, Handler: h, IdleTimeout: func() time.Duration { return time.Second }})
	return f
}

func serveFake(t testing.TB, srv *wire.Server) {
	started, done := make(chan struct{}), make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	go func() { defer close(done); srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { srv.Shutdown(); <-done })
}

// listenBoth binds one loopback port for UDP and TCP.
func listenBoth(t testing.TB) (*net.UDPConn, net.Listener) {
	t.Helper()
	for range 20 {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", conn.LocalAddr().String())
		if err == nil {
			return conn, listener
		}
		conn.Close()
	}
	t.Fatal("no port free for UDP and TCP")
	return nil, nil
}

// zone is a handler for a handful of records in zone-file form. Names it does not have are denied with an SOA record.
func zone(t testing.TB, records ...string) func(*wire.Msg, bool) *wire.Msg {
	t.Helper()
	var rrs []wire.RR
	names := map[string]bool{}
	for _, s := range records {
		rr, err := wire.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
		names[wire.CanonicalName(rr.Header().Name)] = true
	}
	soa, _ := wire.NewRR("cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30")
	return func(q *wire.Msg, tcp bool) *wire.Msg {
		m := new(wire.Msg).SetReply(q)
		m.Authoritative, m.RecursionAvailable, m.Compress = true, true, true
		name := q.Question[0].Name
		for range 8 { // follow aliases
			next := ""
			for _, rr := range rrs {
				h := rr.Header()
				if wire.CanonicalName(h.Name) != wire.CanonicalName(name) {
					continue
				}
				if h.Rrtype == q.Question[0].Qtype || q.Question[0].Qtype == wire.TypeANY {
					rr = wire.Copy(rr)
					rr.Header().Name = name
					m.Answer = append(m.Answer, rr)
				} else if alias, ok := rr.(*wire.CNAME); ok {
					rr = wire.Copy(rr)
					rr.Header().Name = name
					m.Answer = append(m.Answer, rr)
					next = alias.Target
				}
			}
			if next == "" {
				break
			}
			name = next
		}
		if len(m.Answer) == 0 {
			m.Ns = []wire.RR{wire.Copy(soa)}
			if !names[wire.CanonicalName(name)] {
				m.Rcode = wire.RcodeNameError
			}
		}
		size := wire.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			m.SetEdns0(1232, opt.Do())
			size = int(opt.UDPSize())
		}
		if !tcp {
			m.Truncate(size)
		}
		return m
	}
}

// silent never answers.
func silent(*wire.Msg, bool) *wire.Msg { return nil }

// resolver is a Server under test.
type resolver struct {
	*Server
	t    testing.TB
	addr string
	stop func()
}

// startResolver runs a server on loopback until the test ends.
func startResolver(t testing.TB, cfg Config, opts Options) *resolver {
	t.Helper()
	conn, listener := listenBoth(t)
	opts.UDP, opts.TCP = []net.PacketConn{conn}, []net.Listener{listener}
	s := NewServer(opts)
	s.Set(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	r := &resolver{Server: s, t: t, addr: conn.LocalAddr().String()}
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("Run does not end")
		}
	}
	t.Cleanup(r.stop)
	return r
}

// connected is the configuration most tests begin with.
func connected(gateway *fake, upstreams ...*fake) Config {
	cfg := Config{Namespace: "default", Gateway: []netip.AddrPort{gateway.addr}, Up: true}
	for _, u := range upstreams {
		cfg.Upstreams = append(cfg.Upstreams, u.addr)
	}
	return cfg
}

func question(name string, qtype uint16) *wire.Msg {
	return new(wire.Msg).SetQuestion(wire.Fqdn(name), qtype)
}

// ask sends m by UDP, or TCP, and returns the reply.
func (r *resolver) ask(network string, m *wire.Msg) *wire.Msg {
	r.t.Helper()
	c := &wire.Client{Net: network, Timeout: 12 * time.Second, UDPSize: 65535}
	reply, _, err := c.Exchange(m, r.addr)
	if err != nil {
		r.t.Fatalf("%s %s: %v", m.Question[0].Name, network, err)
	}
	return reply
}

func (r *resolver) lookup(name string, qtype uint16) *wire.Msg {
	r.t.Helper()
	return r.ask("udp", question(name, qtype))
}

// heard is the gateway's reply m as it arrives.
func heard(t testing.TB, m *wire.Msg) reply {
	t.Helper()
	r := reply{msg: new(wire.Msg), source: SourceCluster}
	if err := r.msg.Unpack(pack(t, m)); err != nil {
		t.Fatal(err)
	}
	return r
}
