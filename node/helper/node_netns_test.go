//go:build netns

package helper

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

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
