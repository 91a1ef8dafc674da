//go:build lab

package e2e

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// networkdReconfigures runs systemd-networkd for a moment, which is what `netplan apply`, `networkctl
// reconfigure` and waking up from sleep come down to: it takes over eth0, and on the way deletes every
// rule and every throw route that it did not make itself (ManageForeignRoutingPolicyRules=yes is its
// default). Its configuration says what the lab gave eth0, so that it leaves the host as it was.
//
// A mount namespace keeps its files and its bus apart; a read-only /sys tells it not to wait for udev.
// The rule that is added, to an address of the documentation, shows that it does delete.
const networkdReconfigures = `
mount -o remount,bind,ro /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/dbus /run/systemd/network /run/systemd/netif
chown systemd-network: /run/systemd/netif
cat >/run/systemd/network/eth0.network <<END
[Match]
Name=eth0
[Network]
IPv6AcceptRA=no
LLDP=no
[Address]
Address=192.168.77.10/24
Broadcast=no
[Address]
Address=2001:db8:77::10/64
DuplicateAddressDetection=none
[Route]
Gateway=192.168.77.1
Metric=100
[Route]
Gateway=2001:db8:77::1
Metric=100
END
dbus-daemon --system --nofork --nopidfile & bus=$!
until [ -e /run/dbus/system_bus_socket ]; do sleep 0.05; done
/lib/systemd/systemd-networkd & networkd=$!
trap 'kill $networkd $bus; wait' EXIT
configured() {
	until grep -qs ADMIN_STATE=configured /run/systemd/netif/links/$(cat /sys/class/net/eth0/ifindex); do sleep 0.05; done
}
configured
ip rule add to 192.0.2.1 lookup main
until networkctl reconfigure eth0; do sleep 0.05; done
while ip rule | grep -q 192.0.2.1; do sleep 0.05; done
configured
`

// foreignDeleted does by hand what systemd-networkd does to rules and throw routes that are not its own.
const foreignDeleted = `
for family in -4 -6; do
	ip $family rule show | sed -n 's/^\([0-9]*\):.* proto 202.*/\1/p' | while read priority; do
		ip $family rule del priority $priority
	done
	ip $family route show table all type throw | while read route; do
		ip $family route del $route
	done
done
`

// networkd runs the real program and reports whether it could do its work here.
func (l *lab) networkd(t *testing.T) bool {
	t.Helper()
	r := l.WS(30*time.Second, "unshare", "--mount", "--propagation", "private", "timeout", "10", "sh", "-ec", networkdReconfigures)
	if r.Code != 0 {
		t.Logf("THE REAL systemd-networkd CANNOT MANAGE eth0 HERE; what it deletes is deleted by hand instead: %s", r)
	}
	return r.Code == 0
}

// TestNetworkdDeletesForeignRules has the host's own network manager delete our rule and carve-outs.
func TestNetworkdDeletesForeignRules(t *testing.T) {
	l := shared
	real := l.networkd(t) // once before, so that all that it changes on a host is there already
	s := situation{kept: []string{"10.130.255.254"}}
	all := slices.Concat(l.cluster(s), l.others(s))
	before := l.look(t, s)
	l.connect(t, append([]string{"--never-proxy", "10.130.255.254/32"}, allowFlags...)...)
	l.holds(t, s, before)
	ours, rules := l.waysOf(t, all...), l.ourRules(t)
	if !real || !l.networkd(t) {
		must(t, l.WS(5*time.Second, "sh", "-ec", foreignDeleted), "delete rules and throw routes")
	}
	took := eventually(t, 5*time.Second, "rule and routes are back", func() error {
		if diff := differ(ours, l.waysOf(t, all...), all); diff != "" {
			return errors.New(diff)
		}
		if now := l.ourRules(t); now != rules {
			return errors.New(lineDiff(rules, now))
		}
		return nil
	})
	t.Logf("all was back %s after systemd-networkd", took.Round(time.Millisecond))
	l.holds(t, s, before)
}

// ourRules returns our rules and routes of both families.
func (l *lab) ourRules(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, family := range []string{"-4", "-6"} {
		for _, command := range []string{"rule show", "route show table all"} {
			r := l.WS(5*time.Second, "sh", "-c", "ip "+family+" "+command+" | grep 'proto 202' || true")
			must(t, r, "ip "+command)
			out.WriteString(r.Out)
		}
	}
	return out.String()
}
