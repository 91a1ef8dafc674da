//go:build netns

package helper

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestConnectAndQuitLeaveNoTrace(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	if c.report.Error != "" {
		t.Fatal(c.report.Error)
	}
	for line, want := range map[string][]string{
		"ip -4 route show table 7830": {"10.130.0.0/16 dev culvert0 proto 202 scope link src 245.1.2.10", "throw 10.130.9.9 proto 202"},
		"ip -6 route show table 7830": {"fd10:130::/112 dev culvert0 proto 202 src fd00:c0de::10", "throw fd10:130::9 dev lo proto 202"},
		"ip -4 rule show":             {"5000:\tfrom all lookup 7830 proto 202"},
		"ip -6 rule show":             {"5000:\tfrom all lookup 7830 proto 202"},
		"ip -details link show dev culvert0": {"mtu 1400", "POINTOPOINT,NOARP,UP", "alias culvert connection default",
			"vnet_hdr on persist off addrgenmode none"},
		"ip address show dev culvert0":                        {"inet 245.1.2.10/32", "inet6 fd00:c0de::10/128"},
		"nft list table inet culvert_culvert0":                {`iifname != "culvert0" accept`, "ct direction reply ct state established accept", "hook forward"},
		"cat /etc/resolv.conf":                                {"nameserver 245.1.2.10\n", "search default.svc.cluster.local corp.example\n", "options ndots:2\n"},
		"ip route get 10.130.4.4":                             {"dev culvert0 table 7830 src 245.1.2.10"},
		"ip route get 10.130.9.9":                             {"via 192.168.77.2"},
		"stat -c %a:%U /run/wireguard/culvert0.sock":          {"600:root"},
		"stat -c %a /run/culvert/default/api.sock":            {"666"},
		"stat -c %a:%U /run/culvert/default":                  {"755:root"},
		"stat -c %a:%U /var/lib/culvert/default/journal.json": {"600:root"},
		"ss -lntuH": {"245.1.2.10:53", "[fd00:c0de::10]:53"},
		"cd /proc/sys/net/ipv4/conf/culvert0; cat rp_filter disable_xfrm disable_policy": {"2\n1\n1\n"},
	} {
		out := sh(t, line)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q is missing in\n%s", line, w, out)
			}
		}
	}
	if main := sh(t, "ip route show table main; ip -6 route show table main"); strings.Contains(main, "culvert0") {
		t.Errorf("main has a route of ours:\n%s", main)
	}
	if len(c.report.Host.Servers) != 1 || c.report.Host.Servers[0].String() != "192.168.77.2" {
		t.Errorf("upstreams %v, want the host's own", c.report.Host)
	}
	c.command(t, "close")
	t.Logf("restored %v after quit", restoredWithin(t, before, time.Second))
	if err := c.Wait(); err != nil {
		t.Errorf("processes ended with %v\n%s", err, logs(LaunchOptions{}))
	}
}

func TestUserHalfRunsAsTheInvokingUser(t *testing.T) {
	before := snapshot(t)
	user := User{UID: 12345, GID: 23456, Groups: []uint32{23456, 34567}, Name: "someone", Home: "/home/someone"}
	c := connect(t, LaunchOptions{User: user})
	r := c.report
	if r.Error != "" || r.UID != 12345 || r.GID != 23456 || fmt.Sprint(r.Groups) != "[23456 34567]" || r.Home != "/home/someone" || r.Sudo != "" {
		t.Errorf("user half ran as %+v", r)
	}
	if r.Batch < 2 {
		t.Errorf("TUN of batch size %d: without privileges its offloads cannot be used", r.Batch)
	}
	if out := sh(t, "stat -c %u:%g:%a /run/culvert/default/node.log"); out != "12345:23456:640\n" {
		t.Errorf("node.log is %s", out)
	}
	c.end(t)
	restoredWithin(t, before, time.Second)
}

func TestHostThatSwitchesIPv6OffForNewInterfaces(t *testing.T) {
	sh(t, "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
	defer sh(t, "echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	if c.report.Error != "" || !strings.Contains(sh(t, "ip address show dev culvert0"), "fd00:c0de::10/128") {
		t.Errorf("no IPv6 address: %s", c.report.Error)
	}
	c.command(t, "close")
	restoredWithin(t, before, time.Second)
}

func TestSecondConnectionOfTheSameNameIsRefused(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	if _, err := Launch(LaunchOptions{}); !errors.Is(err, ErrRunning) {
		t.Errorf("second launch: %v, want ErrRunning", err)
	}
	if err := Cleanup(Paths{}, DefaultName, testLog(t)); !errors.Is(err, ErrRunning) {
		t.Errorf("cleanup of a running connection: %v, want ErrRunning", err)
	}
	if done, err := CleanupAll(t.Context(), Paths{}, testLog(t)); err != nil || len(done) != 0 {
		t.Errorf("cleanup beside a running connection did %q, error %v", done, err)
	}
	c.command(t, "close")
	restoredWithin(t, before, time.Second)
}

func TestForeignInterfaceIsLeftAlone(t *testing.T) {
	for name, lines := range map[string][2]string{
		"persistent TUN":      {"ip tuntap add dev culvert0 mode tun", "ip tuntap del dev culvert0 mode tun"},
		"veth":                {"ip link add culvert0 type veth peer name vx", "ip link del culvert0"},
		"routes in the table": {"ip route add 10.9.0.0/16 dev v0 table 7830", "ip route flush table 7830"},
	} {
		t.Run(name, func(t *testing.T) {
			sh(t, lines[0])
			defer sh(t, lines[1])
			before := snapshot(t)
			c := connect(t, LaunchOptions{})
			if !strings.Contains(c.report.Error, "another program") {
				t.Errorf("user half reports %q", c.report.Error)
			}
			c.end(t)
			restoredWithin(t, before, time.Second)
		})
	}
}
