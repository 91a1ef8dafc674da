package labnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestServerTellsWhereItWasReached: over TCP and UDP the answer names, and comes from, the address that
// was asked, of several that one socket serves.
func TestServerTellsWhereItWasReached(t *testing.T) {
	tcp, port, err := net.SplitHostPort(serveTCP(t, reached))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := check(ctx, "tcp", net.JoinHostPort(tcp, port), netip.MustParseAddr(tcp)); err != nil {
		t.Error(err)
	}
	if r, err := client(t, setupReached, "--count", "1", "--first", tcp, net.JoinHostPort(tcp, port)); err != nil {
		t.Errorf("%+v, %v", r, err)
	}
	err = check(ctx, "tcp", net.JoinHostPort(tcp, port), netip.MustParseAddr("127.0.0.9"))
	if !errors.Is(err, errElsewhere) {
		t.Errorf("an answer of another: %v", err)
	}
	s := &server{conns: map[net.Conn]bool{}, failed: make(chan error, 1)}
	defer s.close()
	if err := s.serveUDP("0", reachedUDP); err != nil {
		t.Fatal(err)
	}
	_, port, err = net.SplitHostPort(s.closers[0].(*net.UDPConn).LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"127.0.0.1", "127.7.0.2", "127.255.255.3"} {
		if err := check(ctx, "udp", net.JoinHostPort(addr, port), netip.MustParseAddr(addr)); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestPlus(t *testing.T) {
	for _, tt := range []struct {
		base string
		n    int
		want string
	}{
		{"10.132.128.0", 0, "10.132.128.0"},
		{"10.132.128.0", 5999, "10.132.151.111"},
		{"10.132.255.255", 1, "10.133.0.0"},
		{"fd00:10:132::fffe", 3, "fd00:10:132::1:1"},
	} {
		if got := plus(netip.MustParseAddr(tt.base), tt.n); got.String() != tt.want {
			t.Errorf("%s + %d = %s, want %s", tt.base, tt.n, got, tt.want)
		}
	}
}

func TestHold(t *testing.T) {
	// Each connection is ended by the server after some echoes, or by nobody.
	echoes := func(n int) func(net.Conn) {
		return func(c net.Conn) {
			buf := make([]byte, 64)
			for range n {
				k, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:k]); err != nil {
					return
				}
			}
		}
	}
	result, err := client(t, setupHold, "--idle", "3", "--busy", "0", serveTCP(t, echoes(1)))
	if h := result.(Held); err != nil || h.Ended != 3 || h.Hung != 0 || h.Last.Before(h.First) || h.First.IsZero() {
		t.Errorf("ended by the server: %+v, %v", h, err)
	}
	result, err = client(t, setupHold, "--idle", "0", "--busy", "2", serveTCP(t, echoes(4)))
	if h := result.(Held); err != nil || h.Ended != 2 || h.Hung != 0 {
		t.Errorf("ended while busy: %+v, %v", h, err)
	}
	result, err = client(t, setupHold, "--idle", "1", "--busy", "1", "--limit", "200ms", serveTCP(t, echoTCP))
	if h := result.(Held); err == nil || h.Hung != 2 || h.Ended != 0 {
		t.Errorf("ended by nobody: %+v, %v", h, err)
	}
}

func TestReachedSaysWhatItWants(t *testing.T) {
	for _, args := range [][]string{{"--first", "10.0.0.1", "host:1"}, {"e%d.test:1"}, {"--first", "10.0.0.1", "e%d.test"}} {
		if r, err := client(t, setupReached, args...); err == nil {
			t.Errorf("%s: %v", strings.Join(args, " "), r)
		}
	}
}
