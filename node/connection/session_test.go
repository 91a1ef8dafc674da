package connection

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/report"
)

// prompt is far less than any time-out, and plenty for a busy machine.
const prompt = 5 * time.Second

var refusing = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401}`)) //nolint:errcheck // the client is gone
})

// silent is an API server that takes requests and never answers. asked is told of each.
func silent(asked chan<- struct{}) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		io.Copy(io.Discard, r.Body) //nolint:errcheck // only then does the server notice that the client is gone
		<-r.Context().Done()
	})
}

func TestFailureIsToldAndTakenBack(t *testing.T) {
	st := newStage(t, refusing, nil)
	got := st.result(t)
	if got.Failure == nil || got.Failure.Code != failure.Permission || strings.Contains(got.Failure.Text, "secret-token") {
		t.Errorf("told %+v", got.Failure)
	}
	if err := st.over(t, prompt); failure.Of(err).Code != failure.Permission {
		t.Errorf("Run: %v", err)
	}
	if seen := st.helper.requests(); !slices.Equal(seen, []string{"hello", "ipsec", "close"}) || st.helper.last != nil {
		t.Errorf("asked of the helper: %v, last %s", seen, st.helper.last)
	}
}

// TestEndWhileTheAPIServerIsSilent ends a session in every way while it waits for an answer.
func TestEndWhileTheAPIServerIsSilent(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(st *stage) error
		told string // "" for nothing, the command has hung up
		want error
	}{
		{"Ctrl-C", func(st *stage) error { return st.command.Close() }, "", nil},
		{"culvert quit", func(st *stage) error { return api.NewClient(st.socket).Quit(context.Background()) }, "asked to quit", nil},
		{"the helper dies", func(st *stage) error { return st.helper.conn.Close() }, "the helper has ended", helper.ErrHelperGone},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := make(chan struct{}, 1)
			st := newStage(t, silent(asked), nil)
			told := make(chan report.Result, 1)
			go func() { // ends with the conversation
				for {
					var m report.Message
					if st.command.Receive(&m) != nil {
						close(told)
						return
					}
					if m.Result != nil {
						told <- *m.Result
					}
				}
			}()
			<-asked
			if err := row.end(st); err != nil {
				t.Fatal(err)
			}
			if err := st.over(t, prompt); !errors.Is(err, row.want) {
				t.Errorf("Run: %v, want %v", err, row.want)
			}
			got := <-told
			if row.told == "" && got.Failure != nil || row.told != "" && (got.Failure == nil || got.Failure.Text != row.told) {
				t.Errorf("told %+v, want %q", got.Failure, row.told)
			}
		})
	}
}

func TestTimeOutSaysWhatIsMissing(t *testing.T) {
	st := newStage(t, silent(nil), func(r *report.Request) { r.TimeoutSeconds = 1 })
	got := st.result(t).Failure
	if got == nil || got.Code != failure.Unreachable || !strings.HasPrefix(got.Text, "not connected after 1s: the API server http://127.0.0.1") || strings.Contains(got.Text, "\n") {
		t.Errorf("told %+v", got)
	}
	if err := st.over(t, prompt); err == nil {
		t.Error("Run returns no error")
	}
}

func TestStatusWhileConnecting(t *testing.T) {
	asked := make(chan struct{}, 1)
	st := newStage(t, silent(asked), nil)
	go func() { // the command reads until it hangs up
		for {
			var m report.Message
			if st.command.Receive(&m) != nil {
				return
			}
		}
	}()
	<-asked
	status, err := api.NewClient(st.socket).Status(t.Context())
	if err != nil || status.State != api.Connecting || status.Processes.Helper != 1 {
		t.Errorf("%+v, %v", status, err)
	}
	st.session.Stop()
	if err := st.over(t, prompt); err != nil {
		t.Errorf("Run: %v", err)
	}
}
