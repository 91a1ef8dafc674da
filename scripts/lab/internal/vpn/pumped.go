package vpn

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// pumped is a VPN made of a bare TUN on the workstation (PumpMain) and of what
// some program does to have traffic routed into it.
type pumped struct {
	dev  string
	mark uint32 // of the tunnel's own packets, 0 for none
	// table holds the routes into the tunnel.
	table string
	// take lists ip(8) commands that come before the routes.
	take []string
	// undo lists ip(8) commands for what does not go with the device.
	undo []string
}

// bareRoute puts its routes into main. The tunnel's own packets stay outside it
// by a host route, whatever the routes.
var bareRoute = pumped{
	dev:   "tun-corp",
	table: "main",
	take:  []string{serverRoute("add")},
	undo:  []string{serverRoute("del")},
}

// tailscale does what tailscaled does on Linux with subnet routers: routes in
// table 52, and rules that lead there all but its own, marked packets.
var tailscale = pumped{
	dev:   "tailscale0",
	mark:  0x80000,
	table: "52",
	take: forBoth(
		"rule add priority 5210 fwmark 0x80000/0xff0000 lookup main",
		"rule add priority 5230 fwmark 0x80000/0xff0000 lookup default",
		"rule add priority 5250 fwmark 0x80000/0xff0000 unreachable",
		"rule add priority 5270 lookup 52"),
	undo: forBoth("rule del priority 5210", "rule del priority 5230", "rule del priority 5250", "rule del priority 5270"),
}

// netbird does what NetBird's client does on Linux with its own routing table:
// main goes first, but for its default route.
var netbird = pumped{
	dev:   "wt0",
	mark:  0x1bd00,
	table: "7120",
	take: forBoth(
		"rule add priority 105 lookup main suppress_prefixlength 0",
		"rule add priority 110 not fwmark 0x1bd00 lookup 7120"),
	undo: forBoth("rule del priority 105", "rule del priority 110"),
}

// forBoth gives each command once per family.
func forBoth(commands ...string) []string {
	var both []string
	for _, f := range []string{"-4 ", "-6 "} {
		for _, c := range commands {
			both = append(both, f+c)
		}
	}
	return both
}

func (p pumped) kind() kind {
	return kind{dev: p.dev, start: p.start, stop: p.stop, expect: slices.Clone[[]netip.Prefix]}
}

func (p pumped) start(ctx context.Context, l *state.Lab, routes []netip.Prefix) error {
	local := netip.AddrPortFrom(topology.WSAddr, pumpPort).String()
	remote := netip.AddrPortFrom(topology.VPNAddr, pumpPort).String()
	if err := self(l, serverName, topology.VPN, PumpCommand, pumpServer, remote, local, "0"); err != nil {
		return err
	}
	mark := strconv.FormatUint(uint64(p.mark), 10)
	if err := self(l, clientName, topology.WS, PumpCommand, p.dev, local, remote, mark); err != nil {
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
	if err := awaitLink(ctx, l, topology.WS, p.dev); err != nil {
		return err
	}
	return script(ctx, l, topology.WS, p.commands(routes)...)
}

// commands are those of ip(8) that bring the workstation's side up.
func (p pumped) commands(routes []netip.Prefix) []string {
	lines := []string{
		fmt.Sprintf("address add %s/24 dev %s", clientAddr, p.dev),
		fmt.Sprintf("address add %s/64 dev %s nodad", clientAddr6, p.dev),
		fmt.Sprintf("link set mtu %d up dev %s", pumpMTU, p.dev),
	}
	lines = append(lines, p.take...)
	for _, r := range routes {
		lines = append(lines, fmt.Sprintf("route add %s dev %s table %s%s", r, p.dev, p.table, metric(r)))
	}
	return lines
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

func (p pumped) stop(ctx context.Context, l *state.Lab) error {
	if err := stopProcesses(ctx, l); err != nil {
		return err
	}
	for _, command := range p.undo {
		// Not there after a start that failed early.
		_ = script(ctx, l, topology.WS, command)
	}
	return nil
}
