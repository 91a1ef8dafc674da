package vpn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// PumpCommand is the hidden subcommand that runs PumpMain.
const PumpCommand = "__pump"

const (
	pumpPort   = 7777
	pumpMTU    = 1400
	pumpServer = "tun-srv"
)

// PumpMain carries packets between a bare TUN and a UDP peer, unprotected: the
// simplest thing that is a VPN to a routing table. args are the device, the
// local and the remote address, and the mark of the packets to the peer, 0 for
// none.
func PumpMain(args []string) error {
	link, err := openTun(args[0])
	if err != nil {
		return err
	}
	defer link.Close()
	local, err := net.ResolveUDPAddr("udp", args[1])
	if err != nil {
		return err
	}
	mark, err := strconv.ParseUint(args[3], 0, 32)
	if err != nil {
		return fmt.Errorf("mark %s: %w", args[3], err)
	}
	dialer := net.Dialer{LocalAddr: local, Control: marked(uint32(mark))}
	socket, err := dialer.Dial("udp", args[2])
	if err != nil {
		return err
	}
	defer socket.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	failed := make(chan error, 2)
	go func() { failed <- carry(link.Read, socket.Write) }()
	go func() { failed <- carry(socket.Read, link.Write) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// marked gives every packet of a socket a mark; 0 leaves it as it is.
func marked(mark uint32) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if mark == 0 {
			return nil
		}
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
		})
		return errors.Join(err, failed)
	}
}

// carry moves packets until reading fails for good. A packet that cannot be
// written is lost, and so is the news that the peer is not there yet.
func carry(read, write func([]byte) (int, error)) error {
	packet := make([]byte, 64<<10)
	for {
		n, err := read(packet)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return err
		}
		_, _ = write(packet[:n])
	}
}

func openTun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}
