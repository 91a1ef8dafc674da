package topology

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
)

// MaxJoins is how many joins all labs of a machine have room for in [JoinNet]'s
// network.
const MaxJoins = 64

// JoinNet returns the network of the n-th join, from 0: the routers of two labs
// are its two hosts. 192.0.2.0/24 (TEST-NET-1, RFC 5737) is part of no lab.
func JoinNet(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(4 * n)}), 30)
}

// JoinNode returns the address under which the n-th join's near lab knows the
// far lab's first node.
func JoinNode(n int) netip.Addr { return JoinNet(n).Addr().Next().Next() }

// JoinDev is the name of either end of the n-th join.
func JoinDev(n int) string { return fmt.Sprintf("join%d", n) }

// Join puts the n-th join into the kernel: a link between the routers of two
// labs, held by the processes near and far. One that is there already is made
// anew. Both labs have the same addresses, so neither may see the other's:
// [NearRules] and [FarRules] translate.
func Join(n, near, far int) error {
	holders := map[string]int{"near": near, "far": far}
	dev := JoinDev(n)
	for _, pid := range holders {
		if err := host.Do(pid, host.Net, func() error { return removeLink(dev) }); err != nil {
			return err
		}
	}
	if err := (Link{A: "near", ADev: dev, B: "far", BDev: dev}).build(holders); err != nil {
		return fmt.Errorf("join two routers: %w", err)
	}
	for side, addr := range map[string]netip.Addr{"near": JoinNet(n).Addr().Next(), "far": JoinNode(n)} {
		h := Host{Name: side, Addrs: addrs(dev, netip.PrefixFrom(addr, JoinNet(n).Bits()).String())}
		if err := host.Do(holders[side], host.Net, h.configure); err != nil {
			return fmt.Errorf("configure the %s router: %w", side, err)
		}
	}
	return nil
}

// removeLink removes a device of the calling thread's network namespace, if it
// is there.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	return netlink.LinkDel(link)
}

// NearRules hide the near lab's workstation behind its router.
func NearRules(n int) string {
	return joinRules(n, "postrouting", "srcnat", fmt.Sprintf("oifname %q masquerade", JoinDev(n)))
}

// FarRules lead what arrives by the join to the far lab's first node.
func FarRules(n int) string {
	return joinRules(n, "prerouting", "dstnat", fmt.Sprintf("iifname %q ip daddr %s dnat to %s", JoinDev(n), JoinNode(n), NodeAddr(1)))
}

func joinRules(n int, hook, priority, rule string) string {
	table := JoinDev(n)
	return fmt.Sprintf("table ip %s\ndelete table ip %[1]s\ntable ip %[1]s {\n  chain %s {\n    type nat hook %[2]s priority %s;\n    %s\n  }\n}\n",
		table, hook, priority, rule)
}
