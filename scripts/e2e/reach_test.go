//go:build lab

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// must fails the test unless the command succeeds and its output contains every text.
func must(t *testing.T, r labctl.Result, what string, texts ...string) {
	t.Helper()
	if r.Code != 0 {
		t.Errorf("%s: %s", what, r)
		return
	}
	for _, text := range texts {
		if !strings.Contains(r.Out, text) {
			t.Errorf("%s: %q is missing in %s", what, text, r)
		}
	}
}

func (l *lab) curl(url string) labctl.Result {
	return l.WS(20*time.Second, "curl", "-sS", "--fail", "--max-time", "10", url)
}

// reaches checks that cluster, company and internet all answer, and that what does not exist does not.
func (l *lab) reaches(t *testing.T) {
	t.Helper()
	for _, host := range []string{"echo", "echo.default", "echo.default.svc", "echo.default.svc.cluster.local", l.EchoIP, l.EchoPod + ":8080"} {
		must(t, l.curl("http://"+host+"/"), "GET "+host, "pod")
	}
	for _, host := range []string{"echo.default", l.EchoIP, l.EchoPod} {
		must(t, l.Labnet(20*time.Second, "pingpong", "--count", "20", host+":7000"), "TCP echo "+host)
		must(t, l.Labnet(20*time.Second, "udp", "--count", "20", host+":7000"), "UDP echo "+host)
	}
	l.othersAnswer(t)
	must(t, l.WS(20*time.Second, "ping", "-n", "-c", "3", "-W", "3", l.EchoPod), "ping of a pod", " 0% packet loss", "from "+l.EchoPod)
	dead := deadPod(l.EchoPod)
	if r := l.WS(20*time.Second, "ping", "-n", "-c", "2", "-W", "2", dead); r.Code == 0 || strings.Contains(r.Out, "bytes from "+dead) {
		t.Errorf("ping of %s, where no pod is, is answered: %s", dead, r)
	}
	if r := l.dial(l.EchoPod, 8099); !strings.Contains(r.Err, "refused") {
		t.Errorf("a closed port of a pod is not refused: %s", r)
	}
	if r := l.dial(dead, 8080); r.Code == 0 || strings.Contains(r.Err, "refused") {
		t.Errorf("connecting to %s, where no pod is: want a time-out or unreachable: %s", dead, r)
	}
}

// dial opens a TCP connection; its standard error has the words of the kernel's error.
func (l *lab) dial(host string, port int) labctl.Result {
	return l.WS(20*time.Second, "timeout", "8", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", host, port))
}

// othersAnswer checks that the company behind the VPN and the internet are as reachable as before.
func (l *lab) othersAnswer(t *testing.T) {
	t.Helper()
	for _, url := range []string{"http://intranet.corp.example/", "http://10.20.0.80/", "http://www.public.example/", "http://203.0.113.10/"} {
		must(t, l.curl(url), "GET "+url)
	}
}

// deadPod returns an address beside a pod's that no pod has: the lab's nodes give them out from below.
func deadPod(pod string) string {
	return pod[:strings.LastIndexByte(pod, '.')] + ".251"
}

func TestAllowByFlag(t *testing.T) {
	shared.connect(t, allowFlags...)
	shared.reaches(t)
}

func TestAllowByFile(t *testing.T) {
	file := t.TempDir() + "/culvert.yaml"
	writeFile(t, file, "routing:\n  allowConflictingSubnets:\n    - 10.128.0.0/9\n")
	shared.connect(t, "-f", file)
	shared.reaches(t)
}

func TestAllowForTheTeam(t *testing.T) {
	l := shared
	setTeam := func(value string) {
		t.Helper()
		r := l.WS(2*time.Minute, "culvert", "gateway", "upgrade", "--set", "client.routing.allowConflictingSubnets="+value, "--wait")
		if r.Code != 0 {
			t.Fatalf("culvert gateway upgrade: %s", r)
		}
	}
	setTeam("{10.128.0.0/9}")
	t.Cleanup(func() { setTeam("null") })
	home := t.TempDir()
	env := []string{"HOME=" + home}
	before := l.snapshot(t)
	refused := l.WSEnv(time.Minute, env, "culvert", "connect")
	if refused.Code != 7 || !strings.Contains(refused.Err, "--trust-policy") {
		t.Fatalf("a Policy that takes prefixes from the VPN, without a terminal: want exit code 7 naming --trust-policy: %s", refused)
	}
	l.unchanged(t, before)
	t.Cleanup(func() {
		must(t, l.WS(30*time.Second, "culvert", "quit"), "quit")
		l.unchanged(t, before)
	})
	must(t, l.WSEnv(time.Minute, env, "culvert", "connect", "--trust-policy"), "connect --trust-policy")
	l.reaches(t)
	must(t, l.WS(30*time.Second, "culvert", "quit"), "quit")
	must(t, l.WSEnv(time.Minute, env, "culvert", "connect"), "connect again: consent is asked once")
}
