//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// endpointsPerSlice is the most that Kubernetes takes.
const endpointsPerSlice = 1000

// nodeAnswers has node1 answer for every address of some prefixes of the pods' until the test ends: by
// ping, and with the lab's server, which tells on port 7002 where it was reached.
//
//	ws ══ tunnel ══ gateway pod ── cni0 ── node1: local PREFIX ── labnet server
func (l *lab) nodeAnswers(t *testing.T, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		route := []string{"local", p, "dev", "lo", "table", "local"}
		must(t, l.Host(5*time.Second, "node1", append([]string{"ip", "route", "replace"}, route...)...), "answer for "+p)
		t.Cleanup(func() {
			must(t, l.Host(5*time.Second, "node1", append([]string{"ip", "route", "del"}, route...)...), "no longer answer for "+p)
		})
	}
	t.Cleanup(l.backgroundOn(t, "node1", nil, "lab", "labnet", "server", "--loopback=false"))
	addr := netip.MustParsePrefix(prefixes[0]).Addr().Next().String()
	eventually(t, 5*time.Second, "the server on node1", func() error {
		return l.Host(5*time.Second, "node1", l.Bin+"/lab", "labnet", "reached", "--count", "1", "--first", addr, addr+":7002").OK()
	})
}

// consecutive returns n addresses from first on.
func consecutive(first string, n int) []netip.Addr {
	addrs := make([]netip.Addr, n)
	for i, a := 0, netip.MustParseAddr(first); i < n; i, a = i+1, a.Next() {
		addrs[i] = a
	}
	return addrs
}

// headless makes a service without pods whose endpoints e0, e1, ... have addrs, all of one family, for the
// length of the test: eN.NAME.default.svc.cluster.local.
func (l *lab) headless(t *testing.T, name string, addrs []netip.Addr) {
	t.Helper()
	items := []any{map[string]any{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": name},
		"spec":     map[string]any{"clusterIP": "None", "ports": []any{map[string]any{"name": "reached", "port": 7002}}},
	}}
	for from := 0; from < len(addrs); from += endpointsPerSlice {
		items = append(items, endpointSlice(name, from, addrs[from:min(len(addrs), from+endpointsPerSlice)]))
	}
	list, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.dropHeadless(t, name) })
	must(t, l.KubectlInput(string(list), "create", "-f", "-"), fmt.Sprintf("make a service with %d endpoints", len(addrs)))
}

// dropHeadless deletes what headless made, if it is there.
func (l *lab) dropHeadless(t *testing.T, name string) {
	t.Helper()
	must(t, l.Kubectl("delete", "service", name, "--ignore-not-found"), "delete the service")
	must(t, l.Kubectl("delete", "endpointslices", "-l", "kubernetes.io/service-name="+name), "delete its endpoints")
}

// endpointSlice returns the slice of those endpoints of a service that begin with number from.
func endpointSlice(service string, from int, addrs []netip.Addr) map[string]any {
	family := "IPv4"
	if addrs[0].Is6() {
		family = "IPv6"
	}
	endpoints := make([]any, len(addrs))
	for i, a := range addrs {
		endpoints[i] = map[string]any{
			"addresses": []string{a.String()}, "hostname": fmt.Sprintf("e%d", from+i),
			"conditions": map[string]any{"ready": true},
		}
	}
	return map[string]any{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
		"metadata": map[string]any{
			"name": fmt.Sprintf("%s-%d", service, from), "labels": map[string]string{"kubernetes.io/service-name": service},
		},
		"ports":     []any{map[string]any{"name": "reached", "port": 7002}},
		"endpoints": endpoints,
	}
}

// endpoint is the name of the n-th endpoint of a service that headless made.
func endpoint(service string, n int) string {
	return fmt.Sprintf("e%d.%s.default.svc.cluster.local", n, service)
}

// reached checks that a connection to target, an address or a name that has one, ends at real, over TCP and
// UDP.
func (l *lab) reached(t *testing.T, what, target, real string) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		r := l.Labnet(10*time.Second, "reached", "--count", "1", "--timeout", "5s", "--network", network, "--first", real, hostPort(target, 7002))
		if r.Code != 0 {
			t.Errorf("%s: %s over %s does not lead to %s: %s", what, target, network, real, r)
		}
	}
}

// hostPort joins a host, also an IPv6 address, and a port.
func hostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, port)
}
