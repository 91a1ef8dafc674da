package dataplane

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// readChunk waits until the connection has data and reads it into a chunk, which the caller gives
// back; b is nil if there is nothing to give back. It returns io.EOF at the end.
func readChunk(conn syscall.RawConn) (b *[]byte, n int, err error) {
	waitErr := conn.Read(func(fd uintptr) bool {
		b = chunks.Get().(*[]byte)
		n, err = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), *b) })
		if err == unix.EAGAIN {
			chunks.Put(b)
			b = nil
			return false
		}
		return true
	})
	switch {
	case waitErr != nil:
		return b, 0, waitErr
	case err != nil:
		return b, 0, err
	case n == 0:
		return b, 0, io.EOF
	}
	return b, n, nil
}

// shareAddress sets SO_REUSEADDR, for [tcpFlow.connect].
func shareAddress(_, _ string, c syscall.RawConn) error {
	var err error
	if ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); ctlErr != nil {
		return ctlErr
	}
	return err
}

func ignoringEINTR(do func() (int, error)) (int, error) {
	for {
		n, err := do()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// datagramSocket is a connected UDP or ping socket whose waits end with close.
type datagramSocket struct {
	file *os.File
	raw  syscall.RawConn
}

// openUDP returns a UDP socket connected to dst.
func openUDP(dst netip.AddrPort) (*datagramSocket, error) {
	return openDatagram(dst, 0)
}

// openPing returns an ICMP echo socket (ping(7) calls it a ping socket) connected to dst. It matches
// EACCES where net.ipv4.ping_group_range leaves the process's groups out.
func openPing(dst netip.Addr) (*datagramSocket, error) {
	proto := unix.IPPROTO_ICMPV6
	if dst.Is4() {
		proto = unix.IPPROTO_ICMP
	}
	return openDatagram(netip.AddrPortFrom(dst, 0), proto)
}

// receiveBufferBytes is asked of the kernel, which grants at most net.core.rmem_max.
const receiveBufferBytes = 1 << 20

func openDatagram(dst netip.AddrPort, proto int) (*datagramSocket, error) {
	family, to := sockaddr(dst)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, fmt.Errorf("open socket to %v: %w", dst, err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBufferBytes) // the default will do too
	if err := unix.Connect(fd, to); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %v: %w", dst, err)
	}
	file := os.NewFile(uintptr(fd), "datagram")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open socket to %v: %w", dst, err)
	}
	return &datagramSocket{file: file, raw: raw}, nil
}

func sockaddr(a netip.AddrPort) (family int, sa unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// send sends one datagram without waiting; EAGAIN means that there was no room. An ECONNREFUSED is
// about an earlier datagram, and b was not sent.
func (s *datagramSocket) send(b []byte) (err error) {
	waitErr := s.raw.Write(func(fd uintptr) bool {
		_, err = ignoringEINTR(func() (int, error) { return unix.Write(int(fd), b) })
		return true
	})
	if waitErr != nil {
		return waitErr
	}
	return err
}

// datagrams are long enough for any.
var datagrams = sync.Pool{New: func() any { b := make([]byte, 1<<16); return &b }}

// receive waits for datagrams and gives to each those that are there.
func (s *datagramSocket) receive(each func([]byte)) (err error) {
	waitErr := s.raw.Read(func(fd uintptr) bool {
		b := datagrams.Get().(*[]byte)
		defer datagrams.Put(b)
		got := 0
		for ; ; got++ {
			var n int
			n, err = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), *b) })
			if err == unix.EAGAIN {
				err = nil
				return got > 0
			}
			if err != nil {
				return true
			}
			each((*b)[:n])
		}
	})
	if waitErr != nil {
		return waitErr
	}
	return err
}

func (s *datagramSocket) close() { _ = s.file.Close() }

// Descriptors kept back for everything that is no flow: carriers, the API server, logs.
const reservedDescriptors = 128

// boundFlows returns how many flows the process can have, at most wanted (0 means as many as fit).
func boundFlows(wanted int, log *slog.Logger) int {
	if wanted == 0 {
		wanted = maxFlows
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return wanted
	}
	fit := max(int(min(limit.Cur, maxFlows+reservedDescriptors))-reservedDescriptors, 1)
	if fit < wanted {
		log.Info("data plane: the descriptor limit bounds the number of flows", "flows", fit, "RLIMIT_NOFILE", limit.Cur)
		return fit
	}
	return wanted
}
