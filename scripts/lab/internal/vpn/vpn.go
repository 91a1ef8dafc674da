// Package vpn runs the company's VPN: a server on the vpn host and a client on
// the workstation, of one of these kinds.
//
//	openvpn    Debian's OpenVPN on both ends, tun0 on ws, routes pushed by the server
//	wireguard  wg-corp, set up as wg-quick does for a full tunnel: its own table, fwmark and rules
//	route      tun-corp, a bare TUN with routes in the main table
//	tailscale  tailscale0, the same TUN with routes, rules and mark as tailscaled makes them
//	netbird    wt0, the same with those of NetBird
//
// With the VPN up, the router no longer carries what the VPN takes of the
// company's network (topology.Cut).
package vpn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// Names of the two processes in the lab's book, whatever the kind.
const (
	serverName = "vpn-server"
	clientName = "vpn-client"
)

// Addresses inside the tunnel.
var (
	serverAddr  = netip.MustParseAddr("10.99.0.1")
	serverAddr6 = netip.MustParseAddr("fd99::1")
	clientAddr  = netip.MustParseAddr("10.99.0.2")
	clientAddr6 = netip.MustParseAddr("fd99::2")
)

// kind is one way of building the tunnel. start returns once both processes
// run; routes may still be on their way. stop must succeed when nothing runs.
type kind struct {
	dev   string // on ws
	start func(ctx context.Context, l *state.Lab, routes []netip.Prefix) error
	stop  func(ctx context.Context, l *state.Lab) error
	// expect lists the routes whose presence on dev means the tunnel is up.
	expect func(routes []netip.Prefix) []netip.Prefix
}

var kinds = map[string]kind{
	state.VPNOpenVPN:   {dev: "tun0", start: startOpenVPN, stop: stopProcesses, expect: openvpnRoutes},
	state.VPNWireGuard: {dev: "wg-corp", start: startWireGuard, stop: stopWireGuard, expect: slices.Clone[[]netip.Prefix]},
	state.VPNRoute:     bareRoute.kind(),
	state.VPNTailscale: tailscale.kind(),
	state.VPNNetBird:   netbird.kind(),
}

// Up brings the VPN up and returns when its routes are there. Up already with
// the same kind and routes it does nothing; with others it goes down first.
func Up(ctx context.Context, l *state.Lab, kindName string, routes []netip.Prefix) error {
	k, ok := kinds[kindName]
	if !ok {
		return fmt.Errorf("no VPN of kind %q: want one of %s", kindName, strings.Join(state.VPNKinds[1:], ", "))
	}
	if l.VPN.Up && l.VPN.Kind == kindName && slices.Equal(l.VPN.Routes, routes) && running(l) && k.present(l, k.expect(routes)) == nil {
		return nil
	}
	if l.VPN.Kind != state.VPNNone {
		if err := Down(ctx, l); err != nil {
			return err
		}
	}
	// Noted before it is done, so that a later Down cleans up after a crash.
	l.VPN = state.VPN{Kind: kindName, Interface: k.dev, Routes: routes}
	if err := l.Save(); err != nil {
		return err
	}
	if err := k.raise(ctx, l, routes); err != nil {
		return errors.Join(err, k.stop(context.WithoutCancel(ctx), l)) // nothing is left half up
	}
	l.VPN.Up = true
	return l.Save()
}

// raise starts the tunnel and waits for its routes before the office is cut.
func (k kind) raise(ctx context.Context, l *state.Lab, routes []netip.Prefix) error {
	if err := k.start(ctx, l, routes); err != nil {
		return err
	}
	if err := await(ctx, l, func() error { return k.present(l, k.expect(routes)) }); err != nil {
		return err
	}
	return setOffice(ctx, l, topology.Cut(routes))
}

// Down takes the VPN down and returns when its interface is gone and the office
// carries all again. Of a VPN that is down it does nothing.
func Down(ctx context.Context, l *state.Lab) error {
	k, ok := kinds[l.VPN.Kind]
	if !ok {
		return nil
	}
	if err := k.stop(ctx, l); err != nil {
		return err
	}
	if err := await(ctx, l, func() error { return k.absent(l) }); err != nil {
		return err
	}
	if err := setOffice(ctx, l, nil); err != nil {
		return err
	}
	l.VPN.Up = false
	return l.Save()
}

func running(l *state.Lab) bool {
	p, err := l.Book().Get(clientName)
	return err == nil && p.Alive()
}

func setOffice(ctx context.Context, l *state.Lab, cut []netip.Prefix) error {
	_, err := launch.Output(ctx, l, topology.Router, strings.NewReader(topology.OfficeRules(cut)), "nft", "-f", "-")
	return err
}

// stopProcesses ends client, then server. OpenVPN takes its routes along and
// tells its server; a TUN's routes go with the device.
func stopProcesses(_ context.Context, l *state.Lab) error {
	if err := l.Book().StopByName(clientName, 5*time.Second); err != nil {
		return err
	}
	return l.Book().StopByName(serverName, 2*time.Second)
}

// await polls until check passes, and fails early when a process has ended that
// should run.
func await(ctx context.Context, l *state.Lab, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		for _, name := range []string{serverName, clientName} {
			if p, e := l.Book().Get(name); e == nil && !p.Alive() {
				return fmt.Errorf("the %s has ended; the end of %s:\n%s", name, p.Log, launch.Tail(p.Log, 12))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %v); logs are %s and %s", ctx.Err(), err, l.Log(serverName), l.Log(clientName))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// present reports why the wanted routes do not all lead into the tunnel, nil
// when they do. It looks at every table.
func (k kind) present(l *state.Lab, wanted []netip.Prefix) error {
	return onWorkstation(l, func() error {
		link, err := netlink.LinkByName(k.dev)
		if err != nil {
			return fmt.Errorf("%s: %w", k.dev, err)
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		have := map[netip.Prefix]bool{}
		for _, r := range routes {
			if r.LinkIndex == link.Attrs().Index {
				have[destination(r)] = true
			}
		}
		for _, p := range wanted {
			if !have[p] {
				return fmt.Errorf("no route %s on %s yet", p, k.dev)
			}
		}
		return nil
	})
}

// destination is a route's prefix; default routes have none.
func destination(r netlink.Route) netip.Prefix {
	if r.Dst == nil {
		if r.Family == netlink.FAMILY_V6 {
			return everything6
		}
		return everything4
	}
	addr, _ := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	if r.Family == netlink.FAMILY_V4 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones)
}

func (k kind) absent(l *state.Lab) error {
	return onWorkstation(l, func() error {
		if _, err := netlink.LinkByName(k.dev); err == nil {
			return fmt.Errorf("%s is still there", k.dev)
		}
		return nil
	})
}

func onWorkstation(l *state.Lab, f func() error) error {
	ws, err := l.Host(topology.WS)
	if err != nil {
		return err
	}
	return host.Do(ws.Holder.PID, host.Net, f)
}

// script runs ip(8) on a host with each line as its arguments, up to the first
// that fails.
func script(ctx context.Context, l *state.Lab, hostName string, lines ...string) error {
	commands := "ip " + strings.Join(lines, "\nip ") + "\n"
	_, err := launch.Output(ctx, l, hostName, strings.NewReader(commands), "sh", "-ex")
	return err
}

// self starts the lab's own program as a hidden command on a host.
func self(l *state.Lab, name, hostName string, args ...string) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = launch.Start(l, launch.Spec{Name: name, Host: hostName, Args: append([]string{path}, args...)})
	return err
}

// awaitLink waits until a device exists on a host.
func awaitLink(ctx context.Context, l *state.Lab, hostName, dev string) error {
	h, err := l.Host(hostName)
	if err != nil {
		return err
	}
	return await(ctx, l, func() error {
		return host.Do(h.Holder.PID, host.Net, func() error {
			_, err := netlink.LinkByName(dev)
			return err
		})
	})
}
