package cluster

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/culvert-dev/culvert/scripts/lab/internal/pki"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// Workstation user that may read kubeconfigs besides root.
const devUID = 1000

func pkiDir(l *state.Lab) string { return l.Path("pki") }

// writePKI makes every certificate of the cluster.
func writePKI(l *state.Lab) error {
	ca, err := pki.NewAuthority("lab")
	if err != nil {
		return err
	}
	front, err := pki.NewAuthority("lab-front-proxy")
	if err != nil {
		return err
	}
	serviceAccounts, err := pki.NewAuthority("service-accounts")
	if err != nil {
		return err
	}
	dir := pkiDir(l)
	for name, pair := range map[string]pki.Pair{"ca": ca, "front-proxy-ca": front, "service-accounts": serviceAccounts} {
		if err := pair.Write(dir, name); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "service-accounts.pub"), serviceAccounts.PublicPEM(), 0o644); err != nil {
		return err
	}
	if err := issue(front, dir, "front-proxy", pki.Request{Name: "front-proxy"}); err != nil {
		return err
	}
	for name, request := range requests(l) {
		if err := issue(ca, dir, name, request); err != nil {
			return err
		}
	}
	return nil
}

func issue(ca pki.Pair, dir, name string, r pki.Request) error {
	pair, err := ca.Issue(r)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	return pair.Write(dir, name)
}

// requests lists the certificates signed by the cluster's authority, by file
// name.
func requests(l *state.Lab) map[string]pki.Request {
	all := map[string]pki.Request{
		"apiserver":               apiserverRequest(l.Options),
		"apiserver-kubelet":       {Name: "kube-apiserver", Groups: []string{"system:masters"}},
		"admin":                   {Name: "admin", Groups: []string{"system:masters"}},
		"kube-controller-manager": {Name: "system:kube-controller-manager"},
		"kube-scheduler":          {Name: "system:kube-scheduler"},
		"kube-proxy":              {Name: "system:kube-proxy"},
	}
	for i := 1; i <= l.Options.Nodes; i++ {
		all["kubelet-"+topology.Node(i)] = pki.Request{
			Name: "system:node:" + topology.Node(i), Groups: []string{"system:nodes"}, Server: true,
			DNS: []string{topology.Node(i)}, Addrs: []netip.Addr{topology.NodeAddr(i), topology.NodeAddr6(i)},
		}
	}
	return all
}

// apiserverRequest names the API server as clients outside (its address) and
// pods (the first service address, kubernetes.default.svc) know it.
func apiserverRequest(o state.Options) pki.Request {
	r := pki.Request{
		Name: "kube-apiserver", Server: true,
		DNS: []string{
			"localhost", topology.Node(1), "kubernetes", "kubernetes.default",
			"kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		},
		Addrs: []netip.Addr{topology.NodeAddr(1), topology.NodeAddr6(1), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")},
	}
	for _, services := range o.Services {
		r.Addrs = append(r.Addrs, services.Addr().Next())
	}
	return r
}

// DNSAddr is the address of the cluster's DNS service in services: the tenth,
// as kubeadm has it.
func DNSAddr(services netip.Prefix) netip.Addr {
	a := services.Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}
