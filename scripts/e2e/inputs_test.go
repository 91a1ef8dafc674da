//go:build lab

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// TestWrongInputs tries what people get wrong: each has its message and exit code, and changes nothing.
func TestWrongInputs(t *testing.T) {
	l := shared
	dir := t.TempDir()
	writeFile(t, dir+"/unknown.yaml", "routing:\n  alowConflictingSubnets:\n    - 10.0.0.0/8\n")
	writeFile(t, dir+"/token.yaml", withToken(readFile(t, l.Kubeconfig)))
	writeFile(t, dir+"/unreachable.yaml", strings.ReplaceAll(readFile(t, l.Kubeconfig), "10.50.0.11:6443", "203.0.113.10:1"))
	for _, row := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"bad prefix", []string{"--allow-conflicting-subnets", "10.0.0.0/33"}, 2, []string{"10.0.0.0/33", "--allow-conflicting-subnets"}},
		{"host bits set", []string{"--also-proxy", "10.1.2.3/8"}, 2, []string{"10.0.0.0/8"}},
		{"unknown key in the file", []string{"-f", dir + "/unknown.yaml"}, 2, []string{"unknown.yaml:2", "alowConflictingSubnets", "allowConflictingSubnets"}},
		{"missing file", []string{"-f", dir + "/missing.yaml"}, 2, []string{"missing.yaml"}},
		{"missing kubeconfig", []string{"--kubeconfig", dir + "/none"}, 2, []string{dir + "/none"}},
		{"unknown context", []string{"--context", "nowhere"}, 2, []string{"nowhere"}},
		{"unknown flag", []string{"--frobnicate"}, 2, []string{"--frobnicate"}},
		{"unreachable API server", []string{"--kubeconfig", dir + "/unreachable.yaml"}, 5, []string{"203.0.113.10:1"}},
		{"expired credentials", []string{"--kubeconfig", dir + "/token.yaml"}, 4, []string{"credentials"}},
		{"gateway not installed", []string{"--culvert-namespace", "default"}, 6, []string{"culvert gateway install"}},
		{"bad name", []string{"--name", "No_Name"}, 2, []string{"No_Name"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := l.snapshot(t)
			r := l.WS(time.Minute, append([]string{"culvert", "connect"}, row.args...)...)
			if r.Code != row.code {
				t.Errorf("want exit code %d: %s", row.code, r)
			}
			for _, want := range row.want {
				if !strings.Contains(r.Err, want) {
					t.Errorf("the message does not name %q: %s", want, r)
				}
			}
			l.unchanged(t, before)
		})
	}
}

func TestNotRoot(t *testing.T) {
	l := shared
	before := l.snapshot(t)
	r := l.Dev(time.Minute, l.culvertForAll(t), "connect")
	if r.Code != 4 || !strings.Contains(r.Err, "sudo culvert connect") {
		t.Errorf("connect without root: %s", r)
	}
	l.unchanged(t, before)
}

// culvertForAll returns the path of a copy of culvert that every user can reach, wherever the
// repository lies.
func (l *lab) culvertForAll(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "culvert-e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a temporary directory
	path := dir + "/culvert"
	must(t, labctl.Run(time.Minute, "", "cp", l.Bin+"/culvert", path), "copy culvert")
	for _, p := range []string{dir, path} {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestSecondConnectOfTheSameName(t *testing.T) {
	l := shared
	l.connect(t, allowFlags...)
	connected := l.snapshot(t)
	r := l.WS(time.Minute, append([]string{"culvert", "connect"}, allowFlags...)...)
	if r.Code != 1 || !strings.Contains(r.Err, "running already") {
		t.Errorf("second connect: %s", r)
	}
	l.unchanged(t, connected)
	must(t, l.curl("http://echo.default/"), "GET beside a refused second connect")
}

func TestForeignInterface(t *testing.T) {
	l := shared
	must(t, l.WS(10*time.Second, "ip", "tuntap", "add", "culvert0", "mode", "tun"), "make a foreign culvert0")
	defer l.WS(10*time.Second, "ip", "tuntap", "del", "culvert0", "mode", "tun")
	before := l.snapshot(t)
	r := l.WS(time.Minute, append([]string{"culvert", "connect"}, allowFlags...)...)
	if r.Code != 1 || !strings.Contains(r.Err, "culvert0") {
		t.Errorf("connect with a foreign culvert0: %s", r)
	}
	l.unchanged(t, before)
}

func TestIncompatibleVersion(t *testing.T) {
	l := shared
	other := t.TempDir() + "/culvert"
	const version = "-X github.com/culvert-dev/culvert/internal/version.Version=0.3.0"
	must(t, labctl.Run(5*time.Minute, "", "go", "build", "-ldflags", version, "-o", other, "../../node/cmd/culvert"), "build a culvert two minor versions ahead")
	before := l.snapshot(t)
	r := l.WS(time.Minute, append([]string{other, "connect"}, allowFlags...)...)
	if r.Code != 6 || !strings.Contains(r.Err, "0.3.0") || !strings.Contains(r.Err, "culvert gateway upgrade") {
		t.Errorf("connect with a culvert two minor versions ahead: %s", r)
	}
	l.unchanged(t, before)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// withToken replaces the client certificate of a kubeconfig by a token that nobody accepts.
func withToken(kubeconfig string) string {
	var out []string
	for line := range strings.Lines(kubeconfig) {
		field := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(field, "client-certificate"):
			out = append(out, line[:strings.Index(line, "client-certificate")]+"token: expired\n")
		case strings.HasPrefix(field, "client-key"):
		default:
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
