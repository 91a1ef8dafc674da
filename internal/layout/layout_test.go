package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/culvert-dev/culvert"

// pkg is what `go list -json` says of a package, as far as it matters here.
type pkg struct {
	ImportPath string
	Doc        string
	Deps       []string
	GoFiles    []string
}

var list = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Deps,GoFiles", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, errors.New(string(exit.Stderr))
		}
		return nil, err
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, p)
	}
})

func packages(t *testing.T) []pkg {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if len(all) < 10 {
		t.Fatalf("go list names only %d packages: the rules below would check nothing", len(all))
	}
	return all
}

// within reports whether path is the package or folder prefix of the module.
func within(path, prefix string) bool {
	path = strings.TrimPrefix(path, module+"/")
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func TestImportsPointInward(t *testing.T) {
	rules := []struct{ from, to, why string }{
		{"node", "gateway", "the workstation and the cluster side meet only on the wire and in internal/"},
		{"gateway", "node", "the cluster side must build without the workstation's host code"},
		{"policy", "node", "decisions never depend on effects"},
		{"policy", "gateway", "decisions never depend on effects"},
		{"policy", "dns", "decisions never depend on effects"},
		{"policy", "internal", "policy builds and tests alone, on every OS"},
		{"dns", "node", "the resolver is a part that the node uses"},
		{"dns", "gateway", "the resolver runs on the workstation"},
		{"node/agents", "node/connection", "a connection runs the keepers of its agents; they know none"},
		{"node/agents", "node/helper", "an agent is had with the user's rights in the cluster, and nothing of root's"},
		{"node/agents", "node/hostnet", "an agent changes nothing on this host"},
		{"dns/vip", "dns/hostdns", "the pool knows addresses and names, and nothing of resolvers"},
		{"internal", "node", "internal/ is what both sides need, so it knows neither"},
		{"internal", "gateway", "internal/ is what both sides need, so it knows neither"},
	}
	for _, p := range packages(t) {
		for _, rule := range rules {
			if !within(p.ImportPath, rule.from) {
				continue
			}
			for _, dep := range p.Deps {
				if strings.HasPrefix(dep, module+"/") && within(dep, rule.to) {
					t.Errorf("%s imports %s: %s", p.ImportPath, dep, rule.why)
				}
			}
		}
	}
}

func TestHeavyLibrariesStayOut(t *testing.T) {
	rules := []struct{ binary, library, why string }{
		{"node/cmd/culvert", "helm.sh/helm", "Helm would cost the long-lived processes memory and start-up time"},
		{"node/cmd/culvert", "k8s.io/client-go/kubernetes", "the typed clientset costs megabytes of types nobody looks at"},
		{"node/cmd/culvert", "gvisor.dev/gvisor/pkg/tcpip/stack", "the workstation's kernel is its network stack"},
		{"gateway/cmd/culvert-gateway", "helm.sh/helm", "the gateway installs nothing"},
		{"gateway/cmd/culvert-gateway", "k8s.io/client-go/kubernetes", "the typed clientset costs megabytes of types nobody looks at"},
		{"policy", "k8s.io/client-go", "the policy is pure"},
		{"policy", "github.com/vishvananda/netlink", "the planner emits our own types"},
	}
	for _, rule := range rules {
		found := false
		for _, p := range packages(t) {
			if p.ImportPath != module+"/"+rule.binary {
				continue
			}
			found = true
			for _, dep := range p.Deps {
				if dep == rule.library || strings.HasPrefix(dep, rule.library+"/") {
					t.Errorf("%s links %s: %s", rule.binary, dep, rule.why)
				}
			}
		}
		if !found {
			t.Errorf("no package %s: the rule about %s checks nothing", rule.binary, rule.library)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
