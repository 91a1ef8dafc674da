// Package build compiles the programs of the cluster from their Go modules and
// keeps them, by part and version, outside the source tree. A part is built
// once per machine and user; concurrent builders wait for each other.
package build

import (
	"embed"
	"os"
	"path/filepath"
)

//go:embed modules
var modules embed.FS

// Part is one module's worth of programs.
type Part struct {
	Name     string
	Version  string
	Programs []string // file names of the results
	Packages []string // what to build, in the order of Programs

	// Module names the embedded go.mod (and go.sum, and main program if any) to
	// build from. Without it each package is installed at Version, which works
	// for modules that replace nothing.
	Module string

	Tags    string
	LDFlags string
	CGO     bool
	Hint    string // how long a first build takes, for people
}

const kubernetesVersion = "v1.37.2"

// Parts lists everything a lab runs, the largest last: what fails for want of a
// package or of the network fails early.
func Parts() []Part {
	const containernetworking = "github.com/containernetworking/plugins/plugins/"
	const containerd = "github.com/containerd/containerd/v2/cmd/"
	return []Part{
		{
			Name: "pause", Version: "v1", Module: "pause",
			Programs: []string{"pause"}, Packages: []string{"lab.local/pause"},
		},
		{
			Name: "runc", Version: "v1.5.2", CGO: true, Tags: "seccomp",
			Programs: []string{"runc"}, Packages: []string{"github.com/opencontainers/runc"},
		},
		{
			Name: "cni", Version: "v1.9.1",
			Programs: []string{"bridge", "loopback", "host-local", "portmap"},
			Packages: []string{
				containernetworking + "main/bridge", containernetworking + "main/loopback",
				containernetworking + "ipam/host-local", containernetworking + "meta/portmap",
			},
		},
		{
			Name: "etcd", Version: "v3.7.3", Module: "etcd", Hint: "about a minute",
			Programs: []string{"etcd"}, Packages: []string{"go.etcd.io/etcd/server/v3"},
		},
		{
			Name: "containerd", Version: "v2.4.2", Hint: "about a minute",
			Programs: []string{"containerd", "containerd-shim-runc-v2", "ctr"},
			Packages: []string{containerd + "containerd", containerd + "containerd-shim-runc-v2", containerd + "ctr"},
		},
		{
			Name: "coredns", Version: "v1.15.0", Hint: "two or three minutes",
			Programs: []string{"coredns"}, Packages: []string{"github.com/coredns/coredns"},
		},
		kubernetes(),
	}
}

func kubernetes() Part {
	p := Part{
		Name: "kubernetes", Version: kubernetesVersion, Module: "kubernetes", CGO: true, Tags: "providerless",
		LDFlags: "-X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
			" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37" +
			" -X k8s.io/client-go/pkg/version.gitVersion=" + kubernetesVersion,
		Hint: "about ten minutes on two cores",
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"} {
		p.Programs = append(p.Programs, name)
		p.Packages = append(p.Packages, "k8s.io/kubernetes/cmd/"+name)
	}
	return p
}

// CacheDir is where parts are kept: $CULVERT_LAB_CACHE, else culvert-lab in the
// user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("CULVERT_LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "culvert-lab"), nil
}

// Key is the part's directory name in the cache.
func (p Part) Key() string { return p.Name + "-" + p.Version }

// Binaries finds programs by name.
type Binaries map[string]string

// Find returns the path of every program of every part built so far, and the
// parts still missing.
func Find() (Binaries, []Part, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, nil, err
	}
	found := Binaries{}
	var missing []Part
	for _, p := range Parts() {
		dir := filepath.Join(cache, p.Key())
		if _, err := os.Stat(dir); err != nil {
			missing = append(missing, p)
			continue
		}
		for _, name := range p.Programs {
			found[name] = filepath.Join(dir, name)
		}
	}
	return found, missing, nil
}
