package labctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// GatewayImage is what `make build` calls the gateway's image.
const GatewayImage = "culvert.dev/culvert-gateway:dev"

// Lab is one laboratory. Name and Bin are required; Prepare fills in the rest.
type Lab struct {
	Name       string
	Bin        string // the repository's bin directory, the same inside every host
	Kubeconfig string // of the administrator, as the workstation sees it
	EchoPod    string // address of an echo pod
	EchoIP     string // ClusterIP of service echo
}

// Run runs the lab's program.
func (l *Lab) Run(timeout time.Duration, args ...string) Result {
	return Run(timeout, "", filepath.Join(l.Bin, "lab"), append([]string{"--name", l.Name}, args...)...)
}

// Kubectl runs the lab's kubectl as the administrator.
func (l *Lab) Kubectl(args ...string) Result { return l.KubectlInput("", args...) }

// KubectlInput is Kubectl with a text on its standard input.
func (l *Lab) KubectlInput(input string, args ...string) Result {
	return Run(time.Minute, input, filepath.Join(l.Bin, "lab"), append([]string{"kubectl", "--name", l.Name}, args...)...)
}

// WSCommand is the command line that runs argv on the workstation as root, with this build in its
// PATH and env, entries NAME=VALUE, in its environment. The started process becomes argv.
func (l *Lab) WSCommand(env []string, argv ...string) []string {
	return l.HostCommand("ws", append([]string{"KUBECONFIG=" + l.Kubeconfig}, env...), argv...)
}

// HostCommand is WSCommand for any host of the lab, without a kubeconfig.
func (l *Lab) HostCommand(host string, env []string, argv ...string) []string {
	args := []string{
		filepath.Join(l.Bin, "lab"), "--name", l.Name, "exec", host, "--",
		"env", "PATH=" + l.Bin + ":" + os.Getenv("PATH"),
	}
	return append(append(args, env...), argv...)
}

// WS runs a command on the workstation as root.
func (l *Lab) WS(timeout time.Duration, argv ...string) Result { return l.WSEnv(timeout, nil, argv...) }

// WSEnv is WS with additions to the environment.
func (l *Lab) WSEnv(timeout time.Duration, env []string, argv ...string) Result {
	args := l.WSCommand(env, argv...)
	return Run(timeout, "", args[0], args[1:]...)
}

// Dev runs a command on the workstation as its unprivileged user, with the administrator's kubeconfig.
func (l *Lab) Dev(timeout time.Duration, argv ...string) Result {
	return l.Run(timeout, append([]string{"exec", "--user", "dev", "ws", "--", "env", "KUBECONFIG=" + l.Kubeconfig}, argv...)...)
}

// Host runs a command on any host of the lab.
func (l *Lab) Host(timeout time.Duration, host string, argv ...string) Result {
	return l.Run(timeout, append([]string{"exec", host, "--"}, argv...)...)
}

// Labnet runs the lab's network client on the workstation.
func (l *Lab) Labnet(timeout time.Duration, args ...string) Result {
	return l.WS(timeout, append([]string{"lab", "labnet"}, args...)...)
}

// Prepare installs the gateway of this build and learns the addresses that scenarios use.
func (l *Lab) Prepare() error {
	l.Kubeconfig = strings.TrimSpace(l.Run(time.Minute, "kubeconfig").Out)
	if err := l.Run(2*time.Minute, "load", filepath.Join(l.Bin, "culvert-gateway.tar")).OK(); err != nil {
		return fmt.Errorf("load the gateway's image: %w", err)
	}
	if err := l.WS(3*time.Minute, "culvert", "gateway", "install", "--image", GatewayImage, "--set", "image.pullPolicy=Never", "--wait").OK(); err != nil {
		return fmt.Errorf("install the gateway: %w", err)
	}
	for target, query := range map[*string][]string{
		&l.EchoPod: {"get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[0].status.podIP}"},
		&l.EchoIP:  {"get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}"},
	} {
		r := l.Kubectl(query...)
		if *target = strings.TrimSpace(r.Out); *target == "" {
			return fmt.Errorf("kubectl %v: %s", query, r)
		}
	}
	return nil
}
