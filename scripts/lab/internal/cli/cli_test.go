package cli

import (
	"strings"
	"testing"
)

func TestUpOptions(t *testing.T) {
	good := upFlags{vpn: "openvpn", routes: "10.0.0.0/8,172.16.0.0/12", services: "10.96.0.1/16", pods: "10.244.0.0/16", nodes: 2}
	o, err := good.options()
	if err != nil {
		t.Fatal(err)
	}
	if text(o.Services) != "10.96.0.0/16" || text(o.VPNRoutes) != "10.0.0.0/8,172.16.0.0/12" || o.Nodes != 2 {
		t.Errorf("options are %+v", o)
	}
	bad := map[string]func(*upFlags){
		"--services":   func(f *upFlags) { f.services = "10.96.0.0" },
		"--pods":       func(f *upFlags) { f.pods = "x" },
		"--vpn-routes": func(f *upFlags) { f.routes = "" },
		"--vpn":        func(f *upFlags) { f.vpn = "pptp" },
	}
	for flag, spoil := range bad {
		f := good
		spoil(&f)
		if _, err := f.options(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%+v: %v, want an error naming %s", f, err, flag)
		}
	}
}

func TestMainExitCodes(t *testing.T) {
	tests := []struct {
		args []string
		want int
	}{
		{[]string{"--help"}, 0},
		{[]string{"up", "--vpn", "pptp"}, 2},
		{[]string{"up", "--name", "Bad_Name"}, 2},
		{[]string{"up", "extra"}, 2},
		{[]string{"nothing"}, 2},
		{[]string{"status", "--flag"}, 2},
		{[]string{"exec"}, 2},
		{[]string{"exec", "--user", "nobody", "ws", "--", "true"}, 2},
		{[]string{"load"}, 2},
		{[]string{"status", "--name", "not-there-at-all"}, 1},
		{[]string{"kubeconfig", "--name", "not-there-at-all"}, 1},
		{[]string{"labnet", "--help"}, 0},
		{[]string{"labnet", "nothing"}, 2},
	}
	for _, tt := range tests {
		if got := Main(tt.args); got != tt.want {
			t.Errorf("lab %s: exit code %d, want %d", strings.Join(tt.args, " "), got, tt.want)
		}
	}
}

// Every command a person sees has help with an example.
func TestEveryCommandHasAnExample(t *testing.T) {
	for _, c := range newRoot().Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "labnet" {
			continue
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("lab %s has no example", c.Name())
		}
		for _, sub := range c.Commands() {
			if sub.Short == "" || sub.Example == "" {
				t.Errorf("lab %s %s has no example", c.Name(), sub.Name())
			}
		}
	}
}

func TestWithUser(t *testing.T) {
	const line = "dev:x:1000:1000::/home/dev:/bin/bash"
	tests := []struct{ name, file, want string }{
		{"nobody else", "root:x:0:0::/root:/bin/sh\n", "root:x:0:0::/root:/bin/sh\n" + line + "\n"},
		{"another user with the number", "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n", "root:x:0:0::/root:/bin/sh\n" + line + "\n"},
		{"another number with the name", "dev:x:7:7::/:/bin/sh\nz:x:10001:1::/:/bin/sh", "z:x:10001:1::/:/bin/sh\n" + line + "\n"},
		{"an empty file", "", line + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := withUser(tt.file, line); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTakeName(t *testing.T) {
	tests := []struct {
		args []string
		name string
		rest int
	}{
		{[]string{"get", "pods"}, "lab", 2},
		{[]string{"--name", "two", "get", "pods"}, "two", 2},
		{[]string{"--name=two", "get"}, "two", 1},
		{[]string{"get", "--name", "x"}, "lab", 3},
	}
	for _, tt := range tests {
		a := &app{name: "lab"}
		if rest := a.takeName(tt.args); a.name != tt.name || len(rest) != tt.rest {
			t.Errorf("takeName(%v): lab %s, %v left", tt.args, a.name, rest)
		}
	}
}
