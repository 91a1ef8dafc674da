package labnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// answer returns what a datagram is answered with, given the address it was sent to. It may be the
// message itself.
type answer func(message []byte, to netip.Addr) []byte

func echoUDP(message []byte, _ netip.Addr) []byte { return message }

// reachedUDP tells the address at which it was reached, as reached does.
func reachedUDP(_ []byte, to netip.Addr) []byte { return fmt.Appendln(nil, to) }

// serveUDP answers every datagram from the address it was sent to, which need not be the one that the
// kernel would choose: a host may answer for a whole prefix.
func (s *server) serveUDP(port string, answer answer) error {
	listener, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	s.own(listener)
	conn := listener.(*net.UDPConn)
	if err := tellDestinations(conn); err != nil {
		return fmt.Errorf("ask for destinations of datagrams to port %s: %w", port, err)
	}
	_ = conn.SetReadBuffer(4 << 20) // bursts of large datagrams; the kernel caps it
	s.wait.Go(func() {
		buf, control := make([]byte, 64<<10), make([]byte, 128)
		for {
			n, c, _, from, err := conn.ReadMsgUDPAddrPort(buf, control)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			if to, source, err := destination(control[:c]); err == nil {
				_, _, _ = conn.WriteMsgUDPAddrPort(answer(buf[:n], to), source, from)
			}
		}
	})
	return nil
}

// tellDestinations has the kernel tell with each datagram where it was sent to (ip(7), ipv6(7)).
func tellDestinations(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		switch {
		case err != nil:
			failed = err
		case domain == unix.AF_INET:
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		default:
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	return errors.Join(err, failed)
}

// destination reads where a datagram was sent to, and returns the control message that sends the answer
// from there. A socket of both families has IPv4 addresses as IPv4-mapped ones in both directions.
func destination(control []byte) (to netip.Addr, source []byte, err error) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return to, nil, err
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			addr := [4]byte(m.Data[8:12])
			return netip.AddrFrom4(addr), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: addr}), nil
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			addr := [16]byte(m.Data[:16])
			return netip.AddrFrom16(addr).Unmap(), unix.PktInfo6(&unix.Inet6Pktinfo{Addr: addr}), nil
		}
	}
	return to, nil, errors.New("the kernel did not say")
}
