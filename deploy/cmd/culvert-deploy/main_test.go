package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/node/failure"
)

// execute runs the command line without a terminal and without a kubeconfig of the machine.
func execute(t *testing.T, args ...string) (code failure.Code, out, errors string) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, streams{in: strings.NewReader("yes\n"), out: &stdout, err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestUsageSpeaksOfTheCommandThatWasRun(t *testing.T) {
	for name, variable := range map[string]string{"culvert gateway": "culvert gateway", "culvert-deploy": ""} {
		t.Setenv("CULVERT_COMMAND_NAME", variable)
		for _, row := range []struct {
			args []string
			want string
		}{
			{[]string{"--help"}, name + " [command]"},
			{nil, name + " upgrade --set client.routing.allowConflictingSubnets="},
			{[]string{"install", "--help"}, name + " install [flags]"},
		} {
			code, out, _ := execute(t, row.args...)
			if code != failure.OK || !strings.Contains(out, row.want) {
				t.Errorf("%v: code %d, usage without %q:\n%s", row.args, code, row.want, out)
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	unreachable := filepath.Join(t.TempDir(), "kubeconfig")
	err := os.WriteFile(unreachable, []byte(`{apiVersion: v1, kind: Config, current-context: c,
		clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}], users: [{name: u}],
		contexts: [{name: c, context: {cluster: c, user: u}}]}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		args []string
		code failure.Code
		want string
	}{
		{"unknown command", []string{"remove"}, failure.Usage, `unknown command "remove"`},
		{"unknown flag", []string{"install", "--replicas", "2"}, failure.Usage, "--replicas"},
		{"superfluous argument", []string{"status", "now"}, failure.Usage, "now"},
		{"unknown output format", []string{"status", "-o", "yaml"}, failure.Usage, "accepted is json"},
		{"no kubeconfig", []string{"status"}, failure.Usage, "--kubeconfig"},
		{"unreachable API server", []string{"status", "--kubeconfig", unreachable}, failure.Unreachable, "https://127.0.0.1:1 does not answer"},
		{"unreachable, by the name of culvert's flag", []string{"status", "--kubeconfig", unreachable, "--culvert-namespace", "x"}, failure.Unreachable, "does not answer"},
		{"bad value, before any cluster is asked", []string{"install", "--kubeconfig", unreachable, "--image", "gateway"}, failure.Usage, "REPOSITORY:TAG"},
	} {
		t.Run(row.name, func(t *testing.T) {
			code, _, errors := execute(t, row.args...)
			if code != row.code || !strings.Contains(errors, row.want) {
				t.Errorf("code %d, want %d; errors:\n%s\nwant %q", code, row.code, errors, row.want)
			}
		})
	}
}

func TestConfirmNeedsATerminalOrYes(t *testing.T) {
	var out bytes.Buffer
	c := &commands{streams: streams{in: strings.NewReader("yes\n"), out: &out, err: &out}}
	if err := c.confirm("remove it all", true); err != nil {
		t.Errorf("--yes: %v", err)
	}
	err := c.confirm("remove it all", false)
	if err == nil || failure.Of(err).Code != failure.Usage || !strings.Contains(failure.Of(err).Hint, "--yes") {
		t.Errorf("without a terminal: %v, want a failure naming --yes", err)
	}
}

func TestValuesPrintsTheChartsValues(t *testing.T) {
	code, out, _ := execute(t, "values")
	want, err := os.ReadFile("../../chart/culvert/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if code != failure.OK || out != string(want) {
		t.Errorf("code %d, printed:\n%s", code, out)
	}
}
