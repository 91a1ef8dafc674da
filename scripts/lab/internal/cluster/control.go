package cluster

import (
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/culvert-dev/culvert/scripts/lab/internal/build"
	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// control describes the control plane's processes. All run on the first node
// and none needs more than a development cluster: no leader election, no
// profiling, no fsync.
type control struct {
	lab *state.Lab
	bin build.Binaries
}

func (c control) pki(name string) string { return filepath.Join(pkiDir(c.lab), name) }

func (c control) config(name string) string { return c.lab.Path("kubeconfigs", name) }

func (c control) etcd() launch.Spec {
	return launch.Spec{Name: "etcd", Host: topology.Node(1), Args: []string{
		c.bin["etcd"],
		"--name=lab",
		"--data-dir=" + c.lab.Path("etcd"),
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=lab=http://127.0.0.1:2380",
		"--unsafe-no-fsync=true",
		"--heartbeat-interval=50", "--election-timeout=250",
		"--log-level=warn",
	}}
}

func (c control) apiserver() launch.Spec {
	return launch.Spec{Name: "kube-apiserver", Host: topology.Node(1), Args: []string{
		c.bin["kube-apiserver"],
		"--advertise-address=" + topology.NodeAddr(1).String(),
		"--bind-address=::",
		"--secure-port=6443",
		"--etcd-servers=http://127.0.0.1:2379",
		"--service-cluster-ip-range=" + JoinPrefixes(c.lab.Options.Services),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--anonymous-auth=true", // clients probe /readyz and /version as on real clusters
		"--client-ca-file=" + c.pki("ca.crt"),
		"--tls-cert-file=" + c.pki("apiserver.crt"), "--tls-private-key-file=" + c.pki("apiserver.key"),
		"--kubelet-certificate-authority=" + c.pki("ca.crt"),
		"--kubelet-client-certificate=" + c.pki("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + c.pki("apiserver-kubelet.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pki("service-accounts.pub"),
		"--service-account-signing-key-file=" + c.pki("service-accounts.key"),
		"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + c.pki("front-proxy.crt"), "--proxy-client-key-file=" + c.pki("front-proxy.key"),
		"--allow-privileged=true",
		"--event-ttl=30m",
		"--profiling=false",
	}}
}

func (c control) controllerManager() launch.Spec {
	config := c.config("kube-controller-manager")
	o := c.lab.Options
	args := []string{
		c.bin["kube-controller-manager"],
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--allocate-node-cidrs=true",
		"--cluster-cidr=" + JoinPrefixes(o.Pods),
		"--service-cluster-ip-range=" + JoinPrefixes(o.Services),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.pki("service-accounts.key"),
		"--root-ca-file=" + c.pki("ca.crt"),
		"--cluster-signing-cert-file=" + c.pki("ca.crt"), "--cluster-signing-key-file=" + c.pki("ca.key"),
		// What a lab without volumes and autoscaling never uses.
		"--controllers=*,-horizontal-pod-autoscaler-controller,-persistentvolume-binder-controller," +
			"-persistentvolume-attach-detach-controller,-persistentvolume-expander-controller," +
			"-ephemeral-volume-controller,-resourceclaim-controller,-volumeattributesclass-protection-controller",
		"--profiling=false",
	}
	for _, pods := range o.Pods {
		flag := "--node-cidr-mask-size-ipv4=24"
		if pods.Addr().Is6() {
			flag = "--node-cidr-mask-size-ipv6=64"
		}
		args = append(args, flag)
	}
	return launch.Spec{Name: "kube-controller-manager", Host: topology.Node(1), Args: args}
}

func (c control) scheduler() launch.Spec {
	config := c.config("kube-scheduler")
	return launch.Spec{Name: "kube-scheduler", Host: topology.Node(1), Args: []string{
		c.bin["kube-scheduler"],
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--profiling=false",
	}}
}

// JoinPrefixes returns prefixes separated by commas, as the cluster's programs take them.
func JoinPrefixes(prefixes []netip.Prefix) string {
	var words []string
	for _, p := range prefixes {
		words = append(words, p.String())
	}
	return strings.Join(words, ",")
}
