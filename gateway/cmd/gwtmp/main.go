// Command gwtmp is a stop-gap.
package main

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/culvert-dev/culvert/gateway/dataplane"
	"github.com/culvert-dev/culvert/gateway/dnsforward"
	"github.com/culvert-dev/culvert/gateway/egress"
	"github.com/culvert-dev/culvert/gateway/peers"
	"github.com/culvert-dev/culvert/gateway/policystatus"
	"github.com/culvert-dev/culvert/gateway/subnets"
	"github.com/culvert-dev/culvert/internal/carrier"
	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/internal/wgdev"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

type plane struct{ *dataplane.Plane }

func (p plane) SetPeers(s []peers.Served) {
	var out []dataplane.PeerAddrs
	for _, x := range s {
		pa := dataplane.PeerAddrs{ID: string(x.UID), Node: x.Addrs}
		for _, a := range x.Addrs {
			pa.Gateway = append(pa.Gateway, policy.GatewayAddr(a))
		}
		out = append(out, pa)
	}
	p.Plane.SetPeers(out)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for i, a := range os.Args[1:] {
		log.Info("arg", "i", i, "a", a)
	}
	flag.CommandLine.Init("x", flag.ContinueOnError)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	rc, err := rest.InClusterConfig()
	must(err)
	client, err := dynamic.NewForConfig(rc)
	must(err)
	key, _ := wgtypes.GeneratePrivateKey()
	gate := &egress.Gate{}
	own := netip.MustParseAddr(os.Getenv("POD_IP"))
	res, err := dnsforward.ReadResolver("/etc/resolv.conf", []netip.Addr{own})
	must(err)
	fw, err := dnsforward.New(dnsforward.Config{Upstreams: res.Servers, Log: log})
	must(err)
	pl, err := dataplane.New(dataplane.Config{MTU: 1420, Log: log, ServeDNS: fw.Serve, Permit: func(_ netip.Addr, _ dataplane.Proto, dst netip.AddrPort) dataplane.Verdict {
		if gate.Decide(dst.Addr()) != egress.Refused {
			return dataplane.Allow
		}
		return dataplane.Deny
	}})
	must(err)
	bind := carrier.NewBind()
	dev, err := wgdev.New(pl.TUN(), bind, log)
	must(err)
	must(dev.Configure(wgtypes.Config{PrivateKey: &key}))
	l, err := net.Listen("tcp", "127.0.0.1:7831")
	must(err)
	go (&carrier.Server{Bind: bind, Log: log}).Serve(ctx, l)
	ns := "culvert"
	pub := policystatus.New(policystatus.Config{Client: client, Namespace: ns, Name: "default", Log: log})
	go pub.Run(ctx)
	go subnets.New(subnets.Config{Client: client, Namespace: ns, ClusterScope: true, Own: []netip.Addr{own}, Log: log, OnChange: func(r subnets.Result) {
		gate.Replace(egress.Compile(egress.Input{Services: r.ServicePrefixes(), Pods: r.PodPrefixes(), Own: []netip.Addr{own}}))
		pub.Publish(policystatus.Facts{Subnets: r, ClusterDomain: res.ClusterDomain()})
	}}).Run(ctx)
	ctl := peers.New(peers.Config{Client: client, Namespace: ns, WireGuard: dev, Plane: plane{pl}, Key: key.PublicKey(), Log: log,
		Gateway: v1alpha1.PeerGateway{Pod: os.Getenv("POD_NAME"), PodUID: os.Getenv("POD_UID"), PublicKey: key.PublicKey().String(), Version: version.Version, CarrierPort: 7831}})
	go http.ListenAndServe(":7832", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok")) }))
	ctl.Run(ctx)
}
