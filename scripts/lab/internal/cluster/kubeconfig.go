package cluster

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"

	"github.com/culvert-dev/culvert/scripts/lab/internal/kube"
	"github.com/culvert-dev/culvert/scripts/lab/internal/pki"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

const kubeconfigForm = `apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: lab
  cluster:
    server: https://%s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: lab
  context: {cluster: lab, user: %[3]s}
`

// AdminKubeconfig is the path of the kubeconfig in group system:masters.
func AdminKubeconfig(l *state.Lab) string { return l.Path("kubeconfig") }

// writeKubeconfig writes a kubeconfig for the certificate called cert, readable
// by root and uid.
func writeKubeconfig(l *state.Lab, path, user, cert string, uid int) error {
	return writeKubeconfigFor(l, path, user, cert, uid, topology.APIServer().String())
}

// writeKubeconfigFor is writeKubeconfig for clients that know the API server by
// another address; further lines of its entry may follow that.
func writeKubeconfigFor(l *state.Lab, path, user, cert string, uid int, server string) error {
	pair, err := pki.Read(pkiDir(l), cert)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(pkiDir(l), "ca.crt"))
	if err != nil {
		return err
	}
	b64 := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(kubeconfigForm, server, b64(ca), user, b64(pair.CertPEM()), b64(pair.KeyPEM()))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Chown(path, uid, uid)
}

var userForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)

// UserKubeconfig makes (or makes anew) a kubeconfig for user in groups, who has
// no rights but those someone binds to the name. It returns its path.
func UserKubeconfig(l *state.Lab, user string, groups []string) (string, error) {
	if !userForm.MatchString(user) {
		return "", fmt.Errorf("user %q: want letters, digits, and . _ @ - between them", user)
	}
	ca, err := pki.Read(pkiDir(l), "ca")
	if err != nil {
		return "", err
	}
	if err := issue(ca, pkiDir(l), "user-"+user, pki.Request{Name: user, Groups: groups}); err != nil {
		return "", err
	}
	path := l.Path("users", user+".kubeconfig")
	return path, writeKubeconfig(l, path, user, "user-"+user, devUID)
}

// JoinedKubeconfig makes (or makes anew) the kubeconfig with which hosts of near
// reach far's cluster as its administrator, where they know far's first node by
// the address node. The API server's certificate does not name that one; clients
// look for a name that it does have. It returns the path.
func JoinedKubeconfig(near, far *state.Lab, node netip.Addr) (string, error) {
	path := near.Path("joined", far.Name+".kubeconfig")
	server := fmt.Sprintf("%s\n    tls-server-name: kubernetes", netip.AddrPortFrom(node, topology.APIServer().Port()))
	return path, writeKubeconfigFor(far, path, "admin", "admin", devUID, server)
}

// Client returns a client with the administrator's rights that dials from the
// first node, whatever the VPN does.
func Client(l *state.Lab) (*kube.Client, error) {
	node, err := l.Host(topology.Node(1))
	if err != nil {
		return nil, err
	}
	admin, err := pki.Read(pkiDir(l), "admin")
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(pkiDir(l), "ca.crt"))
	if err != nil {
		return nil, err
	}
	return kube.New(topology.APIServer().String(), node.Holder.PID, kube.Credentials{CA: ca, Cert: admin.CertPEM(), Key: admin.KeyPEM()})
}
