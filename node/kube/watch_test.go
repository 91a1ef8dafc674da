package kube

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// quick is far less than any time-out of the code under test.
const quick = 300 * time.Millisecond

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}

// script is what a fake API server answers to the requests of a watch, one after another. After the
// last one it keeps watches open in silence.
type script struct {
	t     *testing.T
	mu    sync.Mutex
	steps []step
	extra int // requests after the last step
}

type step struct {
	want   string // "list", or "watch VERSION"
	code   int    // 0: 200
	answer string
	stay   bool // leave the answer open
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	got := "list"
	if r.URL.Query().Get("watch") != "" {
		got = "watch " + r.URL.Query().Get("resourceVersion")
	}
	s.mu.Lock()
	current := step{want: got, stay: true}
	if len(s.steps) > 0 {
		current, s.steps = s.steps[0], s.steps[1:]
	} else {
		s.extra++
	}
	s.mu.Unlock()
	if got != current.want || r.URL.Query().Get("fieldSelector") != "metadata.name=mine" {
		s.t.Errorf("the client asks %q (%s), want %q", got, r.URL.RawQuery, current.want)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(max(current.code, 200))
	io.WriteString(w, current.answer) //nolint:errcheck // the client is gone
	w.(http.Flusher).Flush()
	if current.stay {
		<-r.Context().Done()
	}
}

func text(o object) string {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err) // of plain values
	}
	return string(data)
}

// follow watches Peer mine from version 1 and returns what is told: versions, "gone", "trouble", "well".
func follow(t *testing.T, steps ...step) (api *fakeAPI, c *Client, told <-chan string) {
	t.Helper()
	api = newFakeAPI(t)
	api.mux.Handle("GET "+peersPath, &script{t: t, steps: steps})
	c = api.client(t)
	ch := make(chan string, 16)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		c.WatchPeer(ctx, &v1alpha1.Peer{ObjectMeta: metav1.ObjectMeta{Name: "mine", ResourceVersion: "1"}}, Watch[v1alpha1.Peer]{
			Changed: func(p *v1alpha1.Peer) {
				if p == nil {
					ch <- "gone"
				} else {
					ch <- p.ResourceVersion
				}
			},
			Trouble: func(err error) {
				if err == nil {
					ch <- "well"
				} else {
					ch <- "trouble"
				}
			},
		})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return api, c, ch
}

func expect(t *testing.T, told <-chan string, want ...string) {
	t.Helper()
	for i, w := range want {
		select {
		case got := <-told:
			if got != w {
				t.Fatalf("told %q as number %d, want %v", got, i+1, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing told as number %d, want %v", i+1, want)
		}
	}
}

func TestWatchGoesOnFromWhatWasSeen(t *testing.T) {
	_, _, told := follow(t,
		step{want: "watch 1", answer: event("MODIFIED", peerObject("mine", "u", "2")) + event("BOOKMARK", peerObject("mine", "u", "5"))},
		step{want: "watch 5", answer: event("MODIFIED", peerObject("mine", "u", "6")), stay: true})
	expect(t, told, "2", "6")
}

func TestDeletionIsSeenFromTheStart(t *testing.T) {
	_, _, told := follow(t, step{want: "watch 1", answer: event("DELETED", peerObject("mine", "u", "2")), stay: true})
	expect(t, told, "gone")
}

func TestForgottenVersionIsReadAnew(t *testing.T) {
	expired := status(410, "Expired", "too old resource version", nil)
	for name, first := range map[string]step{
		"told by the answer": {want: "watch 1", code: 410, answer: text(expired)},
		"told by an event":   {want: "watch 1", answer: event("ERROR", expired)},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, told := follow(t, first, step{want: "list", answer: text(list("9"))},
				step{want: "watch 9", answer: event("ADDED", peerObject("mine", "u", "10")), stay: true})
			expect(t, told, "gone", "10") // and no trouble
		})
	}
}

func TestTroubleIsToldOnceAndItsEnd(t *testing.T) {
	away := text(status(500, "InternalError", "etcd is away", nil))
	_, _, told := follow(t,
		step{want: "watch 1", code: 500, answer: away},
		step{want: "watch 1", code: 500, answer: away},
		step{want: "watch 1", answer: event("MODIFIED", peerObject("mine", "u", "2")), stay: true})
	expect(t, told, "trouble", "well", "2")
}

func TestReconnectTakesUpAWatchThatIsDead(t *testing.T) {
	api, c, told := follow(t,
		step{want: "watch 1", answer: event("MODIFIED", peerObject("mine", "u", "2")), stay: true},
		step{want: "watch 2", answer: event("MODIFIED", peerObject("mine", "u", "3")), stay: true})
	expect(t, told, "2")
	before := c.Dialled()
	begin := time.Now()
	c.Reconnect()
	expect(t, told, "3")
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("taken up after %v", took)
	}
	if after := c.Dialled(); len(before) != 1 || len(after) != 1 || after[0].String() != api.Listener.Addr().String() {
		t.Errorf("dialled %v, then %v", before, after)
	}
}

func TestReconnectCutsAPauseShort(t *testing.T) {
	refused := text(status(403, "Forbidden", "peers is forbidden", nil)) // asked again after half a minute at the earliest
	_, c, told := follow(t,
		step{want: "watch 1", code: 403, answer: refused},
		step{want: "watch 1", answer: event("MODIFIED", peerObject("mine", "u", "2")), stay: true})
	expect(t, told, "trouble")
	c.Reconnect()
	expect(t, told, "well", "2")
}
