package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/tun/netstack"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/culvert-dev/culvert/gateway/peers"
	"github.com/culvert-dev/culvert/gateway/policystatus"
	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/wgdev"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

func core(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: resource}
}

func object(apiVersion, kind, namespace, name string, fields map[string]any) *unstructured.Unstructured {
	meta := map[string]any{"name": name, "uid": "uid-" + name}
	if namespace != "" {
		meta["namespace"] = namespace
	}
	o := map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": meta}
	for k, v := range fields {
		o[k] = v
	}
	return &unstructured.Unstructured{Object: o}
}

// newCluster is an API server with one node and the team's Policy.
func newCluster() *fake.FakeDynamicClient {
	return fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		peers.Resource: "PeerList", policystatus.Resource: "PolicyList", core("nodes"): "NodeList", core("pods"): "PodList",
		core("namespaces"): "NamespaceList", core("services"): "ServiceList",
		{Group: "networking.k8s.io", Version: "v1", Resource: "servicecidrs"}:      "ServiceCIDRList",
		{Group: "networking.k8s.io", Version: "v1beta1", Resource: "servicecidrs"}: "ServiceCIDRList",
	},
		object("v1", "Namespace", "", "kube-system", nil),
		object("v1", "Node", "", "n1", map[string]any{"spec": map[string]any{"podCIDRs": []any{"10.132.0.0/24"}}}),
		object("networking.k8s.io/v1", "ServiceCIDR", "", "kubernetes", map[string]any{"spec": map[string]any{"cidrs": []any{"10.130.0.0/16"}}}),
		object("culvert.dev/v1alpha1", "Policy", "culvert", "default", nil))
}

// nameserver answers every question with one TXT record, over UDP and TCP.
func nameserver(t *testing.T) string {
	t.Helper()
	udp, tcp := listenBoth(t)
	handle := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{w.RemoteAddr().Network()}}}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handle}, {Listener: tcp, Handler: handle}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return udp.LocalAddr().String()
}

// listenBoth binds one loopback port for UDP and TCP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		udp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// freePort returns an address nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// running is a gateway under test.
type running struct {
	*testing.T
	api             dynamic.Interface
	carrier, health string
	stop            func() error // ends it and returns what serve returned
}

func startGateway(t *testing.T, args ...string) *running {
	t.Helper()
	return startGatewayOn(t, newCluster(), args...)
}

func startGatewayOn(t *testing.T, cluster dynamic.Interface, args ...string) *running {
	t.Helper()
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("search culvert.svc.k8s.example svc.k8s.example k8s.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := &running{T: t, api: cluster, carrier: freePort(t), health: freePort(t)}
	env := map[string]string{"POD_NAME": "culvert-gateway-0", "POD_UID": "pod-1", "POD_IPS": "10.132.0.9", "CULVERT_LOG_LEVEL": "error"}
	o, err := parseOptions(append([]string{"--carrier-listen", g.carrier, "--health-listen", g.health, "--resolv-conf", resolv}, args...),
		func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveWith(ctx, o, slog.New(slog.NewTextHandler(t.Output(), nil)), g.api) }()
	g.stop = func() error {
		cancel()
		select {
		case err := <-done:
			done <- err
			return err
		case <-time.After(20 * time.Second):
			return errors.New("it does not end")
		}
	}
	t.Cleanup(func() { _ = g.stop() })
	return g
}

// eventually fails the test unless ok holds within d.
func eventually(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (g *running) page(path string) (int, string) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + g.health + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// enrol creates a Peer and waits for its answer.
func (g *running) enrol(name string, key wgtypes.Key, addrs ...string) v1alpha1.PeerStatus {
	g.Helper()
	return g.enrolWithTwins(name, key, nil, addrs...)
}

// enrolWithTwins is enrol with twins, real prefixes by virtual ones.
func (g *running) enrolWithTwins(name string, key wgtypes.Key, twins map[string]string, addrs ...string) (status v1alpha1.PeerStatus) {
	g.Helper()
	g.create(name, key, twins, addrs...)
	eventually(g.T, 20*time.Second, name+" is answered", func() (ok bool) {
		status, ok = g.answered(name)
		return ok
	})
	return status
}

// create creates a Peer.
func (g *running) create(name string, key wgtypes.Key, twins map[string]string, addrs ...string) {
	g.Helper()
	pairs := []any{}
	for virtual, real := range twins {
		pairs = append(pairs, map[string]any{"real": real, "virtual": virtual})
	}
	list := make([]any, len(addrs))
	for i, a := range addrs {
		list[i] = a
	}
	p := object("culvert.dev/v1alpha1", "Peer", "culvert", name, map[string]any{"spec": map[string]any{
		"user": "ann", "publicKey": key.String(), "addresses": list, "twins": pairs}})
	p.SetCreationTimestamp(metav1.Now())
	if _, err := g.api.Resource(peers.Resource).Namespace("culvert").Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		g.Fatal(err)
	}
}

// answered returns the status of a Peer, and whether the gateway has written one.
func (g *running) answered(name string) (v1alpha1.PeerStatus, bool) {
	g.Helper()
	var p v1alpha1.Peer
	u, err := g.api.Resource(peers.Resource).Namespace("culvert").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return p.Status, false
	}
	raw, _ := json.Marshal(u.Object)
	err = json.Unmarshal(raw, &p)
	return p.Status, err == nil && len(p.Status.Conditions) > 0
}

// join connects a workstation as status says and returns its network.
func (g *running) join(private wgtypes.Key, status v1alpha1.PeerStatus, addrs ...string) *netstack.Net {
	g.Helper()
	var local []netip.Addr
	for _, a := range addrs {
		local = append(local, netip.MustParsePrefix(a).Addr())
	}
	tun, network, err := netstack.CreateNetTUN(local, nil, 1420)
	if err != nil {
		g.Fatal(err)
	}
	bind := carrier.NewBind()
	device, err := wgdev.New(tun, bind, nil)
	if err != nil {
		g.Fatal(err)
	}
	server, err := wgtypes.ParseKey(status.Gateway.PublicKey)
	if err != nil {
		g.Fatal(err)
	}
	endpoint := netip.MustParseAddrPort("192.0.2.1:1")
	_, all4, _ := net.ParseCIDR("0.0.0.0/0")
	_, all6, _ := net.ParseCIDR("::/0")
	if err := device.Configure(wgtypes.Config{PrivateKey: &private, Peers: []wgtypes.PeerConfig{{PublicKey: server,
		Endpoint: net.UDPAddrFromAddrPort(endpoint), AllowedIPs: []net.IPNet{*all4, *all6}}}}); err != nil {
		g.Fatal(err)
	}
	keeper := &carrier.Keeper{Bind: bind, Endpoint: endpoint, Hello: carrier.Hello{MTU: 1420}, OnSwitch: func() { device.Nudge(server) },
		Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", g.carrier)
		}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = keeper.Run(ctx) }()
	g.Cleanup(func() { cancel(); <-done; device.Close() })
	return network
}

// ask sends one DNS question to addr over the workstation's network.
func ask(network *netstack.Net, proto, addr string, within time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	conn, err := network.DialContext(ctx, proto, addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(within))
	// netstack's UDP connection does not tell dns.Conn what it is, so the framing is ours to choose.
	raw, _ := new(dns.Msg).SetQuestion("echo.default.svc.k8s.example.", dns.TypeTXT).Pack()
	if proto == "tcp" {
		raw = append([]byte{byte(len(raw) >> 8), byte(len(raw))}, raw...)
	}
	if _, err := conn.Write(raw); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	n, err := io.ReadAtLeast(conn, buf, 12)
	if err != nil {
		return "", err
	}
	if buf = buf[:n]; proto == "tcp" {
		buf = buf[2:]
	}
	var m dns.Msg
	if err := m.Unpack(buf); err != nil {
		return "", err
	}
	if len(m.Answer) != 1 {
		return "", fmt.Errorf("answer %v", &m)
	}
	return m.Answer[0].(*dns.TXT).Txt[0], nil
}

// TestPeersAreServedOnceSubnetsAreKnown: a gateway that has just started accepts no Peer before it knows what
// that may reach.
func TestPeersAreServedOnceSubnetsAreKnown(t *testing.T) {
	cluster := newCluster()
	var asked atomic.Int32
	var known atomic.Bool
	cluster.PrependReactor("list", "servicecidrs", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked.Add(1)
		return !known.Load(), nil, apierrors.NewInternalError(errors.New("etcd is away"))
	})
	g := startGatewayOn(t, cluster, "--nameservers", "127.0.0.1:1")
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	g.create("early", key.PublicKey(), nil, "245.1.2.4/32")
	eventually(t, 10*time.Second, "the subnets are asked for again", func() bool { return asked.Load() >= 5 })
	if status, ok := g.answered("early"); ok {
		t.Errorf("served before the subnets are known: %+v", status)
	}
	known.Store(true)
	eventually(t, 10*time.Second, "early is served", func() bool {
		status, ok := g.answered("early")
		return ok && status.Gateway != nil
	})
}

// TestGatewayServesAWorkstation drives the whole program but for the API server and the port-forward:
// a workstation with WireGuard in user space speaks the framed carrier over TCP.
func TestGatewayServesAWorkstation(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreTopFunction("time.Sleep")) })
	upstream := nameserver(t)
	g := startGateway(t, "--nameservers", upstream, "--egress-allow", "127.0.0.1/32")
	eventually(t, 10*time.Second, "ready", func() bool { code, _ := g.page("/readyz"); return code == http.StatusOK })

	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	addrs := []string{"245.1.2.4/32", "fd7a:1::4/128"}
	status := g.enrolWithTwins("ann-1", private.PublicKey(), map[string]string{"246.127.0.0/24": "127.0.0.0/24", "246.1.0.1/32": "198.51.100.7/32",
		"246.1.0.2/32": "169.254.169.254/32", "246.1.0.3/32": "10.132.0.9/32", "246.1.0.4/32": "245.1.2.8/32", "246.1.0.5/32": "245.1.2.5/32"}, addrs...)
	if c := status.Conditions[0]; c.Reason != v1alpha1.ReasonAccepted || status.Gateway.PodUID != "pod-1" {
		t.Fatalf("answer %+v", status)
	}
	network := g.join(private, status, addrs...)
	for _, d := range status.Gateway.DNS {
		server := netip.AddrPortFrom(netip.MustParseAddr(d), 53).String()
		for _, proto := range []string{"udp", "tcp"} {
			if got, err := ask(network, proto, server, 10*time.Second); err != nil || got != proto {
				t.Errorf("%s question to %s: %q, %v", proto, server, got, err)
			}
		}
	}

	// A destination by its twin.
	for _, proto := range []string{"udp", "tcp"} {
		twin := netip.AddrPortFrom(netip.MustParseAddr("246.127.0.1"), netip.MustParseAddrPort(upstream).Port()).String()
		if got, err := ask(network, proto, twin, 10*time.Second); err != nil || got != proto {
			t.Errorf("%s question to the twin %s: %q, %v", proto, twin, got, err)
		}
	}

	// What no rule permits is refused at once, whatever it is, and by a twin too.
	other := g.enrol("bob-1", keyOf(t), "245.1.2.8/32")
	if other.Conditions[0].Reason != v1alpha1.ReasonAccepted {
		t.Fatalf("bob is answered %+v", other)
	}
	for name, dst := range map[string]string{"outside the cluster": "198.51.100.7:80", "metadata": "169.254.169.254:80", "itself": "10.132.0.9:7832",
		"the gateway's own address, another port": "245.1.2.5:7832", "outside the cluster by a twin": "246.1.0.1:80", "metadata by a twin": "246.1.0.2:80",
		"itself by a twin": "246.1.0.3:7832", "beside what is allowed": "246.127.0.2:80",
		"another Peer by a twin": "246.1.0.4:22", "the gateway's own overlay address by a twin": "246.1.0.5:53"} {
		conn, err := network.Dial("tcp", dst)
		if err == nil {
			conn.Close()
		}
		if !refused(err) { // which takes a reset; silence ends otherwise
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, dst := range map[string]string{"another Peer": "245.1.2.8:22", "no twin": "246.127.1.1:80"} {
		conn, err := network.Dial("tcp", dst)
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "no route to host") { // as ICMP "host unreachable" says
			t.Errorf("%s: %v", name, err)
		}
	}

	if _, metrics := g.page("/metrics"); !strings.Contains(metrics, `culvert_peers{reason="Accepted"} 2`) || !strings.Contains(metrics, "culvert_carrier_streams 1") ||
		!strings.Contains(metrics, `culvert_dns_answers_total{rcode="NOERROR"} 4`) {
		t.Errorf("metrics: %s", metrics)
	}

	// A Peer deleted is cut off.
	if err := g.api.Resource(peers.Resource).Namespace("culvert").Delete(context.Background(), "ann-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "cut off", func() bool {
		_, err := ask(network, "udp", "245.1.2.5:53", 100*time.Millisecond)
		return err != nil
	})

	if err := g.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// refused reports whether err is a reset in answer to a SYN.
func refused(err error) bool {
	return err != nil && (errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "refused"))
}

func keyOf(t *testing.T) wgtypes.Key {
	t.Helper()
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k.PublicKey()
}

func TestGatewayFailsWhenItCannotListen(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	g := startGateway(t, "--nameservers", "127.0.0.1", "--health-listen", taken.Addr().String())
	if err := g.stop(); err == nil || !strings.Contains(err.Error(), "health checks") {
		t.Errorf("error %v", err)
	}
}
