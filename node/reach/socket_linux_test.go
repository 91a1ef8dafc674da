package reach

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the kernel puts in front of the offender (amd64 and other little-endian machines).
func TestExtendedError(t *testing.T) {
	for _, row := range []struct {
		name, hex string
		kind      answerKind
		from      string
	}{
		{"time exceeded", "71000000 02 0b 00 00 00000000 00000000 0200 0000 f501020b 0000000000000000", expired, "245.1.2.11"},
		{"time exceeded over IPv6", "71000000 03 03 00 00 00000000 00000000 0a00 0000 00000000 fd00c0de000000000000000000000011 00000000", expired, "fd00:c0de::11"},
		{"prohibited", "71000000 02 03 0d 00 00000000 00000000 0200 0000 f501020b 0000000000000000", prohibited, "245.1.2.11"},
		{"the kernel's own: too long", "5a000000 01 00 00 00 dc050000 00000000 0000 0000 00000000 0000000000000000", noAnswer, ""},
		{"without an offender", "71000000 02 0b 00 00 00000000 00000000 0000", noAnswer, ""},
		{"cut", "71000000 02 0b 00 00 00000000 00000000", noAnswer, ""},
		{"cut offender", "71000000 02 0b 00 00 00000000 00000000 0200 0000 f501", noAnswer, ""},
		{"nothing", "", noAnswer, ""},
	} {
		kind, from := extendedError(unhex(t, row.hex))
		if kind != row.kind || from.IsValid() != (row.from != "") || from.IsValid() && from != netip.MustParseAddr(row.from) {
			t.Errorf("%s: %v from %v", row.name, kind, from)
		}
	}
}

func FuzzExtendedError(f *testing.F) {
	f.Add(unhex(f, "71000000 02 0b 00 00 00000000 00000000 0200 0000 f501020b 0000000000000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if kind, from := extendedError(b); kind != noAnswer && !from.IsValid() || kind == noAnswer && len(b) < extendedLen && from.IsValid() {
			t.Errorf("% x is %v from %v", b, kind, from)
		}
	})
}

// On loopback, where a closed port answers, the error queue of a real socket works in both families.
func TestSocketHearsErrors(t *testing.T) {
	host, err := openNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer host.close()
	for _, a := range []string{"127.0.0.1", "::1"} {
		addr := netip.MustParseAddr(a)
		s, err := host.socket(addr.Is4())
		if err != nil {
			t.Fatal(err)
		}
		to := netip.AddrPortFrom(addr, closedPort(t, addr))
		for range 3 { // the error of the one before must not be taken for the next one's
			if err := s.send(to); err != nil {
				t.Errorf("send to %v: %v", to, err)
			}
			h, err := s.receive()
			if err != nil || h != (heard{to, addr, delivered}) {
				t.Errorf("heard %+v, %v", h, err)
			}
		}
		ended := make(chan error)
		go func() { _, err := s.receive(); ended <- err }()
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err == nil {
			t.Error("a closed socket still hears")
		}
	}
}

// closedPort returns a UDP port of a at which nobody listens.
func closedPort(t *testing.T, a netip.Addr) uint16 {
	t.Helper()
	family, at := unix.AF_INET6, sockaddr(netip.AddrPortFrom(a, 0))
	if a.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, at); err != nil {
		t.Skipf("NOT RUN: PROBES TO %v, FOR WANT OF IT ON THIS HOST: %v", a, err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return addrPort(bound).Port()
}
