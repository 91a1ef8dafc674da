package helper

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/dns/hostdns"
)

// Opened is what [Client.Open] returns. The caller closes what is in it.
type Opened struct {
	// Interface is the name of the interface, Addresses are its addresses: those asked for, without
	// IPv6 where the kernel has none.
	Interface string
	Addresses []netip.Prefix
	// TUN carries the packets; see [Opened.TakeTUN].
	TUN *os.File
	// UAPI is the listener of wg(8)'s socket, which only root can connect to.
	UAPI net.Listener
	// DNSUDP and DNSTCP are bound to port 53 of each of Addresses, in their order.
	DNSUDP []net.PacketConn
	DNSTCP []net.Listener
	// Host is the host's own resolver configuration: the upstreams. Where another connection's resolver
	// is hooked up, it is that one's.
	Host hostdns.Config
	// Earlier are the other connections that began before this one.
	Earlier []Earlier
}

// fill turns descriptors into what they are. It takes over all of them.
func (o *Opened) fill(a answer) (err error) {
	if len(a.files) != len(a.Files) {
		closeAll(a.files)
		return fmt.Errorf("%d descriptors came from the helper instead of %d", len(a.files), len(a.Files))
	}
	for i, f := range a.files {
		if e := o.take(a.Files[i], f); e != nil {
			err = errors.Join(err, fmt.Errorf("descriptor %s from the helper: %w", a.Files[i], e))
		}
	}
	if err == nil && (o.TUN == nil || o.UAPI == nil) {
		err = errors.New("descriptors are missing in the helper's answer")
	}
	return err
}

// take takes over one descriptor.
func (o *Opened) take(role fileRole, f *os.File) error {
	if role == roleTUN {
		o.TUN = f
		return nil
	}
	defer f.Close() // the net package works on a copy
	if role == roleDNSUDP {
		pc, err := net.FilePacketConn(f)
		if err == nil {
			o.DNSUDP = append(o.DNSUDP, pc)
		}
		return err
	}
	l, err := net.FileListener(f)
	switch {
	case err != nil:
	case role == roleUAPI:
		l.(*net.UnixListener).SetUnlinkOnClose(false) // the helper removes it
		o.UAPI = l
	case role == roleDNSTCP:
		o.DNSTCP = append(o.DNSTCP, l)
	default:
		err = errors.Join(errors.New("unknown role"), l.Close())
	}
	return err
}

// TakeTUN returns a descriptor for golang.zx2c4.com/wireguard/tun.CreateUnmonitoredTUNFromFD, which
// owns it from then on, and closes TUN: an [os.File] that is forgotten would close it under the device.
func (o *Opened) TakeTUN() (int, error) {
	raw, err := o.TUN.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup := -1
	if e := raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		err = e
	}
	if err != nil {
		return -1, fmt.Errorf("copy the TUN descriptor: %w", err)
	}
	return dup, o.TUN.Close()
}

// Close closes what is in o.
func (o *Opened) Close() {
	if o.TUN != nil {
		_ = o.TUN.Close()
	}
	if o.UAPI != nil {
		_ = o.UAPI.Close()
	}
	for _, c := range o.DNSUDP {
		_ = c.Close()
	}
	for _, l := range o.DNSTCP {
		_ = l.Close()
	}
}
