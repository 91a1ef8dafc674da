package dataplane

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/culvert-dev/culvert/internal/packet"
)

// serveNames runs a real DNS server on the plane's port 53: TXT of any name is the caller's address.
func serveNames(streams net.Listener, datagrams net.PacketConn) {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		host, _, _ := net.SplitHostPort(w.RemoteAddr().String())
		a.Answer = []dns.RR{&dns.TXT{Txt: []string{host}, Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}}}
		_ = w.WriteMsg(a)
	})
	var wg sync.WaitGroup
	wg.Go(func() { _ = (&dns.Server{Listener: streams, Handler: handler}).ActivateAndServe() })
	wg.Go(func() { _ = (&dns.Server{PacketConn: datagrams, Handler: handler}).ActivateAndServe() })
	wg.Wait()
}

func TestLocalServiceAnswersDNS(t *testing.T) {
	p := newPlane(t, Config{ServeDNS: serveNames})
	w := join(t, p)
	for _, row := range []struct{ gateway, node netip.Addr }{{gateway4, node4}, {gateway6, node6}} {
		to := netip.AddrPortFrom(row.gateway, 53)
		q := new(dns.Msg).SetQuestion("who.am.i.", dns.TypeTXT)
		for name, conn := range map[string]net.Conn{"udp": w.dialUDP(to), "tcp": w.mustDial(to)} {
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			c := dns.Conn{Conn: conn}
			for range 3 {
				if err := c.WriteMsg(q); err != nil {
					t.Fatalf("%s to %v: %v", name, to, err)
				}
				a, err := c.ReadMsg()
				if err != nil || len(a.Answer) != 1 || a.Answer[0].(*dns.TXT).Txt[0] != row.node.String() {
					t.Fatalf("%s to %v: %v, %v", name, to, a, err)
				}
			}
			conn.Close()
		}
	}
	eventually(t, 10*time.Second, "no flow is left", func() bool { return p.flows.Load() == 0 })
}

func TestGatewayAddressHasNoOtherPort(t *testing.T) {
	for _, serve := range []LocalService{nil, serveNames} {
		r := rawJoin(t, newPlane(t, Config{ServeDNS: serve}))
		for _, port := range []uint16{1, 53, 7831, 7832} {
			if port == 53 && serve != nil {
				continue
			}
			to := netip.AddrPortFrom(gateway4, port)
			r.send(synPacket(netip.AddrPortFrom(node4, 4000), to))
			_, payload := r.answer()
			if tcp, ok := packet.ParseTCP(payload); !ok || tcp.Flags&packet.FlagRST == 0 {
				t.Errorf("SYN to %v answered by % x, want RST", to, payload)
			}
			r.send(packet.AppendUDP(nil, netip.AddrPortFrom(node4, 4000), to, []byte("x")))
			if _, payload := r.answer(); payload[0] != 3 || payload[1] != 3 {
				t.Errorf("datagram to %v answered by % x, want port unreachable", to, payload)
			}
		}
	}
}

func TestPacketConnDeadlines(t *testing.T) {
	p := newPlane(t, Config{})
	c := newLocalPort(p).datagrams
	read := func() error { _, _, err := c.ReadFrom(make([]byte, 10)); return err }
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	got := make(chan error, 1)
	go func() { got <- read() }()
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // wakes the one that waits
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("moved deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	go func() { got <- read() }()
	c.Close()
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	for _, to := range []net.Addr{&net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}, &net.TCPAddr{}} {
		if _, err := c.WriteTo([]byte("x"), to); err == nil {
			t.Errorf("answered %v, which is no Peer", to)
		}
	}
}
