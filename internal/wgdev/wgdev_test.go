package wgdev_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/wgdev"
	"go.uber.org/goleak"
	"go4.org/netipx"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func key(t testing.TB) wgtypes.Key {
	t.Helper()
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func prefixes(list ...string) (nets []net.IPNet) {
	for _, s := range list {
		nets = append(nets, *netipx.PrefixIPNet(netip.MustParsePrefix(s)))
	}
	return nets
}

// newDevice returns a device without peers over a Bind without streams.
func newDevice(t testing.TB, log *slog.Logger) (*wgdev.Device, wgtypes.Key) {
	t.Helper()
	d, err := wgdev.New(tuntest.NewChannelTUN().TUN(), carrier.NewBind(), log)
	if err != nil {
		t.Fatal(err)
	}
	private := key(t)
	if err := d.Configure(wgtypes.Config{PrivateKey: &private}); err != nil {
		t.Fatal(err)
	}
	return d, private
}

// allowed returns the AllowedIPs of each peer, sorted.
func allowed(t *testing.T, d *wgdev.Device) map[wgtypes.Key][]string {
	t.Helper()
	status, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	got := map[wgtypes.Key][]string{}
	for _, p := range status.Peers {
		list := []string{}
		for _, n := range p.AllowedIPs {
			list = append(list, n.String())
		}
		slices.Sort(list)
		got[p.PublicKey] = list
	}
	return got
}

func TestConfigure(t *testing.T) {
	a, b, c := key(t).PublicKey(), key(t).PublicKey(), key(t).PublicKey()
	start := []wgtypes.PeerConfig{
		{PublicKey: a, AllowedIPs: prefixes("245.1.0.2/32", "fd00::2/128")},
		{PublicKey: b, AllowedIPs: prefixes("245.1.0.4/32")},
	}
	for _, row := range []struct {
		name   string
		config wgtypes.Config
		want   map[wgtypes.Key][]string
	}{
		{"nothing", wgtypes.Config{},
			map[wgtypes.Key][]string{a: {"245.1.0.2/32", "fd00::2/128"}, b: {"245.1.0.4/32"}}},
		{"one more prefix", wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: b, AllowedIPs: prefixes("10.0.0.0/8")}}},
			map[wgtypes.Key][]string{a: {"245.1.0.2/32", "fd00::2/128"}, b: {"10.0.0.0/8", "245.1.0.4/32"}}},
		{"prefixes of a peer replaced", wgtypes.Config{Peers: []wgtypes.PeerConfig{
			{PublicKey: a, ReplaceAllowedIPs: true, AllowedIPs: prefixes("245.1.0.2/32", "245.9.0.0/16")}}},
			map[wgtypes.Key][]string{a: {"245.1.0.2/32", "245.9.0.0/16"}, b: {"245.1.0.4/32"}}},
		{"all prefixes of a peer removed", wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: a, ReplaceAllowedIPs: true}}},
			map[wgtypes.Key][]string{a: {}, b: {"245.1.0.4/32"}}},
		{"a prefix moves between peers", wgtypes.Config{Peers: []wgtypes.PeerConfig{
			{PublicKey: a, ReplaceAllowedIPs: true, AllowedIPs: prefixes("245.1.0.4/32")},
			{PublicKey: b, ReplaceAllowedIPs: true, AllowedIPs: prefixes("245.1.0.2/32")}}},
			map[wgtypes.Key][]string{a: {"245.1.0.4/32"}, b: {"245.1.0.2/32"}}},
		{"a peer removed", wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: a, Remove: true}}},
			map[wgtypes.Key][]string{b: {"245.1.0.4/32"}}},
		{"an unknown peer removed", wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: c, Remove: true}}},
			map[wgtypes.Key][]string{a: {"245.1.0.2/32", "fd00::2/128"}, b: {"245.1.0.4/32"}}},
		{"update only of an unknown peer", wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: c, UpdateOnly: true, AllowedIPs: prefixes("10.0.0.0/8")}}},
			map[wgtypes.Key][]string{a: {"245.1.0.2/32", "fd00::2/128"}, b: {"245.1.0.4/32"}}},
		{"update only of a known peer", wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: b, UpdateOnly: true, AllowedIPs: prefixes("10.0.0.0/8")}}},
			map[wgtypes.Key][]string{a: {"245.1.0.2/32", "fd00::2/128"}, b: {"10.0.0.0/8", "245.1.0.4/32"}}},
		{"peers replaced", wgtypes.Config{ReplacePeers: true, Peers: []wgtypes.PeerConfig{
			{PublicKey: b, AllowedIPs: prefixes("245.1.0.2/32")}, {PublicKey: c, AllowedIPs: prefixes("10.0.0.0/8")}}},
			map[wgtypes.Key][]string{b: {"245.1.0.2/32"}, c: {"10.0.0.0/8"}}},
		{"all peers removed", wgtypes.Config{ReplacePeers: true}, map[wgtypes.Key][]string{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			d, _ := newDevice(t, nil)
			defer d.Close()
			if err := d.Configure(wgtypes.Config{Peers: start}); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time there is nothing left to change
				if err := d.Configure(row.config); err != nil {
					t.Fatal(err)
				}
				got := allowed(t, d)
				if len(got) != len(row.want) {
					t.Errorf("%d peers, want %d", len(got), len(row.want))
				}
				for k, want := range row.want {
					if !slices.Equal(got[k], want) {
						t.Errorf("AllowedIPs %v, want %v", got[k], want)
					}
				}
			}
		})
	}
}

func TestConfigureRefuses(t *testing.T) {
	peer := key(t).PublicKey()
	for _, row := range []struct {
		name string
		peer wgtypes.PeerConfig
		says string
	}{
		{"no key", wgtypes.PeerConfig{}, "no public key"},
		{"an empty prefix", wgtypes.PeerConfig{PublicKey: peer, AllowedIPs: []net.IPNet{{}}}, "not a prefix"},
		{"an endpoint without address", wgtypes.PeerConfig{PublicKey: peer, Endpoint: &net.UDPAddr{Port: 1}}, "not an address"},
	} {
		t.Run(row.name, func(t *testing.T) {
			d, _ := newDevice(t, nil)
			defer d.Close()
			err := d.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: peer, AllowedIPs: prefixes("10.0.0.0/8")}, row.peer}})
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("error %v, want one that says %q", err, row.says)
			}
			if status, _ := d.Status(); len(status.Peers) != 0 {
				t.Errorf("%d peers were configured although one was refused", len(status.Peers))
			}
		})
	}
}

func TestStatus(t *testing.T) {
	d, private := newDevice(t, nil)
	defer d.Close()
	peer, preshared, port, mark, keepalive := key(t).PublicKey(), key(t), 51820, 77, 25*time.Second
	if err := d.Configure(wgtypes.Config{ListenPort: &port, FirewallMark: &mark, Peers: []wgtypes.PeerConfig{{
		PublicKey: peer, PresharedKey: &preshared, PersistentKeepaliveInterval: &keepalive,
		Endpoint: &net.UDPAddr{IP: net.ParseIP("192.0.2.7"), Port: 9},
	}}}); err != nil {
		t.Fatal(err)
	}
	s, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	if s.Name == "" || s.Type != wgtypes.Userspace || s.PublicKey != private.PublicKey() || s.ListenPort != port || s.FirewallMark != mark {
		t.Errorf("device %+v", s)
	}
	if len(s.Peers) != 1 {
		t.Fatalf("%d peers", len(s.Peers))
	}
	p := s.Peers[0]
	if p.PublicKey != peer || p.Endpoint.String() != "192.0.2.7:9" || p.PersistentKeepaliveInterval != keepalive ||
		!p.LastHandshakeTime.IsZero() || p.ProtocolVersion != 1 {
		t.Errorf("peer %+v", p)
	}
	if s.PrivateKey != (wgtypes.Key{}) || p.PresharedKey != (wgtypes.Key{}) {
		t.Error("a secret key is in the status")
	}
}

// TestKeysStayOutOfTheLog configures with debug logging on and looks for keys.
func TestKeysStayOutOfTheLog(t *testing.T) {
	log := &lockedBuffer{}
	d, private := newDevice(t, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	peer, preshared := key(t).PublicKey(), key(t)
	if err := d.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: peer, PresharedKey: &preshared}}}); err != nil {
		t.Fatal(err)
	}
	d.Nudge(peer)
	d.Close()
	if !strings.Contains(log.String(), "peer(") {
		t.Fatalf("nothing about the peer in the log:\n%s", log.String())
	}
	for _, k := range []wgtypes.Key{private, peer, preshared} {
		if strings.Contains(log.String(), k.String()) || strings.Contains(log.String(), wgdev.Hex(k)) {
			t.Errorf("a whole key is in the log:\n%s", log.String())
		}
	}
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestServeUAPI asks as the wg program does.
func TestServeUAPI(t *testing.T) {
	defer goleak.VerifyNone(t)
	d, private := newDevice(t, nil)
	defer d.Close()
	peer := key(t).PublicKey()
	if err := d.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: peer, AllowedIPs: prefixes("10.0.0.0/8")}}}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "culvert0.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.ServeUAPI(ctx, l) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ServeUAPI: %v", err)
		}
	}()
	ask := func(request string) string {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, request)
		c.(*net.UnixConn).CloseWrite()
		answer, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(answer)
	}
	for _, row := range []struct {
		name, request string
		has           []string
	}{
		{"get", "get=1\n\n", []string{"private_key=" + wgdev.Hex(private), "public_key=" + wgdev.Hex(peer), "allowed_ip=10.0.0.0/8", "errno=0\n\n"}},
		{"get twice", "get=1\n\nget=1\n\n", []string{"errno=0\n\nprivate_key="}},
		{"set", "set=1\nreplace_peers=true\n\n", []string{"errno=-1\n\n"}},
		{"a request cut short", "get=1\n", []string{""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			answer := ask(row.request)
			for _, want := range row.has {
				if !strings.Contains(answer, want) {
					t.Errorf("answer\n%s\nhas no %q", answer, want)
				}
			}
		})
	}
	if got := allowed(t, d); len(got) != 1 {
		t.Error("a client of the socket removed the peer")
	}
	idle, err := net.Dial("unix", l.Addr().String()) // must not hold up the end
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
}

func TestCloseLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	d, _ := newDevice(t, nil)
	d.Configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: key(t).PublicKey()}}})
	d.Close()
	d.Close()
	<-d.Done()
	d.Nudge(key(t))
	if err := d.Configure(wgtypes.Config{ReplacePeers: true}); err != nil {
		t.Logf("Configure after Close: %v", err)
	}
}
