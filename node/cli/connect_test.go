package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
)

func TestAsk(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES\n": true, " y \n": true, "n\n": false, "\n": false, "": false, "y": false, "yesterday\n": false} {
		var out strings.Builder
		got, err := ask(t.Context(), strings.NewReader(answer), &out, "Agree?")
		if err != nil || got != want || out.String() != "Agree? [y/N] " {
			t.Errorf("%q: %v, %v, shown %q", answer, got, err, out.String())
		}
	}
}

func TestCtrlCAtAQuestion(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in, typist := io.Pipe()
	defer typist.Close() //nolint:errcheck // the reader ends with it
	cancel()
	if _, err := ask(ctx, in, io.Discard, "Agree?"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestWhyEnded(t *testing.T) {
	if err := whyEnded("nobody", nil); err != nil {
		t.Errorf("asked to: %v", err)
	}
	exit := exec.Command("sh", "-c", "exit 6").Run()
	if f := failure.Of(whyEnded("nobody", exit)); f.Code != failure.GatewayState || !strings.Contains(f.Text, "exit status 6") {
		t.Errorf("%+v", f)
	}
	killed := exec.Command("sh", "-c", "kill -9 $$").Run()
	if f := failure.Of(whyEnded("nobody", killed)); f.Code != failure.General || !strings.Contains(f.Text, "killed") {
		t.Errorf("%+v", f)
	}
}

func TestStatusNames(t *testing.T) {
	if got := statusNames(nil); !slices.Equal(got, []string{defaultName}) {
		t.Errorf("none runs: %q", got)
	}
	if got := statusNames([]string{"staging"}); !slices.Equal(got, []string{"staging"}) {
		t.Errorf("another than the default runs: %q", got)
	}
}

// TestRunningAreThoseWhoListen: one that was killed leaves its socket behind.
func TestRunningAreThoseWhoListen(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "killed", "c"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name, "s"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		t.Cleanup(func() { l.Close() }) //nolint:errcheck // closed already or not
		if name == "killed" {
			l.Close() //nolint:errcheck // see above
		}
	}
	if got := servedBeside(filepath.Join(dir, "*", "s")); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("running are %q", got)
	}
}

func TestMeant(t *testing.T) {
	for _, tt := range []struct {
		named   string
		running []string
		want    string
	}{
		{"", nil, defaultName},
		{"", []string{"a"}, "a"},
		{"", []string{"a", "b"}, defaultName},
		{"b", []string{"a"}, "b"},
		{defaultName, []string{"a"}, defaultName},
	} {
		var name string
		cmd := &cobra.Command{}
		bindName(cmd, &name)
		if tt.named != "" {
			if err := cmd.Flags().Set("name", tt.named); err != nil {
				t.Fatal(err)
			}
		}
		if got := meant(cmd, name, tt.running); got != tt.want {
			t.Errorf("--name %q while %q run: %s, want %s", tt.named, tt.running, got, tt.want)
		}
	}
}

func TestShowStatuses(t *testing.T) {
	up, down := api.Status{Name: "a", State: api.Connected}, api.Status{Name: "b", State: api.Reconnecting}
	for _, row := range []struct {
		name     string
		statuses []api.Status
		want     error
	}{
		{"connected", []api.Status{up}, nil},
		{"one of two is not", []api.Status{up, down}, exitCode(failure.General)},
	} {
		for _, output := range []outputFormat{"text", jsonOutput} {
			var b strings.Builder
			if err := showStatuses(&b, output, row.statuses); !errors.Is(err, row.want) {
				t.Errorf("%s: %v, want %v", row.name, err, row.want)
			}
			for _, s := range row.statuses {
				if !strings.Contains(b.String(), s.Name) {
					t.Errorf("%s: %s is not shown", row.name, s.Name)
				}
			}
		}
	}
}

func TestProgressOfAQuickStepIsNotShown(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b)
	p.show("quick")
	p.show("as quick")
	p.done()
	if b.String() != "" {
		t.Errorf("%q", b.String())
	}
	p.print("slow") // what the timer does
	p.done()
	if b.String() != "slow ...\n" {
		t.Errorf("%q: want a line that stays where there is no terminal", b.String())
	}
}

func TestProgressOnATerminalIsTakenBack(t *testing.T) {
	var b strings.Builder
	p := &progress{w: &b, terminal: true}
	p.print("one")
	p.print("two")
	p.done()
	p.done()
	if want := "\r\033[Kone ...\r\033[Ktwo ...\r\033[K"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
