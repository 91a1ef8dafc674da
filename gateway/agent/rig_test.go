package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/tun/netstack"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/internal/wgdev"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is an agent under test.
type running struct {
	*testing.T
	agent            *Agent
	carrier, control netip.AddrPort
	stop             func() error    // ends it and returns what Run returned
	done             <-chan struct{} // closed when Run has returned
}

// freePort returns a port that nobody has on the loopback of either family.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		l6, err := net.Listen("tcp", netip.AddrPortFrom(netip.IPv6Loopback(), port).String())
		l.Close()
		if err == nil {
			l6.Close()
			return port
		}
	}
	t.Fatal("no port is free on both loopback addresses")
	return 0
}

// start runs an agent until the test ends.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	for _, port := range []*uint16{&cfg.CarrierPort, &cfg.ControlPort} {
		if *port == 0 {
			*port = freePort(t)
		}
	}
	cfg.PodUID, cfg.Log = "pod-1", slog.New(slog.NewTextHandler(t.Output(), nil))
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var ended error
	go func() { defer close(done); ended = a.Run(ctx) }()
	r := &running{T: t, agent: a, carrier: netip.AddrPortFrom(loopback[0], cfg.CarrierPort), control: netip.AddrPortFrom(loopback[0], cfg.ControlPort), done: done}
	r.stop = func() error {
		cancel()
		select {
		case <-done:
			return ended
		case <-time.After(20 * time.Second):
			return errors.New("it does not end")
		}
	}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// ask sends a request over a stream of its own.
func (r *running) ask(req enrol.Request) (enrol.Answer, error) {
	r.Helper()
	c, err := net.Dial("tcp", r.control.String())
	if err != nil {
		r.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return enrol.Enrol(ctx, c, req)
}

// workstation is a node with WireGuard in user space and a network stack of its own.
type workstation struct {
	*running
	*netstack.Net
	private wgtypes.Key
	request enrol.Request
	leave   func() // ends it; called by the test's end too
}

// join enrols a new node of that name and connects it. Pairs are its twins.
func (r *running) join(name, node, agent, pairs string) *workstation {
	r.Helper()
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		r.Fatal(err)
	}
	w := &workstation{running: r, private: private, request: request(name, "", node, agent, pairs)}
	w.request.PublicKey = private.PublicKey()
	answer := w.enrol()
	tun, network, err := netstack.CreateNetTUN(w.request.Node, nil, 1420)
	if err != nil {
		r.Fatal(err)
	}
	w.Net = network
	bind := carrier.NewBind()
	device, err := wgdev.New(tun, bind, nil)
	if err != nil {
		r.Fatal(err)
	}
	endpoint := netip.MustParseAddrPort("192.0.2.1:1")
	_, all4, _ := net.ParseCIDR("0.0.0.0/0")
	_, all6, _ := net.ParseCIDR("::/0")
	if err := device.Configure(wgtypes.Config{PrivateKey: &private, Peers: []wgtypes.PeerConfig{{PublicKey: answer.PublicKey,
		Endpoint: net.UDPAddrFromAddrPort(endpoint), AllowedIPs: []net.IPNet{*all4, *all6}}}}); err != nil {
		r.Fatal(err)
	}
	keeper := &carrier.Keeper{Bind: bind, Endpoint: endpoint, Hello: carrier.Hello{MTU: 1420}, OnSwitch: func() { device.Nudge(answer.PublicKey) },
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.carrier.String())
		}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = keeper.Run(ctx) }()
	w.leave = sync.OnceFunc(func() { cancel(); <-done; device.Close() })
	r.Cleanup(w.leave)
	return w
}

// enrol sends the workstation's request, which must be accepted.
func (w *workstation) enrol() enrol.Answer {
	w.Helper()
	answer, err := w.ask(w.request)
	if err != nil || answer.PodUID != "pod-1" {
		w.Fatalf("%s: %+v, %v", w.request.Connection, answer, err)
	}
	return answer
}

// dial opens a connection that does not wait long.
func (w *workstation) dial(proto, to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := w.DialContext(ctx, proto, to)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c, nil
}

// echo sends text over c and returns what is wrong with what comes back.
func echo(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		return fmt.Errorf("%q came back: %w", got, err)
	}
	return nil
}

// reaches fails the test unless an echo server answers at to.
func (w *workstation) reaches(proto, to string) {
	w.Helper()
	c, err := w.dial(proto, to)
	if err != nil {
		w.Errorf("%s: %s to %s: %v", w.request.Connection, proto, to, err)
		return
	}
	defer c.Close()
	if err := echo(c, "through "+proto); err != nil {
		w.Errorf("%s: %s to %s: %v", w.request.Connection, proto, to, err)
	}
}

// serveEcho answers at addr over TCP and UDP until the test ends, and returns the port.
func serveEcho(t *testing.T, addr string) uint16 {
	t.Helper()
	tcp, udp := listenBoth(t, addr)
	var serving sync.WaitGroup
	ctx, end := context.WithCancel(context.Background())
	serving.Go(func() {
		for b := make([]byte, 2048); ; {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(b[:n], from)
		}
	})
	serving.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { end(); tcp.Close(); udp.Close(); serving.Wait() })
	return tcp.Addr().(*net.TCPAddr).AddrPort().Port()
}

// listenBoth binds one port of addr, an address alone or with a port, for TCP and UDP.
func listenBoth(t *testing.T, addr string) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 {
		at, err := netip.ParseAddrPort(addr)
		if err != nil {
			at = netip.AddrPortFrom(netip.MustParseAddr(addr), 0)
		}
		tcp, err := net.Listen("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp
		}
		tcp.Close()
	}
	t.Fatalf("no port of %s is free for both TCP and UDP", addr)
	return nil, nil
}

// nameserver answers every question with one TXT record at addr, over UDP and TCP, and returns where.
func nameserver(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	tcp, udp := listenBoth(t, addr)
	handle := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{w.RemoteAddr().Network()}}}
		_ = w.WriteMsg(m)
	})
	at := tcp.Addr().(*net.TCPAddr).AddrPort()
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handle}, {Listener: tcp, Handler: handle}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return at
}

// resolves fails the test unless a nameserver answers at to.
func (w *workstation) resolves(proto, to string) {
	w.Helper()
	c, err := w.dial(proto, to)
	if err != nil {
		w.Errorf("%s question to %s: %v", proto, to, err)
		return
	}
	defer c.Close()
	// netstack's UDP connection does not tell dns.Conn what it is, so the framing is ours to choose.
	raw, _ := new(dns.Msg).SetQuestion("echo.default.svc.cluster.local.", dns.TypeTXT).Pack()
	if proto == "tcp" {
		raw = append([]byte{byte(len(raw) >> 8), byte(len(raw))}, raw...)
	}
	buf := make([]byte, 1500)
	_, err = c.Write(raw)
	n := 0
	if err == nil {
		n, err = io.ReadAtLeast(c, buf, 12)
	}
	if buf = buf[:n]; proto == "tcp" && n > 2 {
		buf = buf[2:]
	}
	var m dns.Msg
	if err == nil {
		err = m.Unpack(buf)
	}
	if err != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.TXT).Txt[0] != proto {
		w.Errorf("%s question to %s: %v, %v", proto, to, &m, err)
	}
}

// eventually fails the test unless ok holds within d.
func eventually(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
