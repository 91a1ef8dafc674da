package vpn

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// WireGuardCommand is the hidden subcommand that runs WireGuardMain.
const WireGuardCommand = "__wireguard"

// Table, mark and listen port are wg-quick's customary 51820.
const (
	wgTable  = 51820
	wgPort   = 51820
	wgMTU    = 1420
	wgDev    = "wg-corp"
	wgServer = "wg-srv"
)

// WireGuardMain runs one WireGuard device in the foreground: args are its name
// and a file of UAPI lines (the key is not for the command line). `wg show`
// works on it, as on any WireGuard interface.
func WireGuardMain(args []string) error {
	name := args[0]
	config, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	link, err := tun.CreateTUN(name, wgMTU)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	dev := device.NewDevice(link, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, name+" "))
	defer dev.Close()
	if err := dev.IpcSet(string(config)); err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	if err := dev.Up(); err != nil {
		return err
	}
	socket, err := ipc.UAPIOpen(name)
	if err != nil {
		return fmt.Errorf("open the UAPI socket of %s: %w", name, err)
	}
	uapi, err := ipc.UAPIListen(name, socket)
	if err != nil {
		return err
	}
	defer uapi.Close()
	go func() {
		for {
			c, err := uapi.Accept()
			if err != nil {
				return
			}
			go dev.IpcHandle(c)
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
	case <-dev.Wait():
	}
	return nil
}

func startWireGuard(ctx context.Context, l *state.Lab, routes []netip.Prefix) error {
	client, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	server, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	own := []netip.Prefix{netip.PrefixFrom(clientAddr, 32), netip.PrefixFrom(clientAddr6, 128)}
	ends := []struct{ name, host, dev, uapi string }{
		{serverName, topology.VPN, wgServer, uapi(server, client.PublicKey(), fmt.Sprintf("listen_port=%d", wgPort), "", own)},
		{clientName, topology.WS, wgDev, uapi(client, server.PublicKey(), fmt.Sprintf("fwmark=%d", wgTable),
			netip.AddrPortFrom(topology.VPNAddr, wgPort).String(), routes)},
	}
	for _, e := range ends {
		file := l.Path(e.dev + ".conf")
		if err := os.WriteFile(file, []byte(e.uapi), 0o600); err != nil {
			return err
		}
		if err := self(l, e.name, e.host, WireGuardCommand, e.dev, file); err != nil {
			return err
		}
	}
	if err := awaitLink(ctx, l, topology.VPN, wgServer); err != nil {
		return err
	}
	err = script(ctx, l, topology.VPN,
		fmt.Sprintf("address add %s/24 dev %s", serverAddr, wgServer),
		fmt.Sprintf("address add %s/64 dev %s nodad", serverAddr6, wgServer),
		"link set up dev "+wgServer)
	if err != nil {
		return err
	}
	if err := awaitLink(ctx, l, topology.WS, wgDev); err != nil {
		return err
	}
	return wgQuick(ctx, l, routes)
}

// uapi renders a device with one peer in the form of the cross-platform
// interface, https://www.wireguard.com/xplatform/.
func uapi(private *ecdh.PrivateKey, peer *ecdh.PublicKey, setting, endpoint string, allowed []netip.Prefix) string {
	var b strings.Builder
	fmt.Fprintf(&b, "private_key=%x\n%s\nreplace_peers=true\npublic_key=%x\n", private.Bytes(), setting, peer.Bytes())
	if endpoint != "" {
		fmt.Fprintf(&b, "endpoint=%s\npersistent_keepalive_interval=25\n", endpoint)
	}
	for _, p := range allowed {
		fmt.Fprintf(&b, "allowed_ip=%s\n", p)
	}
	return b.String()
}

// wgQuick does what wg-quick(8) does with Table = auto and a default route,
// command by command, whatever the routes: that is how it takes traffic without
// touching main.
func wgQuick(ctx context.Context, l *state.Lab, routes []netip.Prefix) error {
	lines := []string{
		fmt.Sprintf("-4 address add %s/32 dev %s", clientAddr, wgDev),
		fmt.Sprintf("-6 address add %s/128 dev %s nodad", clientAddr6, wgDev),
		fmt.Sprintf("link set mtu %d up dev %s", wgMTU, wgDev),
	}
	for _, r := range routes {
		lines = append(lines, fmt.Sprintf("%s route add %s dev %s table %d", family(r), r, wgDev, wgTable))
	}
	for _, f := range families(routes) {
		lines = append(lines,
			fmt.Sprintf("%s rule add not fwmark %d table %d", f, wgTable, wgTable),
			f+" rule add table main suppress_prefixlength 0")
	}
	if err := script(ctx, l, topology.WS, lines...); err != nil {
		return err
	}
	if _, err := launch.Output(ctx, l, topology.WS, nil, "sysctl", "-q", "net.ipv4.conf.all.src_valid_mark=1"); err != nil {
		return err
	}
	_, err := launch.Output(ctx, l, topology.WS, strings.NewReader(wgFilter()), "nft", "-f", "-")
	return err
}

func family(p netip.Prefix) string {
	if p.Addr().Is6() {
		return "-6"
	}
	return "-4"
}

// families lists the families of routes, each once, IPv4 first.
func families(routes []netip.Prefix) []string {
	has := map[string]bool{}
	for _, r := range routes {
		has[family(r)] = true
	}
	var list []string
	for _, f := range []string{"-4", "-6"} {
		if has[f] {
			list = append(list, f)
		}
	}
	return list
}

// wgFilter is the rule set of wg-quick: nobody but the tunnel may speak to its
// address, and the mark survives reverse path filtering.
func wgFilter() string {
	var b strings.Builder
	for _, f := range []struct{ family, addr string }{{"ip", clientAddr.String()}, {"ip6", clientAddr6.String()}} {
		fmt.Fprintf(&b, `table %[1]s wg-quick-%[2]s {
  chain preraw {
    type filter hook prerouting priority -300;
    iifname != "%[2]s" %[1]s daddr %[3]s fib saddr type != local drop
  }
  chain premangle {
    type filter hook prerouting priority -150;
    meta l4proto udp meta mark set ct mark
  }
  chain postmangle {
    type filter hook postrouting priority -150;
    meta l4proto udp meta mark %[4]d ct mark set meta mark
  }
}
`, f.family, wgDev, f.addr, wgTable)
	}
	return b.String()
}

// stopWireGuard ends the processes and undoes wgQuick, like `wg-quick down`.
func stopWireGuard(ctx context.Context, l *state.Lab) error {
	if err := stopProcesses(ctx, l); err != nil {
		return err
	}
	for _, f := range []string{"-4", "-6"} {
		if err := deleteRules(ctx, l, f); err != nil {
			return err
		}
	}
	drop := "table ip wg-quick-" + wgDev + "\ndelete table ip wg-quick-" + wgDev +
		"\ntable ip6 wg-quick-" + wgDev + "\ndelete table ip6 wg-quick-" + wgDev + "\n"
	if _, err := launch.Output(ctx, l, topology.WS, strings.NewReader(drop), "nft", "-f", "-"); err != nil {
		return err
	}
	_, err := launch.Output(ctx, l, topology.WS, nil, "sysctl", "-q", "net.ipv4.conf.all.src_valid_mark=0")
	return err
}

// deleteRules deletes the two rules of wgQuick by what they say: their numbers
// depended on what was there before.
func deleteRules(ctx context.Context, l *state.Lab, family string) error {
	out, err := launch.Output(ctx, l, topology.WS, nil, "ip", family, "rule", "show")
	if err != nil {
		return err
	}
	var lines []string
	for rules := bufio.NewScanner(strings.NewReader(out)); rules.Scan(); {
		priority, rule, _ := strings.Cut(rules.Text(), ":")
		if strings.Contains(rule, "lookup "+strconv.Itoa(wgTable)) || strings.Contains(rule, "suppress_prefixlength 0") {
			lines = append(lines, family+" rule del priority "+priority)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return script(ctx, l, topology.WS, lines...)
}
