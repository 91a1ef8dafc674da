package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// writeCNI gives the node's pods a bridge and addresses out of podCIDRs;
// containerd and then kubelet turn ready on it. The file is written in place:
// containerd reloads on a write, not on a file appearing by rename.
func (n node) writeCNI(podCIDRs []string) error {
	var ranges [][]map[string]string
	routes := []map[string]string{}
	for _, cidr := range podCIDRs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return fmt.Errorf("pod CIDR of %s: %w", n.name(), err)
		}
		ranges = append(ranges, []map[string]string{{"subnet": cidr}})
		dst := "0.0.0.0/0"
		if prefix.Addr().Is6() {
			dst = "::/0"
		}
		routes = append(routes, map[string]string{"dst": dst})
	}
	config, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0", "name": "lab",
		"plugins": []map[string]any{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
				"hairpinMode": true, "forceAddress": true,
				"ipam": map[string]any{"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": "/run/cni"},
			},
			{"type": "portmap", "backend": "nftables", "capabilities": map[string]bool{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(n.path("cni", "10-lab.conflist"), config, 0o644)
}

// masquerade makes pods leave the cluster under their node's address, as most
// CNI plugins have it; between pods and nodes addresses stay.
func (n node) masquerade() string {
	rules := "table inet lab\ndelete table inet lab\ntable inet lab {\n  chain postrouting {\n    type nat hook postrouting priority 100; policy accept;\n"
	for _, pods := range n.lab.Options.Pods {
		family, nodes := "ip", "10.50.0.0/24"
		if pods.Addr().Is6() {
			family, nodes = "ip6", "fd50::/64"
		}
		rules += fmt.Sprintf("    %[1]s saddr %[2]s %[1]s daddr != { %[2]s, %[3]s } oifname \"eth0\" masquerade\n", family, pods, nodes)
	}
	return rules + "  }\n}\n"
}

// routePods leads from this node to the pods of another.
func (n node) routePods(holder int, other int, podCIDRs []string) error {
	return host.Do(holder, host.Net, func() error {
		for _, cidr := range podCIDRs {
			prefix, err := netip.ParsePrefix(cidr)
			if err != nil {
				return err
			}
			via := topology.NodeAddr(other)
			if prefix.Addr().Is6() {
				via = topology.NodeAddr6(other)
			}
			if err := topology.AddRoute(topology.Route{Dst: prefix, Via: via}); err != nil {
				return err
			}
		}
		return nil
	})
}
