package cli

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/dns/vip"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/policy"
)

func TestRenderStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	status := api.Status{
		Name: "default", State: api.Connected, Since: now.Add(-90 * time.Second),
		Cluster: api.Cluster{Context: "lab", Server: "https://10.50.0.11:6443", User: "ann", Namespace: "default"},
		Peer:    api.Peer{Addresses: []netip.Addr{netip.MustParseAddr("245.1.2.4")}},
		Gateway: api.Gateway{Pod: "culvert-gateway-0", Version: "0.1.0"},
		Carrier: api.Carrier{Name: "apiserver", Connected: true, RTTMillis: 1.94, Redials: 2},
		WireGuard: api.WireGuard{
			Interface: "culvert0", MTU: 1420, LastHandshake: now.Add(-12 * time.Second), ReceivedBytes: 1536, SentBytes: 3 << 20,
		},
		Routes: []api.Route{
			{Prefix: netip.MustParsePrefix("10.130.0.0/16"), Kind: "tunnel", Reason: "services"},
			{Prefix: netip.MustParsePrefix("10.130.7.9/32"), Kind: "throw", Reason: "never-proxied"},
			{Prefix: netip.MustParsePrefix("245.1.2.5/32"), Kind: "tunnel"},
		},
		DNS: api.DNS{
			Domains:   []string{"130.10.in-addr.arpa", "cluster.local", "svc"},
			Server:    []netip.Addr{netip.MustParseAddr("245.1.2.4")},
			Upstreams: []netip.AddrPort{netip.MustParseAddrPort("10.20.0.53:53")},
		},
		Processes: api.Processes{Node: 1, Helper: 2, Guard: 3},
	}
	var b strings.Builder
	if err := renderStatus(&b, status, now); err != nil {
		t.Fatal(err)
	}
	want := `connection  default: connected since 1m30s
cluster     lab as ann, namespace default (https://10.50.0.11:6443)
gateway     pod culvert-gateway-0, version 0.1.0
carrier     apiserver, round trip 1.9 ms, redialled 2 times
wireguard   culvert0, mtu 1420, handshake 12s ago, received 1.5 KiB, sent 3.0 MiB
route       10.130.0.0/16  through the tunnel  services
route       10.130.7.9/32  left alone  never-proxied
dns         cluster.local, svc answered by 245.1.2.4; other names by 10.20.0.53
processes   node 1, helper 2, guard 3
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestRenderClosed(t *testing.T) {
	var b strings.Builder
	now := time.Unix(1000, 0)
	if err := renderStatus(&b, api.Status{Name: "default", State: api.Closed, Since: now, Reason: "the Peer was deleted"}, now); err != nil {
		t.Fatal(err)
	}
	if want := "connection  default: closed since 0s: the Peer was deleted\n"; !strings.HasPrefix(b.String(), want) {
		t.Errorf("got:\n%s\nwant it to begin with:\n%s", b.String(), want)
	}
}

func TestConnectedSaysWhatIsLeftToOthers(t *testing.T) {
	var b strings.Builder
	s := api.Status{
		Cluster: api.Cluster{Context: "lab", User: "alice"}, Gateway: api.Gateway{Pod: "culvert-gateway-0"},
		WireGuard: api.WireGuard{Interface: "culvert0"}, DNS: api.DNS{Domains: []string{"cluster.local"}, Ceded: []api.Ceded{
			{Domain: "130.10.in-addr.arpa", Connection: "a", Instead: "NAME.b.culvert.internal"},
			{Domain: "default", Connection: "a", Instead: "NAME.b.culvert.internal"},
			{Domain: "svc", Connection: "a", Instead: "NAME.b.culvert.internal"},
		}},
		Yielded: []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16"), netip.MustParsePrefix("10.132.0.0/16")},
	}
	if err := renderConnected(&b, s); err != nil {
		t.Fatal(err)
	}
	want := "connected to lab as alice through pod culvert-gateway-0\n  routes  none\n  names   cluster.local\n" +
		"  left    10.130.0.0/16, 10.132.0.0/16 to other networks of this host; see `culvert status`\n" +
		"  names   default, svc are connection a's; here use NAME.b.culvert.internal\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// hidden is the status of a connection that hides services behind their twin and pods behind a pool.
func hidden() api.Status {
	prefix := netip.MustParsePrefix
	return api.Status{
		Name: "default", State: api.Connected, Cluster: api.Cluster{Context: "lab", User: "alice"},
		Gateway: api.Gateway{Pod: "culvert-gateway-0"}, WireGuard: api.WireGuard{Interface: "culvert0"},
		Routes: []api.Route{
			{Prefix: prefix("10.140.0.0/16"), Kind: "tunnel", Reason: "also-proxied"},
			{Prefix: prefix("246.130.0.0/16"), Kind: "tunnel"}, {Prefix: prefix("246.240.0.0/12"), Kind: "tunnel"},
		},
		Virtual: &api.Virtual{
			Subnets: []netip.Prefix{prefix("246.0.0.0/8")},
			Twins: []api.Twin{
				{Real: prefix("10.0.0.0/9"), Kind: "pods", Virtual: prefix("247.0.0.0/9"), Pooled: true, Hidden: true},
				{Real: prefix("10.130.0.0/16"), Kind: "services", Virtual: prefix("246.130.0.0/16"), Hidden: true},
				{Real: prefix("10.140.0.0/16"), Kind: "also", Virtual: prefix("246.140.0.0/16")},
				{Real: prefix("0.0.0.0/1"), Kind: "also", Reason: "too large"},
			},
			Hidden: []netip.Prefix{prefix("10.64.0.0/10"), prefix("10.130.0.0/16")},
			Pool:   &vip.Stats{Pools: []vip.PoolStats{{Prefix: prefix("246.240.0.0/12"), Leased: 3, Capacity: 100, Reclaimable: 1}}},
		},
		DNS: api.DNS{Domains: []string{"cluster.local"}},
	}
}

func TestStatusSaysWhatStandsForWhat(t *testing.T) {
	var b strings.Builder
	if err := renderStatus(&b, hidden(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"route       10.140.0.0/16  through the tunnel  also-proxied\n" +
			"virtual     a leased address of 246.240.0.0/12 stands for each of 10.0.0.0/9 pods; names that lead to 10.64.0.0/10 are answered with it\n" +
			"virtual     246.130.0.0/16  stands for 10.130.0.0/16 services; names that lead to 10.130.0.0/16 are answered with it\n" +
			"virtual     246.140.0.0/16  stands for 10.140.0.0/16 also; in reserve\n" +
			"pool        246.240.0.0/12: 3 of 100 virtual addresses are leased, 1 could be taken back\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got:\n%s\nwant in it:\n%s", b.String(), want)
		}
	}
}

func TestConnectedSaysWhatIsVirtual(t *testing.T) {
	var b strings.Builder
	if err := renderConnected(&b, hidden()); err != nil {
		t.Fatal(err)
	}
	want := "  routes  10.140.0.0/16 on culvert0\n  names   cluster.local\n" +
		"  virtual 246.240.0.0/12 for 10.64.0.0/10, 246.130.0.0/16 for 10.130.0.0/16 on culvert0\n"
	if !strings.Contains(b.String(), want) {
		t.Errorf("got:\n%s\nwant in it:\n%s", b.String(), want)
	}
}

// TestWhySaysWhatThePoolLeases: an address of the pool that is not leased says so, in a connection that stands.
func TestWhySaysWhatThePoolLeases(t *testing.T) {
	free := api.Explained{Explanation: policy.Explanation{
		Addr: netip.MustParseAddr("246.240.0.9"), Pooled: true, Pool: netip.MustParsePrefix("246.240.0.0/12"),
	}}
	leased := free
	leased.Lease = &vip.Info{VIP: free.Addr, Real: netip.MustParseAddr("10.0.0.9"), Names: []string{"echo.default.svc.cluster.local.", "b.example."}}
	pods := free // a real address that has none yet
	pods.Addr = netip.MustParseAddr("10.0.0.9")
	for _, tc := range []struct {
		name    string
		e       api.Explained
		inForce bool
		want    string // of the line about the pool; "" for none
	}{
		{"leased", leased, true, "246.240.0.9 stands for 10.0.0.9 (echo.default.svc.cluster.local, b.example), last used"},
		{"not leased", free, true, "leases it to nothing now"},
		{"not connected", free, false, ""},
		{"a real address", pods, true, ""},
	} {
		var b strings.Builder
		if err := renderWhy(&b, api.Why{InForce: tc.inForce, Addresses: []api.Explained{tc.e}}); err != nil {
			t.Fatal(err)
		}
		_, line, found := strings.Cut(b.String(), "  the pool    ")
		if found != (tc.want != "") || !strings.HasPrefix(line, tc.want) {
			t.Errorf("%s: got\n%swant a line about the pool %q", tc.name, b.String(), tc.want)
		}
	}
}
