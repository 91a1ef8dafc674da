package hostnet

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunDevice makes TUN interfaces (Documentation/networking/tuntap.rst).
const tunDevice = "/dev/net/tun"

// CreateTUN creates the interface. It goes away with its last descriptor.
func (h *linuxHost) CreateTUN(scope Scope) (*os.File, int, error) {
	if err := h.free(scope); err != nil {
		return nil, 0, err
	}
	fd, err := attachTUN(scope.Interface)
	if err != nil {
		return nil, 0, fmt.Errorf("create interface %s: %w", scope.Interface, err)
	}
	link, err := h.nl.LinkByName(scope.Interface)
	if err == nil {
		err = h.nl.LinkSetAlias(link, alias(scope.Name))
	}
	if err == nil {
		err = h.nl.LinkSetMulticastOff(link)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, 0, fmt.Errorf("mark interface %s as ours: %w", scope.Interface, err)
	}
	// Only now, attached, may the runtime's poller see the descriptor: before it would report an error.
	return os.NewFile(uintptr(fd), tunDevice), link.Attrs().Index, nil
}

// free returns an error matching [ErrForeign] if the interface or its table is in use.
func (h *linuxHost) free(scope Scope) error {
	link, err := h.nl.LinkByName(scope.Interface)
	if err == nil {
		owner := "another program"
		if name, ours := strings.CutPrefix(link.Attrs().Alias, aliasPrefix); ours {
			owner = fmt.Sprintf("Culvert's connection %q", name)
		}
		return foreign{fmt.Sprintf("interface %s (%s) already exists and belongs to %s", scope.Interface, link.Type(), owner)}
	}
	if !errors.As(err, &netlink.LinkNotFoundError{}) {
		return fmt.Errorf("look up interface %s: %w", scope.Interface, err)
	}
	routes, err := h.tableRoutes(scope.Table())
	if err != nil {
		return err
	}
	if len(routes) > 0 {
		return foreign{fmt.Sprintf("routing table %d, which interface %s would use, has routes of another program (the first is to %s)",
			scope.Table(), scope.Interface, routes[0].Dst)}
	}
	return nil
}

// foreign is an error that matches [ErrForeign] and says what is in the way.
type foreign struct{ text string }

func (f foreign) Error() string   { return f.text }
func (f foreign) Is(t error) bool { return t == ErrForeign }

// attachTUN makes the interface and returns its descriptor. An interface that another program made
// persistent, and that appeared since we looked, would be attached to instead: that is noticed.
func attachTUN(name string) (fd int, err error) {
	fd, err = unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	req, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return -1, fmt.Errorf("attach: %w", err)
	}
	if err = unix.IoctlIfreq(fd, unix.TUNGETIFF, req); err != nil {
		return -1, fmt.Errorf("read back: %w", err)
	}
	if req.Uint16()&unix.IFF_PERSIST != 0 {
		return -1, foreign{fmt.Sprintf("interface %s is another program's persistent one", name)}
	}
	return fd, nil
}
