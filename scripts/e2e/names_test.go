//go:build lab

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestNames resolves names of the cluster, the company and the internet with the C library, over UDP
// and TCP, and with Go's own resolver.
func TestNames(t *testing.T) {
	l := shared
	l.connect(t, allowFlags...)
	for _, name := range []string{"echo", "echo.default", "echo.default.svc", "echo.default.svc.cluster.local", "echo.default.svc.default.culvert.internal"} {
		l.resolves(t, name, l.EchoIP)
		must(t, l.Labnet(20*time.Second, "http", "--count", "1", "http://"+name+"/"), "Go's resolver: "+name)
	}
	l.resolves(t, "echo-headless", l.EchoPod)
	l.resolves(t, "intranet.corp.example", "10.20.0.80")
	l.resolves(t, "www.public.example", "203.0.113.10")
	must(t, l.WS(20*time.Second, "getent", "hosts", l.EchoIP), "reverse name of a service", "echo.default.svc.cluster.local")
	if r := l.WS(20*time.Second, "getent", "ahosts", "nobody.default"); r.Code == 0 {
		t.Errorf("a service that is not there resolves: %s", r)
	}
}

// resolves checks the addresses of name over UDP and over TCP (resolv.conf(5), use-vc).
func (l *lab) resolves(t *testing.T, name, address string) {
	t.Helper()
	for _, options := range []string{"RES_OPTIONS=", "RES_OPTIONS=use-vc"} {
		r := l.WSEnv(20*time.Second, []string{options}, "getent", "ahosts", name)
		if !strings.Contains(r.Out, address) {
			t.Errorf("%s %s: want %s: %s", options, name, address, r)
		}
	}
}
