package helper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors collects what goes over to the user half with the answer to open.
type descriptors struct {
	roles []fileRole
	files []*os.File
}

// add takes ownership of f.
func (d *descriptors) add(role fileRole, f *os.File) {
	d.roles = append(d.roles, role)
	d.files = append(d.files, f)
}

// closeAll closes our copies.
func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// uapiSocket returns where wg(8) looks for the device.
func (p Paths) uapiSocket(iface string) string {
	return filepath.Join(p.withDefaults().UAPIDir, iface+".sock")
}

// listenUAPI makes the control socket of the WireGuard device, for root only. A socket that nobody
// serves is replaced.
func (d *descriptors) listenUAPI(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create the directory of WireGuard sockets: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return fmt.Errorf("%s is served by another program", path)
	}
	if err := removeSocket(path); err != nil {
		return fmt.Errorf("remove a WireGuard socket that nobody serves: %w", err)
	}
	// The mode of a socket that is not bound yet is that of the file it will be bound to (unix(7)).
	private := func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}
	l, err := (&net.ListenConfig{Control: private}).Listen(context.Background(), "unix", path)
	if err != nil {
		return fmt.Errorf("listen for wg(8): %w", err)
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	f, err := ul.File()
	if err := errors.Join(err, ul.Close()); err != nil {
		return fmt.Errorf("hand over %s: %w", path, err)
	}
	d.add(roleUAPI, f)
	return nil
}

// dnsPort is where resolvers ask.
const dnsPort = 53

// listenDNS binds UDP and TCP sockets to each address.
func (d *descriptors) listenDNS(ctx context.Context, addrs []netip.Prefix) error {
	for _, p := range addrs {
		if err := d.listenDNSAddr(ctx, p.Addr()); err != nil {
			return fmt.Errorf("listen for DNS on %s port %d: %w (what listens there: ss -lntup sport = :%[2]d)", p.Addr(), dnsPort, err)
		}
	}
	return nil
}

// listenDNSAddr binds the sockets of one address. Reusing the address lets the UDP socket live beside
// a resolver that listens on all addresses and allows the same; the more specific one gets the packets.
func (d *descriptors) listenDNSAddr(ctx context.Context, a netip.Addr) error {
	reuse := func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}), err)
	}
	lc := net.ListenConfig{Control: reuse}
	at := net.JoinHostPort(a.String(), strconv.Itoa(dnsPort))
	udp, err := lc.ListenPacket(ctx, "udp", at)
	if err != nil {
		return err
	}
	if err := d.take(roleDNSUDP, udp.(*net.UDPConn)); err != nil {
		return err
	}
	tcp, err := lc.Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	return d.take(roleDNSTCP, tcp.(*net.TCPListener))
}

// socket is what a descriptor can be taken from.
type socket interface {
	File() (*os.File, error)
	Close() error
}

// take keeps a copy of the socket's descriptor and closes the socket.
func (d *descriptors) take(role fileRole, s socket) error {
	f, err := s.File()
	if err != nil {
		return errors.Join(err, s.Close())
	}
	d.add(role, f)
	return s.Close()
}

// sendResponse writes a message, the descriptors riding on its first byte.
func sendResponse(c *net.UnixConn, r response, files []*os.File) error {
	data, err := encode(r)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		raw, err := f.SyscallConn() // unlike Fd, leaves the descriptor non-blocking
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	n, _, err := c.WriteMsgUnix(data, oob, nil)
	if err == nil && n < len(data) {
		_, err = c.Write(data[n:])
	}
	if err != nil {
		return fmt.Errorf("send to the user half: %w", err)
	}
	return nil
}
