package kube

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/culvert-dev/culvert/node/failure"
)

// kubelet answers port-forwards as API server and kubelet do together: SPDY, inside a WebSocket or by
// itself, one stream for data and one for errors.
type kubelet struct {
	t       *testing.T
	deaf    bool // accepts the connection, and no stream
	refusal string
	mu      sync.Mutex
	conns   []httpstream.Connection
}

func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		if _, err := httpstream.Handshake(r, w, []string{portForwardProtocol}); err != nil {
			k.t.Errorf("handshake: %v", err)
			return
		}
		k.serve(spdy.NewResponseUpgrader().UpgradeResponse(w, r, k.accept))
		return
	}
	upgrader := websocket.Upgrader{Subprotocols: []string{portForwardWebSocketProtocol}}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		k.t.Errorf("upgrade: %v", err)
		return
	}
	conn, err := spdy.NewServerConnection(portforward.NewTunnelingConnection("server", ws), k.accept)
	if err != nil {
		k.t.Errorf("serve SPDY: %v", err)
		return
	}
	k.serve(conn)
}

func (k *kubelet) serve(conn httpstream.Connection) {
	if conn == nil {
		k.t.Error("no connection")
		return
	}
	k.mu.Lock()
	k.conns = append(k.conns, conn)
	k.mu.Unlock()
	<-conn.CloseChan()
}

func (k *kubelet) accept(stream httpstream.Stream, replied <-chan struct{}) error {
	if k.deaf {
		<-k.t.Context().Done()
		return errors.New("deaf")
	}
	if stream.Headers().Get(corev1.PortHeader) != "7831" {
		k.t.Errorf("headers %v", stream.Headers())
	}
	go func() { // ends with the connection
		<-replied
		switch {
		case stream.Headers().Get(corev1.StreamType) != corev1.StreamTypeError:
			if k.refusal == "" {
				io.Copy(stream, stream) //nolint:errcheck // echo
				stream.Close()          //nolint:errcheck // echo
			}
		case k.refusal != "":
			io.WriteString(stream, k.refusal) //nolint:errcheck // refused
			stream.Close()                    //nolint:errcheck // refused
		}
	}()
	return nil
}

const forwardPath = "/api/v1/namespaces/culvert/pods/gw-0/portforward"

func (k *kubelet) client(t *testing.T, patterns ...string) *Client {
	t.Helper()
	api := newFakeAPI(t)
	for _, p := range patterns {
		api.mux.Handle(p, k)
	}
	t.Cleanup(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, c := range k.conns {
			c.Close() //nolint:errcheck // the test is over
		}
	})
	return api.client(t)
}

func TestForwardedBytesComeBack(t *testing.T) {
	for name, patterns := range map[string][]string{
		"over WebSocket": {"GET " + forwardPath},
		"over SPDY where a GET is not even allowed": {"POST " + forwardPath},
	} {
		t.Run(name, func(t *testing.T) {
			c := (&kubelet{t: t}).client(t, patterns...)
			stream, err := c.DialPod(soon(t), "gw-0", 7831)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Write([]byte("through the road")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 16)
			if _, err := io.ReadFull(stream, got); err != nil || string(got) != "through the road" {
				t.Errorf("%q, %v", got, err)
			}
			if err := stream.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if _, err := stream.Read(got); err == nil {
				t.Error("a read after Close works")
			}
		})
	}
}

func TestKubeletsErrorIsTold(t *testing.T) {
	c := (&kubelet{t: t, refusal: "dial tcp4 127.0.0.1:7831: connection refused"}).client(t, "GET "+forwardPath)
	stream, err := c.DialPod(soon(t), "gw-0", 7831)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Read(make([]byte, 1)); err == nil {
		t.Error("a read succeeds")
	}
	if err := stream.Close(); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Close: %v", err)
	}
}

func TestRefusedForwardNamesTheRight(t *testing.T) {
	api := newFakeAPI(t)
	api.answer(forwardPath, 403, status(403, "Forbidden", `pods "gw-0" is forbidden: User "ann" cannot create resource "pods/portforward"`, object{"name": "gw-0"}))
	_, err := api.client(t).DialPod(soon(t), "gw-0", 7831)
	f := failure.Of(err)
	if f == nil || f.Code != failure.Permission || !strings.Contains(f.Text, "pods/portforward") || !strings.Contains(f.Hint, "kind: Role") {
		t.Errorf("%+v", f)
	}
}

// TestAbandonedDialReturnsAtOnce ends the context of dials that got stuck on their way.
func TestAbandonedDialReturnsAtOnce(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // its backlog takes the connection, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // the test is over
	for _, row := range []struct {
		name   string
		client func(t *testing.T) *Client
	}{
		{"in the TLS handshake", func(t *testing.T) *Client {
			api := newFakeAPI(t)
			api.URL = "https://" + silent.Addr().String()
			return api.client(t)
		}},
		{"waiting for the upgrade", func(t *testing.T) *Client {
			api := newFakeAPI(t)
			api.mux.HandleFunc(forwardPath, func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
				case <-t.Context().Done():
				}
			})
			return api.client(t)
		}},
		{"waiting for the streams", func(t *testing.T) *Client {
			return (&kubelet{t: t, deaf: true}).client(t, "GET "+forwardPath)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := row.client(t)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(quick, cancel)
			begin := time.Now()
			if _, err := c.DialPod(ctx, "gw-0", 7831); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want that it was cancelled", err)
			}
			if took := time.Since(begin); took > 8*time.Second { // less than any time-out of a dial
				t.Errorf("returned after %v", took)
			}
		})
	}
}
