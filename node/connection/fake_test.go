package connection

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/node/report"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// fakeHelper is the root side as far as the socket goes: it says hello, and notes what is asked.
type fakeHelper struct {
	conn net.Conn
	mu   sync.Mutex
	seen []string        // types of requests
	last json.RawMessage // that came with close
}

func (h *fakeHelper) serve() {
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(h.conn, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head))
		if _, err := io.ReadFull(h.conn, body); err != nil {
			return
		}
		var request struct {
			Version int
			ID      uint64
			Type    string
			Last    json.RawMessage
		}
		if json.Unmarshal(body, &request) != nil {
			return
		}
		h.mu.Lock()
		h.seen = append(h.seen, request.Type)
		h.last = request.Last
		h.mu.Unlock()
		answer, _ := json.Marshal(map[string]any{ // of plain values
			"version": request.Version, "id": request.ID, "hello": helper.Hello{Version: "test", Name: "default", HelperPID: 1, GuardPID: 2},
		})
		h.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)) //nolint:errcheck // the client is gone
	}
}

func (h *fakeHelper) requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.seen...)
}

// pair returns the two ends of a socketpair.
func pair(t *testing.T) (*os.File, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	far := os.NewFile(uintptr(fds[1]), "far end")
	conn, err := net.FileConn(far)
	if err != nil {
		t.Fatal(err)
	}
	far.Close() //nolint:errcheck // conn is a copy
	return os.NewFile(uintptr(fds[0]), "near end"), conn
}

// stage is a session between a fake helper, a fake API server and the command.
type stage struct {
	session *Session
	helper  *fakeHelper
	command *report.Channel
	socket  string // of the status
	ended   chan error
}

// newStage starts a session whose API server is handler; adjust may change the request.
func newStage(t *testing.T, handler http.Handler, adjust func(*report.Request)) *stage {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	config := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"k","cluster":{"server":"` + server.URL + `"}}],` +
		`"contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}],"users":[{"name":"u","user":{"token":"secret-token"}}]}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	near, far := pair(t)
	st := &stage{helper: &fakeHelper{conn: far}, ended: make(chan error, 1), socket: filepath.Join(t.TempDir(), "api.sock")}
	go st.helper.serve() // ends with the socket
	client, err := helper.NewClient(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", st.socket)
	if err != nil {
		t.Fatal(err)
	}
	nodeEnd, commandEnd := net.Pipe()
	st.command = report.NewChannel(commandEnd)
	request := report.Request{Name: "default", Kube: kube.Options{Kubeconfig: config}}
	if adjust != nil {
		adjust(&request)
	}
	st.session = NewSession(Options{
		Request: request, Channel: report.NewChannel(nodeEnd), Helper: client,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	go func() { st.ended <- st.session.Run(t.Context(), listener) }() // every test waits for it
	t.Cleanup(func() {
		commandEnd.Close() //nolint:errcheck // the test is over
		far.Close()        //nolint:errcheck // the test is over
		server.CloseClientConnections()
		if st.session.kube != nil {
			st.session.kube.Reconnect()
		}
	})
	return st
}

// result follows the conversation to its end.
func (st *stage) result(t *testing.T) report.Result {
	t.Helper()
	for {
		var m report.Message
		if err := st.command.Receive(&m); err != nil {
			t.Fatalf("no result: %v", err)
		}
		if m.Result != nil {
			return *m.Result
		}
	}
}

// over waits for the session's end.
func (st *stage) over(t *testing.T, limit time.Duration) error {
	t.Helper()
	select {
	case err := <-st.ended:
		return err
	case <-time.After(limit):
		t.Fatalf("the session has not ended after %v", limit)
		return nil
	}
}
