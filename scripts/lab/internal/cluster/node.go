package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/culvert-dev/culvert/scripts/lab/internal/build"
	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// node describes one node's processes and files.
type node struct {
	lab   *state.Lab
	bin   build.Binaries
	index int // from 1
}

func (n node) name() string { return topology.Node(n.index) }

// path lies in the node's own directory.
func (n node) path(elements ...string) string {
	return n.lab.Path(append([]string{n.name()}, elements...)...)
}

// Socket is the path of containerd's socket on a node; it is the same seen from
// the machine.
func Socket(l *state.Lab, node string) string { return l.Path(node, "containerd.sock") }

// Directories of the machine that a node covers with its own, and what it keeps
// in their place below its directory.
var nodeDirs = map[string]string{
	"/var/lib/kubelet": "kubelet", // device plugins and pod resources are at fixed paths
	"/var/log":         "log",     // so are container logs
}

// NodeBinds returns the directories to lay over the machine's, as from -> to,
// after making the sources.
func NodeBinds(l *state.Lab, name string) (map[string]string, error) {
	binds := map[string]string{}
	for to, own := range nodeDirs {
		from := l.Path(name, own)
		if err := os.MkdirAll(from, 0o755); err != nil {
			return nil, err
		}
		binds[from] = to
	}
	return binds, addKernelSettings(l.Path(name, "proc-sys"), binds)
}

// kernelSettings are what kubelet insists on. They belong to the whole machine,
// so a node sees plain files that already hold them and the machine keeps its
// own.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

func addKernelSettings(dir string, binds map[string]string) error {
	for key, value := range kernelSettings {
		target := filepath.Join("/proc/sys", key)
		if _, err := os.Stat(target); err != nil {
			continue // a kernel without it: kubelet will say so
		}
		file := filepath.Join(dir, strings.ReplaceAll(key, "/", "."))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		binds[file] = target
	}
	return nil
}

const containerdConfig = `version = 3
root = %[1]q
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.differ.v1.erofs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = %[2]q

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %[3]q

[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE a lower score cannot be set, and runc dies trying.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = %[4]q
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%[5]q]
    conf_dir = %[6]q
`

func (n node) containerd() (launch.Spec, error) {
	config := fmt.Sprintf(containerdConfig, n.path("containerd"), Socket(n.lab, n.name()), pauseImage,
		n.bin["runc"], filepath.Dir(n.bin["bridge"]), n.path("cni"))
	file := n.path("containerd.toml")
	if err := os.MkdirAll(n.path("cni"), 0o755); err != nil {
		return launch.Spec{}, err
	}
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return launch.Spec{}, err
	}
	dirs := filepath.Dir(n.bin["containerd"]) + ":" + filepath.Dir(n.bin["runc"])
	return launch.Spec{
		Name: "containerd-" + n.name(), Host: n.name(),
		Args: []string{n.bin["containerd"], "--config", file, "--log-level", "warn"},
		Env:  []string{"PATH=" + dirs + ":/usr/sbin:/usr/bin:/sbin:/bin"},
	}, nil
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://%[1]s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[2]q}
authorization: {mode: Webhook}
tlsCertFile: %[3]q
tlsPrivateKeyFile: %[4]q
clusterDomain: cluster.local
clusterDNS: [%[5]s]
resolvConf: %[6]q
cgroupDriver: cgroupfs
cgroupRoot: %[7]s
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
evictionHard: {}
imageGCHighThresholdPercent: 100
makeIPTablesUtilChains: false
oomScoreAdj: 0
maxPods: 60
volumePluginDir: %[8]q
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
`

func (n node) kubelet() (launch.Spec, error) {
	o := n.lab.Options
	resolv := n.path("resolv.conf")
	if err := os.WriteFile(resolv, []byte(fmt.Sprintf("nameserver %s\n", topology.CorpResolver)), 0o644); err != nil {
		return launch.Spec{}, err
	}
	var dns []string
	for _, services := range o.Services {
		dns = append(dns, `"`+DNSAddr(services).String()+`"`)
	}
	pkiFile := func(name string) string { return filepath.Join(pkiDir(n.lab), name) }
	config := fmt.Sprintf(kubeletConfig, Socket(n.lab, n.name()), pkiFile("ca.crt"),
		pkiFile("kubelet-"+n.name()+".crt"), pkiFile("kubelet-"+n.name()+".key"),
		strings.Join(dns, ", "), resolv, (proc.Cgroup{Name: n.lab.Name}).Path(n.name()), n.path("volume-plugins"))
	file := n.path("kubelet.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return launch.Spec{}, err
	}
	ip := topology.NodeAddr(n.index).String()
	if o.DualStack {
		ip += "," + topology.NodeAddr6(n.index).String()
	}
	return launch.Spec{Name: "kubelet-" + n.name(), Host: n.name(), Args: []string{
		n.bin["kubelet"],
		"--config=" + file,
		"--kubeconfig=" + n.lab.Path("kubeconfigs", "kubelet-"+n.name()),
		"--hostname-override=" + n.name(),
		"--node-ip=" + ip,
	}}, nil
}

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: %[1]q
hostnameOverride: %[2]s
clientConnection: {kubeconfig: %[3]q}
bindAddress: 0.0.0.0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0}
nftables: {minSyncPeriod: 200ms}
`

func (n node) proxy() (launch.Spec, error) {
	file := n.path("kube-proxy.yaml")
	config := fmt.Sprintf(proxyConfig, JoinPrefixes(n.lab.Options.Pods), n.name(), n.lab.Path("kubeconfigs", "kube-proxy"))
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return launch.Spec{}, err
	}
	return launch.Spec{Name: "kube-proxy-" + n.name(), Host: n.name(), Args: []string{n.bin["kube-proxy"], "--config=" + file}}, nil
}
