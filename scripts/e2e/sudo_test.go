//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCredentialPluginRunsAsTheInvokingUser connects under sudo with a kubeconfig whose credentials
// come from a plugin, which notes who it runs as. Everything that is not the network's runs as that
// user too.
func TestCredentialPluginRunsAsTheInvokingUser(t *testing.T) {
	l := shared
	dir, err := os.MkdirTemp("", "culvert-e2e")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	notes, plugin, config := filepath.Join(dir, "notes"), filepath.Join(dir, "plugin"), filepath.Join(dir, "kubeconfig")
	admin := readFile(t, l.Kubeconfig)
	credential, err := json.Marshal(map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
		"status": map[string]string{
			"clientCertificateData": fieldOf(t, admin, "client-certificate-data"),
			"clientKeyData":         fieldOf(t, admin, "client-key-data"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, plugin, fmt.Sprintf("#!/bin/sh\necho \"$(id -u) $HOME\" >>%s\ncat <<'JSON'\n%s\nJSON\n", notes, credential))
	writeFile(t, config, withPlugin(admin, plugin))
	writeFile(t, notes, "")
	for _, path := range []string{dir, plugin, config, notes} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	sudo := []string{"env", "SUDO_UID=1000", "SUDO_GID=1000", "SUDO_USER=dev", "SUDO_COMMAND=culvert", "HOME=/root"}
	before := l.snapshot(t)
	defer l.unchanged(t, before)
	r := l.WS(connectLimit, append(sudo, append([]string{"culvert", "connect", "--kubeconfig", config}, allowFlags...)...)...)
	must(t, r, "connect under sudo with a credential plugin")
	defer func() { must(t, l.WS(connectLimit, "culvert", "quit"), "quit") }()
	must(t, l.curl("http://echo.default/"), "GET")
	noted := strings.TrimSpace(readFile(t, notes))
	if noted == "" {
		t.Fatal("the plugin did not run")
	}
	for line := range strings.Lines(noted) {
		if strings.TrimSpace(line) != "1000 /home/dev" {
			t.Errorf("the plugin ran as %q, want uid 1000 in /home/dev", strings.TrimSpace(line))
		}
	}
	pids := l.status(t).Processes
	if uid := uidOf(t, pids.Node); uid != "1000" {
		t.Errorf("the user half runs as uid %s", uid)
	}
	for _, pid := range []int{pids.Node, pids.Helper, pids.Guard} {
		arguments := readFile(t, fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(arguments, config) || strings.Contains(arguments, "LS0t") {
			t.Errorf("process %d shows the kubeconfig or a credential in its arguments: %q", pid, arguments)
		}
	}
}

// fieldOf returns the value of a key of a kubeconfig, decoded from base64.
func fieldOf(t *testing.T, kubeconfig, key string) string {
	t.Helper()
	match := regexp.MustCompile(key + `: (\S+)`).FindStringSubmatch(kubeconfig)
	if match == nil {
		t.Fatalf("the lab's kubeconfig has no %s", key)
	}
	var data []byte
	if err := json.Unmarshal([]byte(`"`+match[1]+`"`), &data); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// withPlugin replaces the client certificate of a kubeconfig by a credential plugin.
func withPlugin(kubeconfig, plugin string) string {
	exec := fmt.Sprintf("exec: {apiVersion: client.authentication.k8s.io/v1, command: %s, interactiveMode: Never}", plugin)
	return strings.Replace(withToken(kubeconfig), "token: expired", exec, 1)
}

// uidOf returns the real user id of a process (proc_pid_status(5)).
func uidOf(t *testing.T, pid int) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if rest, found := strings.CutPrefix(line, "Uid:"); found {
			return strings.Fields(rest)[0]
		}
	}
	t.Fatalf("no Uid of process %d", pid)
	return ""
}
