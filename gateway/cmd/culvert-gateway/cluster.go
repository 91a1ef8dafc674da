package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/culvert-dev/culvert/internal/version"
)

// newClient returns a client of the API server of o.
func newClient(o options) (dynamic.Interface, error) {
	cfg, err := restConfig(o)
	if err != nil {
		return nil, err
	}
	cfg.UserAgent = "culvert-gateway/" + version.Version
	cfg.QPS = -1 // how much is asked is bounded where it is asked, by what is worth waiting for
	notice()
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reach the API server at %s: %w", cfg.Host, err)
	}
	return client, nil
}

func restConfig(o options) (*rest.Config, error) {
	if o.kubeconfig != "" {
		cfg, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read --kubeconfig %s: %w", o.kubeconfig, err)
		}
		return cfg, nil
	}
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server from within a pod: %w (outside a pod: --kubeconfig FILE)", err)
	}
	return cfg, nil
}

// notice makes client-go find out within 15 s that a connection to the API server is dead, instead of
// 45 s: until then no change of a Peer would be seen. These variables are the only way to say so.
func notice() {
	for name, seconds := range map[string]string{"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "10", "HTTP2_PING_TIMEOUT_SECONDS": "5"} {
		if _, set := os.LookupEnv(name); !set {
			_ = os.Setenv(name, seconds)
		}
	}
}

var namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}

// clusterUID returns what identifies the cluster: the UID of kube-system, which lives as long as the
// cluster does, where the whole cluster may be read, else that of the gateway's own namespace, else "".
// It tries until ctx ends as long as the API server does not answer.
func clusterUID(ctx context.Context, client dynamic.Interface, clusterScope bool, own string, log *slog.Logger) string {
	names := []string{own}
	if clusterScope {
		names = []string{metav1.NamespaceSystem, own}
	}
	for _, name := range names {
		if uid, ok := namespaceUID(ctx, client, name, log); ok {
			return uid
		}
	}
	return ""
}

// namespaceUID reads one namespace; false means that it may not be read, or that ctx has ended.
func namespaceUID(ctx context.Context, client dynamic.Interface, name string, log *slog.Logger) (string, bool) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		u, err := client.Resource(namespaces).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return string(u.GetUID()), true
		}
		if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || ctx.Err() != nil {
			return "", false
		}
		log.Warn("cannot read the cluster's identity, trying again", "namespace", name, "err", err)
		select {
		case <-ctx.Done():
			return "", false
		case <-time.After(pause):
		}
	}
}

// ownAddrs returns the addresses of this pod: those the API knows first, then those its interfaces
// have besides.
func ownAddrs(pod []netip.Addr) ([]netip.Addr, error) {
	out := slices.Clone(pod)
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this pod: %w", err)
	}
	for _, a := range list {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue // not an internet address
		}
		addr := p.Addr().Unmap().WithZone("")
		if !addr.IsLoopback() && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out, nil
}
