package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"),
		// spdystream waits up to 30 seconds for the answer to a stream, whatever happens to its connection
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Stream).WaitTimeout"),
		// and one second for somebody to take the error of closing a socket that is closed already, as the
		// tests' kubelet does at the end
		goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Connection).shutdown"))
}

// fakeAPI is an API server as far as HTTP goes: real TLS, real JSON, answers made by the test.
type fakeAPI struct {
	*httptest.Server
	mux *http.ServeMux
}

func newFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	api := &fakeAPI{mux: http.NewServeMux()}
	api.Server = httptest.NewUnstartedServer(api.mux)
	api.EnableHTTP2 = true
	api.Config.ErrorLog = log.New(t.Output(), "server: ", 0)
	api.StartTLS()
	t.Cleanup(api.Close)
	return api
}

// answer has the server answer a method and path with a status and a JSON value.
func (api *fakeAPI) answer(pattern string, code int, value any) {
	api.mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { writeAnswer(w, code, value) })
}

func writeAnswer(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(value) //nolint:errcheck // the client is gone
}

// object is a JSON object.
type object = map[string]any

func status(code int, reason, message string, details object) object {
	return object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details}
}

// kubeconfig writes one for the server; user is the user's entry.
func (api *fakeAPI) kubeconfig(t *testing.T, ca []byte, user object) string {
	t.Helper()
	config := object{
		"apiVersion": "v1", "kind": "Config", "current-context": "here",
		"clusters": []any{object{"name": "fake", "cluster": object{
			"server": api.URL, "certificate-authority-data": ca,
			"extensions": []any{object{"name": v1alpha1.Group, "extension": object{"dns": object{"namespaces": []string{"shop"}}}}},
		}}},
		"contexts": []any{object{"name": "here", "context": object{"cluster": "fake", "user": "me", "namespace": "team"}}},
		"users":    []any{object{"name": "me", "user": user}},
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (api *fakeAPI) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
}

// client returns a client of the server with a token; its connections end with the test.
func (api *fakeAPI) client(t *testing.T) *Client {
	t.Helper()
	return load(t, api.kubeconfig(t, api.ca(), object{"token": "secret-token"}))
}

func load(t *testing.T, kubeconfig string) *Client {
	t.Helper()
	c, err := Load(Options{Kubeconfig: kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Reconnect)
	return c
}

// otherCA is the certificate of an authority that has nothing to do with the server.
func otherCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

// soon is a context that ends long before the test's time is over.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

const (
	peersPath    = "/apis/culvert.dev/v1alpha1/namespaces/culvert/peers"
	policiesPath = "/apis/culvert.dev/v1alpha1/namespaces/culvert/policies"
)

func peerObject(name, uid, version string) object {
	return object{
		"apiVersion": "culvert.dev/v1alpha1", "kind": "Peer",
		"metadata": object{"name": name, "namespace": "culvert", "uid": uid, "resourceVersion": version},
		"spec":     object{"user": "ann", "publicKey": "key of " + uid},
	}
}

func list(version string, items ...any) object {
	if items == nil {
		items = []any{}
	}
	return object{"apiVersion": "culvert.dev/v1alpha1", "kind": "PeerList", "metadata": object{"resourceVersion": version}, "items": items}
}

func event(kind string, o object) string { return text(object{"type": kind, "object": o}) + "\n" }
