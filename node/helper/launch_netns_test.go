//go:build netns

package helper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/node/hostnet"
)

func init() { roles[NodeCommand] = testNode }

// nodeReport is what the user half of the tests tells about itself.
type nodeReport struct {
	UID, GID  int
	Groups    []int
	Home      string
	Sudo      string
	Interface string
	Batch     int // of the TUN device
	Host      hostdns.Config
	Error     string
}

// testNode is the user half of the tests: it opens, applies, reports, and obeys commands.
func testNode(args []string) int {
	report, err := net.FileConn(inheritedFile(NodeReportFD, "report"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	r := nodeReport{UID: os.Getuid(), GID: os.Getgid(), Home: os.Getenv("HOME"), Sudo: os.Getenv("SUDO_UID")}
	r.Groups, _ = os.Getgroups()
	client, opened, err := testConnect(ctx, args)
	if err != nil {
		r.Error = err.Error()
		_ = json.NewEncoder(report).Encode(r)
		return 1
	}
	defer opened.Close()
	r.Interface, r.Host = opened.Interface, opened.Host
	if fd, err := opened.TakeTUN(); err == nil {
		if dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd); err == nil {
			defer dev.Close()
			r.Batch = dev.BatchSize()
		}
	}
	_ = json.NewEncoder(report).Encode(r)
	go obey(report, client)
	for e := range client.Events() {
		_ = json.NewEncoder(report).Encode(e)
	}
	<-client.Done()
	return 0
}

// testConnect opens and applies a state with octet as what tells one connection from another.
func testConnect(ctx context.Context, args []string) (*Client, *Opened, error) {
	client, err := NewClient(ctx, inheritedFile(NodeHelperFD, "helper"))
	if err != nil {
		return nil, nil, err
	}
	octet := "1"
	if len(args) > 0 {
		octet = args[0]
	}
	open, state := testState(octet)
	opened, err := client.Open(ctx, open)
	if err != nil {
		return nil, nil, err
	}
	state.Interface = opened.Interface
	return client, opened, client.Apply(ctx, state)
}

// testState is what the tests ask for.
func testState(octet string) (OpenRequest, hostnet.State) {
	v4, v6 := "245.1.2."+octet+"0", "fd00:c0de::"+octet+"0"
	addrs := []netip.Prefix{netip.MustParsePrefix(v4 + "/32"), netip.MustParsePrefix(v6 + "/128")}
	state := hostnet.State{MTU: 1400, Addresses: addrs, Priority: hostnet.Priority{V4: 5000, V6: 5000}}
	for _, p := range []string{"10.130.0.0/16", "10.13" + octet + ".0.0/24", "fd10:130::/112"} {
		state.Routes = append(state.Routes, hostnet.Route{Prefix: netip.MustParsePrefix(p)})
	}
	state.Routes = append(state.Routes, hostnet.Route{Prefix: netip.MustParsePrefix("10.130.9.9/32"), Throw: true},
		hostnet.Route{Prefix: netip.MustParsePrefix("fd10:130::9/128"), Throw: true})
	state.DNS = hostdns.Config{Servers: []netip.Addr{addrs[0].Addr()}, Search: []string{"default.svc.cluster.local"}}
	return OpenRequest{MTU: 1400, Addresses: addrs}, state
}

// obey carries out the commands of the test.
func obey(report net.Conn, client *Client) {
	lines := bufio.NewScanner(report)
	for lines.Scan() {
		if lines.Text() == "close" {
			if err := client.Close(context.Background(), nil); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
}

// connection is a connection a test started.
type connection struct {
	*Launched
	report nodeReport
	read   *bufio.Reader
}

// launch starts a connection without waiting for it to be ready.
func launch(t testing.TB, o LaunchOptions) *connection {
	t.Helper()
	if o.Env == nil {
		o.Env = append(os.Environ(), "SUDO_UID=1")
	}
	l, err := Launch(o)
	if err != nil {
		t.Fatal(err)
	}
	c := &connection{Launched: l, read: bufio.NewReader(l.Report)}
	t.Cleanup(func() { c.end(t) })
	return c
}

// connect starts a connection and waits until it is ready.
func connect(t testing.TB, o LaunchOptions) *connection {
	t.Helper()
	c := launch(t, o)
	line, err := c.read.ReadBytes('\n')
	if err != nil {
		t.Fatalf("no report from the user half: %v\n%s", err, logs(o))
	}
	if err := json.Unmarshal(line, &c.report); err != nil {
		t.Fatal(err)
	}
	return c
}

// end makes sure that nothing of the connection lives on.
func (c *connection) end(t testing.TB) {
	_ = c.Report.Close()
	_ = c.node.Process.Kill()
	_ = c.Wait()
	t.Helper()
}

// logs returns both logs of a connection.
func logs(o LaunchOptions) string {
	name := o.Name
	if name == "" {
		name = DefaultName
	}
	out, _ := exec.Command("sh", "-c", "cat "+o.Paths.HelperLog(name)+" "+o.Paths.NodeLog(name)).CombinedOutput()
	return string(out)
}

func (c *connection) command(t testing.TB, what string) {
	t.Helper()
	if _, err := fmt.Fprintln(c.Report, what); err != nil {
		t.Fatal(err)
	}
}

// guardPID finds the guard of a helper: its only child.
func guardPID(t testing.TB, helper int) int {
	t.Helper()
	var pid int
	out, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", helper, helper))
	for _, f := range strings.Fields(string(out)) {
		_, _ = fmt.Sscan(f, &pid)
	}
	if pid == 0 { // the child was started by another thread
		out, _ := exec.Command("pgrep", "-P", fmt.Sprint(helper)).Output()
		_, _ = fmt.Sscan(string(out), &pid)
	}
	return pid
}

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

func TestKilledProcessesAreCleanedUpAfter(t *testing.T) {
	for name, kill := range map[string]func(t *testing.T, c *connection){
		"helper killed":     func(t *testing.T, c *connection) { sendSignal(t, c.HelperPID, unix.SIGKILL) },
		"helper terminated": func(t *testing.T, c *connection) { sendSignal(t, c.HelperPID, unix.SIGTERM) },
		"user half killed":  func(t *testing.T, c *connection) { sendSignal(t, c.NodePID, unix.SIGKILL) },
		"guard killed, then the helper": func(t *testing.T, c *connection) {
			first := guardPID(t, c.HelperPID)
			sendSignal(t, first, unix.SIGKILL)
			eventually(t, 3*time.Second, "another guard", func() bool {
				pid := guardPID(t, c.HelperPID)
				return pid != 0 && pid != first
			})
			sendSignal(t, c.HelperPID, unix.SIGKILL)
		},
		"guard asked to end, then the helper killed": func(t *testing.T, c *connection) {
			sendSignal(t, guardPID(t, c.HelperPID), unix.SIGTERM)
			sendSignal(t, c.HelperPID, unix.SIGKILL)
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := snapshot(t)
			c := connect(t, LaunchOptions{})
			if c.report.Error != "" {
				t.Fatal(c.report.Error)
			}
			kill(t, c)
			t.Logf("restored after %v", restoredWithin(t, before, time.Second))
			_ = c.Wait()
			eventually(t, time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
		})
	}
}

// A stopped process holds its descriptors; the helper restores without the user half's help.
func TestStoppedUserHalfDoesNotDelayTheRestore(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	sendSignal(t, c.NodePID, unix.SIGSTOP)
	sendSignal(t, c.HelperPID, unix.SIGKILL)
	t.Logf("restored after %v", restoredWithin(t, before, time.Second))
}

func sendSignal(t testing.TB, pid int, sig unix.Signal) {
	t.Helper()
	if pid <= 0 {
		t.Fatal("no process to signal")
	}
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatal(err)
	}
}

func TestKillAtRandomInstants(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	before := snapshot(t)
	var worst time.Duration
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	for range rounds {
		c := launch(t, LaunchOptions{})
		delay := time.Duration(rng.Int64N(int64(150 * time.Millisecond)))
		time.Sleep(delay)
		victim := c.HelperPID
		if rng.IntN(2) == 0 {
			victim = c.NodePID
		}
		sendSignal(t, victim, unix.SIGKILL)
		worst = max(worst, restoredWithin(t, before, time.Second))
		c.end(t)
		eventually(t, time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
		restoredWithin(t, before, 50*time.Millisecond)
	}
	t.Logf("%d rounds, restored within %v at worst", rounds, worst)
}

func TestEverythingKilledIsRepairedByTheNextStart(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	killAll(t, c)
	if snapshot(t) == before {
		t.Fatal("nothing was left to repair; the test proves nothing")
	}
	again := connect(t, LaunchOptions{})
	if again.report.Error != "" {
		t.Fatalf("start after a crash: %s", again.report.Error)
	}
	again.command(t, "close")
	restoredWithin(t, before, time.Second)
}

// killAll kills all three processes at once: the guard first, stopped beforehand so that nobody acts.
func killAll(t testing.TB, c *connection) {
	t.Helper()
	guard := guardPID(t, c.HelperPID)
	for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGKILL} {
		for _, pid := range []int{guard, c.HelperPID, c.NodePID} {
			sendSignal(t, pid, sig)
		}
	}
	_ = c.Wait()
	eventually(t, time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
}

func TestEverythingKilledIsRepairedByCleanup(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	killAll(t, c)
	done, err := CleanupAll(t.Context(), Paths{}, testLog(t))
	if err != nil || len(done) == 0 {
		t.Fatalf("cleanup did %q, error %v", done, err)
	}
	restoredWithin(t, before, 50*time.Millisecond)
	if done, err := CleanupAll(t.Context(), Paths{}, testLog(t)); err != nil || len(done) != 0 {
		t.Fatalf("a second cleanup did %q, error %v", done, err)
	}
}

// Without the journal the kernel's part is found by marker; what the resolver file said is lost, which
// is said.
func TestCleanupWithoutJournal(t *testing.T) {
	before := snapshot(t)
	sh(t, "cp -a /etc/resolv.conf /mnt/resolv.conf")
	c := connect(t, LaunchOptions{})
	killAll(t, c)
	sh(t, "rm -r /var/lib/culvert")
	done, err := CleanupAll(t.Context(), Paths{}, testLog(t))
	if len(done) == 0 || err == nil || !strings.Contains(err.Error(), "/etc/resolv.conf was written by connection") {
		t.Fatalf("cleanup did %q, error %v", done, err)
	}
	sh(t, "mv /mnt/resolv.conf /etc/resolv.conf")
	restoredWithin(t, before, 50*time.Millisecond)
}

func TestWhatOtherProgramsUndoIsPutBack(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	for _, line := range []string{
		"ip rule del priority 5000 lookup 7830",
		"ip -6 rule del priority 5000 lookup 7830",
		"nft flush table inet culvert_culvert0",
		"nft delete table inet culvert_culvert0",
		"ip route del 10.130.0.0/16 table 7830",
		"ip link set culvert0 mtu 1300",
	} {
		connected := snapshot(t)
		sh(t, line)
		if snapshot(t) == connected {
			t.Fatalf("%s changes nothing", line)
		}
		equalWithin(t, connected, resyncEvery+2*time.Second)
	}
	c.command(t, "close")
	restoredWithin(t, before, time.Second)
}

func TestRemovedInterfaceEndsTheConnection(t *testing.T) {
	before := snapshot(t)
	connect(t, LaunchOptions{})
	sh(t, "ip link del culvert0")
	restoredWithin(t, before, resyncEvery+2*time.Second)
}

// A file that is a mount point of its own cannot be replaced by renaming, as in containers.
func TestMountedResolverFile(t *testing.T) {
	sh(t, "cp -a /etc/resolv.conf /mnt/resolv.conf; mount --bind /mnt/resolv.conf /etc/resolv.conf")
	defer sh(t, "umount /etc/resolv.conf")
	before := snapshot(t)
	for range 2 {
		c := connect(t, LaunchOptions{})
		if c.report.Error != "" || !strings.Contains(sh(t, "cat /etc/resolv.conf"), "nameserver 245.1.2.10\n") {
			t.Fatalf("not hooked up: %s", c.report.Error)
		}
		sendSignal(t, c.HelperPID, unix.SIGKILL)
		restoredWithin(t, before, time.Second)
		c.end(t)
		eventually(t, time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
	}
}

// As on a host with systemd-resolved: the file is a link to its stub's, and the servers behind the stub
// are listed elsewhere.
func TestHostWithSystemdResolved(t *testing.T) {
	sh(t, `mkdir -p /run/systemd/resolve; cd /run/systemd/resolve
		echo "nameserver 127.0.0.53" > stub-resolv.conf; echo "nameserver 192.168.77.7" > resolv.conf
		mv /etc/resolv.conf /mnt/resolv.conf; ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf`)
	defer sh(t, "rm -r /run/systemd; mv /mnt/resolv.conf /etc/resolv.conf")
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	if s := c.report.Host.Servers; len(s) != 1 || s[0].String() != "192.168.77.7" {
		t.Errorf("upstreams %v, want the one behind the stub", s)
	}
	sh(t, "printf 'nameserver 245.1.2.10\\nnameserver 192.168.77.8\\n' > /run/systemd/resolve/resolv.conf") // another network; ours counted in
	var e Event
	line, err := c.read.ReadBytes('\n')
	if err = errors.Join(err, json.Unmarshal(line, &e)); err != nil || e.Host == nil || fmt.Sprint(e.Host.Servers) != "[192.168.77.8]" {
		t.Errorf("event %s, %v: want the new server alone", line, err)
	}
	sendSignal(t, c.HelperPID, unix.SIGKILL)
	restoredWithin(t, before, time.Second)
	if link, err := os.Readlink("/etc/resolv.conf"); err != nil || link != "../run/systemd/resolve/stub-resolv.conf" {
		t.Errorf("link to %q, %v", link, err)
	}
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

func TestRestoreSurvivesAnotherBoot(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	killAll(t, c)
	// What another boot leaves is the files; the kernel starts afresh, here by hand.
	sh(t, "ip rule del priority 5000; ip -6 rule del priority 5000; ip route flush table 7830; ip -6 route flush table 7830")
	sh(t, "nft delete table inet culvert_culvert0; rm /run/wireguard/culvert0.sock")
	sh(t, `sed -i 's/"bootID": ".*"/"bootID": "another"/' /var/lib/culvert/default/journal.json`)
	sh(t, "ip rule add priority 5000 lookup 7830 protocol 202") // somebody's, in this boot
	defer sh(t, "ip rule del priority 5000")
	if err := Cleanup(Paths{}, DefaultName, discard); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(sh(t, "ip rule"), "7830") {
		t.Error("a journal of another boot had the network changed")
	}
	sh(t, "ip rule del priority 5000")
	restoredWithin(t, before, 50*time.Millisecond)
	sh(t, "ip rule add priority 5000 lookup 7830")
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

func TestTwoConnectionsStackAndLeaveInAnyOrder(t *testing.T) {
	for _, firstLeaves := range []bool{true, false} {
		t.Run(fmt.Sprintf("first leaves first %v", firstLeaves), func(t *testing.T) {
			before := snapshot(t)
			a := connect(t, LaunchOptions{})
			b := connect(t, LaunchOptions{Name: "lab2", NodeArgs: []string{"2"}})
			if b.report.Error != "" || b.report.Interface != "culvert1" {
				t.Fatalf("second connection: %+v", b.report)
			}
			if s := b.report.Host.Servers; len(s) != 1 || s[0].String() != "245.1.2.10" {
				t.Errorf("the second connection asks %v, want the first one", s)
			}
			if firstLeaves {
				a.command(t, "close")
				var e Event
				line, err := b.read.ReadBytes('\n')
				if err = errors.Join(err, json.Unmarshal(line, &e)); err != nil || e.Host == nil || e.Host.Servers[0].String() != "192.168.77.2" {
					t.Errorf("event %s, %v: want the host's own servers", line, err)
				}
				b.command(t, "close")
			} else {
				b.command(t, "close")
				eventually(t, time.Second, "the first one's file is back", func() bool {
					return strings.Contains(sh(t, "cat /etc/resolv.conf"), "nameserver 245.1.2.10")
				})
				a.command(t, "close")
			}
			_, _ = a.Wait(), b.Wait()
			restoredWithin(t, before, time.Second)
		})
	}
}

func TestRewrittenResolverFileIsAdopted(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	original := sh(t, "cp -a /etc/resolv.conf /tmp/ours; printf 'nameserver 192.168.77.9\\n' > /etc/resolv.conf.dhcp; mv /etc/resolv.conf.dhcp /etc/resolv.conf")
	_ = original
	var e Event
	line, err := c.read.ReadBytes('\n')
	if err = errors.Join(err, json.Unmarshal(line, &e)); err != nil || e.Host == nil || e.Host.Servers[0].String() != "192.168.77.9" {
		t.Errorf("event %s, %v: want the new server", line, err)
	}
	if got := sh(t, "cat /etc/resolv.conf"); !strings.Contains(got, "nameserver 245.1.2.10\n") {
		t.Errorf("not hooked again:\n%s", got)
	}
	c.command(t, "close")
	_ = c.Wait()
	if got := sh(t, "cat /etc/resolv.conf"); got != "nameserver 192.168.77.9\n" {
		t.Errorf("restored to\n%s", got)
	}
	restoreResolvConf(t)
	_ = before
}

// restoreResolvConf writes the host's own file again, for the next test.
func restoreResolvConf(t testing.TB) {
	t.Helper()
	if err := os.WriteFile("/etc/resolv.conf", []byte(hostResolvConf), 0o644); err != nil {
		t.Fatal(err)
	}
}
