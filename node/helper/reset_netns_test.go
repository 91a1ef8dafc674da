//go:build netns

package helper

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// dialed is a connection of the reset test: from one of the host's addresses to a server of its own.
type dialed struct {
	name, network  string
	source, target string
	dies           bool
}

// TestResetEndsTheSocketsOfATakenPrefix has servers inside and outside of a prefix on this host, and
// connections to them with the interface's addresses and with others.
func TestResetEndsTheSocketsOfATakenPrefix(t *testing.T) {
	client := serveInProcess(t)
	open, state := testState("1")
	opened, err := client.Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	state.Interface = opened.Interface
	if err := client.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	servers := []string{"10.150.0.1/32", "10.151.0.1/32", "fd50::1/128", "fd51::1/128"}
	for _, a := range servers {
		sh(t, "ip address add "+a+" dev lo nodad")
		t.Cleanup(func() { sh(t, "ip address del "+a+" dev lo") })
	}
	rows := []dialed{
		{"IPv4 through the tunnel", "tcp4", "245.1.2.10", "10.150.0.1", true},
		{"UDP through the tunnel", "udp4", "245.1.2.10", "10.150.0.1", true},
		{"an IPv6 socket that speaks IPv4", "mapped", "245.1.2.10", "10.150.0.1", true},
		{"IPv6 through the tunnel", "tcp6", "fd00:c0de::10", "fd50::1", true},
		{"UDP over IPv6 through the tunnel", "udp6", "fd00:c0de::10", "fd50::1", true},
		{"another prefix", "tcp4", "245.1.2.10", "10.151.0.1", false},
		{"another IPv6 prefix", "tcp6", "fd00:c0de::10", "fd51::1", false},
		{"another prefix over UDP", "udp4", "245.1.2.10", "10.151.0.1", false},
		{"not through the tunnel", "tcp4", "192.168.77.1", "10.150.0.1", false},
		{"not through the tunnel, UDP", "udp4", "192.168.77.1", "10.150.0.1", false},
		{"not through the tunnel, IPv6", "tcp6", "fd77::1", "fd50::1", false},
	}
	files := make([]int, len(rows))
	for i, row := range rows {
		files[i] = dialFrom(t, row)
	}
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.150.0.0/16"), netip.MustParsePrefix("fd50::/64")}
	if n, err := client.ResetEstablished(t.Context(), prefixes); err != nil || n != 3 {
		t.Errorf("%d TCP sockets ended, error %v; want 3", n, err)
	}
	if n, err := client.Reset(t.Context(), prefixes); err != nil || n != 2 {
		t.Errorf("%d further sockets ended, error %v; want the 2 of UDP", n, err)
	}
	for i, row := range rows {
		_, err := unix.Read(files[i], make([]byte, 1))
		if dead := errors.Is(err, unix.ECONNABORTED); dead != row.dies || !dead && !errors.Is(err, unix.EAGAIN) {
			t.Errorf("%s: reading says %v", row.name, err)
		}
	}
	if _, err := client.Reset(t.Context(), []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}); !errors.Is(err, ErrRefused) {
		t.Errorf("reset of everything: %v, want a refusal", err)
	}
	if n, err := client.Reset(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("reset of nothing: %d, %v", n, err)
	}
}

// dialFrom connects a socket to a server that it makes, and returns its descriptor, non-blocking. The
// server's sockets are of no interest any more: a real server is on another host.
func dialFrom(t *testing.T, row dialed) int {
	t.Helper()
	network, domain := row.network, unix.AF_INET
	if network == "mapped" {
		network, domain = "tcp4", unix.AF_INET6
	} else if strings.HasSuffix(network, "6") {
		domain = unix.AF_INET6
	}
	kind, port := unix.SOCK_STREAM, 0
	if strings.HasPrefix(network, "udp") {
		kind = unix.SOCK_DGRAM
		pc, err := net.ListenPacket(network, net.JoinHostPort(row.target, "0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		port = pc.LocalAddr().(*net.UDPAddr).Port
	} else {
		l, err := net.Listen(network, net.JoinHostPort(row.target, "0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		port = l.Addr().(*net.TCPAddr).Port
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, sockaddr(domain, row.source, 0)); err != nil {
		t.Fatalf("%s: bind: %v", row.name, err)
	}
	if err := unix.Connect(fd, sockaddr(domain, row.target, port)); err != nil {
		t.Fatalf("%s: connect: %v", row.name, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return fd
}

// sockaddr is an address for a socket of a domain; an IPv6 socket takes IPv4 mapped.
func sockaddr(domain int, text string, port int) unix.Sockaddr {
	a := netip.MustParseAddr(text)
	if domain == unix.AF_INET6 {
		return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
	}
	return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
}
