package reach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// payload is what probes carry, for whoever looks at them with a packet sniffer.
var payload = []byte("culvert probe")

// probeSocket is an unconnected UDP socket of one family. The kernel queues the ICMP errors about its packets (ip(7),
// IP_RECVERR).
type probeSocket struct {
	file *os.File
	raw  syscall.RawConn
	is4  bool
	from uint16
}

var _ socket = (*probeSocket)(nil)

func (n *linuxNetwork) socket(is4 bool) (socket, error) {
	family, name := unix.AF_INET6, "IPv6"
	if is4 {
		family, name = unix.AF_INET, "IPv4"
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open an %s socket: %w", name, err)
	}
	s := &probeSocket{is4: is4}
	if err := s.prepare(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare an %s socket: %w", name, err), unix.Close(fd))
	}
	s.file = os.NewFile(uintptr(fd), "probe")
	if s.raw, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

// prepare sets hop limit and error queue and binds the socket to a port of the kernel's choice.
func (s *probeSocket) prepare(fd int) error {
	level, limit, queue := unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_RECVERR
	var anywhere unix.Sockaddr = &unix.SockaddrInet6{}
	if s.is4 {
		level, limit, queue = unix.IPPROTO_IP, unix.IP_TTL, unix.IP_RECVERR
		anywhere = &unix.SockaddrInet4{}
	}
	var errs [3]error
	errs[0] = unix.SetsockoptInt(fd, level, limit, 1)
	errs[1] = unix.SetsockoptInt(fd, level, queue, 1)
	if !s.is4 {
		errs[2] = unix.SetsockoptInt(fd, level, unix.IPV6_V6ONLY, 1)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if err := unix.Bind(fd, anywhere); err != nil {
		return err
	}
	bound, err := unix.Getsockname(fd)
	s.from = addrPort(bound).Port()
	return err
}

func (s *probeSocket) port() uint16 { return s.from }

// send sends one probe. The kernel reports an error of an earlier packet to whoever sends next: such a report is
// taken away first, and one that comes in between is told from a failure by trying again.
func (s *probeSocket) send(to netip.AddrPort) error {
	var err error
	control := s.raw.Control(func(fd uintptr) {
		for range 3 {
			_, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) // clears it
			err = unix.Sendto(int(fd), payload, unix.MSG_NOSIGNAL, sockaddr(to))
			if err == nil || errors.Is(err, unix.EPERM) || passing(err) {
				return
			}
		}
	})
	return errors.Join(control, err)
}

// receive waits for the next ICMP error about a probe.
func (s *probeSocket) receive() (heard, error) {
	for {
		var h heard
		var failed error
		err := s.raw.Read(func(fd uintptr) bool {
			h, failed = s.fromErrorQueue(int(fd))
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return heard{}, err
		case failed == nil:
			return h, nil
		case !errors.Is(failed, unix.EINTR):
			return heard{}, fmt.Errorf("read the error queue of a socket: %w", failed)
		}
	}
}

func (s *probeSocket) close() error { return s.file.Close() }

// fromErrorQueue takes one entry out of the error queue. One that is no ICMP error has kind noAnswer.
func (s *probeSocket) fromErrorQueue(fd int) (heard, error) {
	var data [64]byte
	var control [512]byte
	_, n, _, to, err := unix.Recvmsg(fd, data[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return heard{}, err
	}
	h := heard{to: addrPort(to)}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return heard{}, err
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if v4 || v6 {
			h.kind, h.from = extendedError(m.Data)
		}
	}
	return h, nil
}

// Places in struct sock_extended_err (linux/errqueue.h); the offender's socket address follows.
const (
	extendedOrigin = 4
	extendedType   = 5
	extendedCode   = 6
	extendedLen    = 16
)

// extendedError reads a struct sock_extended_err and who caused the error. Errors that this host's own kernel
// reports without an ICMP message are noAnswer.
func extendedError(b []byte) (answerKind, netip.Addr) {
	if len(b) < extendedLen+2 {
		return noAnswer, netip.Addr{}
	}
	offender := b[extendedLen:]
	switch family := binary.NativeEndian.Uint16(offender); {
	case b[extendedOrigin] == unix.SO_EE_ORIGIN_ICMP && family == unix.AF_INET && len(offender) >= 8:
		return kindOf(true, b[extendedType], b[extendedCode]), netip.AddrFrom4([4]byte(offender[4:8]))
	case b[extendedOrigin] == unix.SO_EE_ORIGIN_ICMP6 && family == unix.AF_INET6 && len(offender) >= 24:
		return kindOf(false, b[extendedType], b[extendedCode]), netip.AddrFrom16([16]byte(offender[8:24]))
	}
	return noAnswer, netip.Addr{}
}

// sockaddr and addrPort convert at the edge.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
