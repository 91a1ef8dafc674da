package vpn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// PumpCommand is the hidden subcommand that runs PumpMain.
const PumpCommand = "__pump"

const (
	pumpPort   = 7777
	pumpMTU    = 1400
	pumpDev    = "tun-corp"
	pumpServer = "tun-srv"
)

// PumpMain carries packets between a bare TUN and a UDP peer, unprotected: the
// simplest thing that is a VPN to a routing table. args are the device, the
// local and the remote address.
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
	remote, err := net.ResolveUDPAddr("udp", args[2])
	if err != nil {
		return err
	}
	socket, err := net.DialUDP("udp", local, remote)
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

func startRoute(ctx context.Context, l *state.Lab, routes []netip.Prefix) error {
	local := netip.AddrPortFrom(topology.WSAddr, pumpPort).String()
	remote := netip.AddrPortFrom(topology.VPNAddr, pumpPort).String()
	if err := self(l, serverName, topology.VPN, PumpCommand, pumpServer, remote, local); err != nil {
		return err
	}
	if err := self(l, clientName, topology.WS, PumpCommand, pumpDev, local, remote); err != nil {
		return err
	}
	if err := awaitLink(ctx, l, topology.VPN, pumpServer); err != nil {
		return err
	}
	err := script(ctx, l, topology.VPN,
		fmt.Sprintf("address add %s/24 dev %s", serverAddr, pumpServer),
		fmt.Sprintf("address add %s/64 dev %s nodad", serverAddr6, pumpServer),
		fmt.Sprintf("link set mtu %d up dev %s", pumpMTU, pumpServer))
	if err != nil {
		return err
	}
	if err := awaitLink(ctx, l, topology.WS, pumpDev); err != nil {
		return err
	}
	lines := []string{
		fmt.Sprintf("address add %s/24 dev %s", clientAddr, pumpDev),
		fmt.Sprintf("address add %s/64 dev %s nodad", clientAddr6, pumpDev),
		fmt.Sprintf("link set mtu %d up dev %s", pumpMTU, pumpDev),
		// The tunnel's own packets stay outside it, whatever the routes.
		serverRoute("add"),
	}
	for _, r := range routes {
		lines = append(lines, fmt.Sprintf("route add %s dev %s%s", r, pumpDev, metric(r)))
	}
	return script(ctx, l, topology.WS, lines...)
}

// serverRoute is the host route to the server through the LAN.
func serverRoute(verb string) string {
	return fmt.Sprintf("route %s %s via 192.168.77.1", verb, topology.VPNAddr)
}

// metric lets a default route of the tunnel stand beside, and win over, the
// LAN's, which has 100.
func metric(r netip.Prefix) string {
	if r.Bits() > 0 {
		return ""
	}
	return " metric 50"
}

func stopRoute(ctx context.Context, l *state.Lab) error {
	if err := stopProcesses(ctx, l); err != nil {
		return err
	}
	// Not there after a start that failed early.
	_ = script(ctx, l, topology.WS, serverRoute("del"))
	return nil
}
