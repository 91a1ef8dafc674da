//go:build lab

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Addresses that a workstation may want to reach, beside a service and a pod.
const (
	corpHost   = "10.20.0.80"
	publicHost = "203.0.113.10"
	vpnServer  = "198.51.100.10"
	apiServer  = "10.50.0.11"
	lanRouter  = "192.168.77.1"
	uninvolved = "10.77.1.1"   // inside what companies route, but nobody's
	unusedPod  = "10.132.0.70" // inside 10.132.0.64/26
	bridged    = "10.132.200.5"

	corpHost6   = "fd20::80"
	publicHost6 = "2001:db8:203::10"
	apiServer6  = "fd50::11"
	uninvolved6 = "fd77::1"
)

// ways holds, for addresses, the host's answer to "which interface for it": the result of asking the
// kernel, without what says nothing about the way.
type ways map[string]string

// waysOf asks the workstation's kernel about each address, with one command.
func (l *lab) waysOf(t *testing.T, addrs ...string) ways {
	t.Helper()
	var script strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&script, "echo \"%s $(ip -o route get %s 2>&1)\"\n", a, a)
	}
	r := l.WS(10*time.Second, "sh", "-c", script.String())
	must(t, r, "ask for routes")
	answers := ways{}
	for line := range strings.Lines(r.Out) {
		addr, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
		answers[addr] = wayIn(answer)
	}
	if len(answers) != len(addrs) {
		t.Fatalf("asked for %v: %s", addrs, r)
	}
	return answers
}

// wayWords are the parts of an answer that say where a packet goes.
var wayWords = regexp.MustCompile(`\b(?:via|dev|src) \S+`)

// wayIn reduces an answer of `ip route get` to type, next hop, interface and source, or to the error.
func wayIn(answer string) string {
	if _, no, ok := strings.Cut(answer, "RTNETLINK answers: "); ok {
		return no
	}
	words := wayWords.FindAllString(answer, -1)
	if kind, _, _ := strings.Cut(answer, " "); !strings.ContainsAny(kind, ".:") {
		words = append([]string{kind}, words...)
	}
	return strings.Join(words, " ")
}

// through reports whether a way leads into the tunnel.
func through(way string) bool { return strings.Contains(way, "dev culvert0 ") }

// differ returns a line for every one of addrs whose way is not the same in both.
func differ(before, now ways, addrs []string) string {
	var out strings.Builder
	for _, a := range addrs {
		if before[a] != now[a] {
			fmt.Fprintf(&out, "  %s: %s, before %s\n", a, now[a], before[a])
		}
	}
	return out.String()
}

// cluster returns the addresses that a connection takes in a situation.
func (l *lab) cluster(s situation) []string { return append(l.echoes(), s.taken...) }

// echoes returns the addresses of a service and of a pod, in each family.
func (l *lab) echoes() []string {
	list := []string{l.EchoIP, l.EchoPod}
	if l.echoIP6 != "" {
		list = append(list, l.echoIP6, l.echoPod6)
	}
	return list
}

// others returns the addresses that a connection has nothing to do with in a situation.
func (l *lab) others(s situation) []string {
	list := []string{corpHost, publicHost, vpnServer, apiServer, lanRouter, uninvolved}
	if l.echoIP6 != "" {
		list = append(list, corpHost6, publicHost6, apiServer6, uninvolved6)
	}
	return append(list, s.kept...)
}

// bystanders returns the URLs of those beside the cluster who may be there to answer.
func (l *lab) bystanders() []string {
	list := []string{"http://" + corpHost + "/", "http://" + publicHost + "/"}
	if l.echoIP6 != "" {
		list = append(list, "http://["+corpHost6+"]/", "http://["+publicHost6+"]/")
	}
	return list
}

// situation is one way in which a workstation's packets are steered.
type situation struct {
	name string // the machine or VPN that it comes from
	// vpn and routes are what `lab vpn up` gets; "" is OpenVPN with 10.0.0.0/8, none no VPN at all.
	vpn, routes string
	// setup lists commands on the workstation that make the situation; undo takes it back.
	setup, undo []string
	// refused are texts of the report that a connect without settings ends with. None means that it
	// connects.
	refused []string
	// unclaimed are texts that the report must not have.
	unclaimed []string
	// flags replace allowFlags.
	flags []string
	// taken and kept are addresses, beside those of a service and a pod and those that nobody takes,
	// that must go through the tunnel or keep their way, with the settings.
	taken, kept []string
}

// vpnDefault is what the scenarios around these expect to find.
const vpnDefault = "10.0.0.0/8"

// arrange makes the situation and has it taken back when the test ends.
func (l *lab) arrange(t *testing.T, s situation) {
	t.Helper()
	switch s.vpn {
	case "":
	case "none":
		t.Cleanup(func() {
			must(t, l.Run(2*time.Minute, "vpn", "up", "openvpn", "--routes", vpnDefault), "back to OpenVPN")
		})
		must(t, l.Run(time.Minute, "vpn", "down"), "lab vpn down")
	default:
		l.useVPN(t, s.vpn, s.routes)
	}
	l.script(t, s.setup)
	t.Cleanup(func() { l.script(t, s.undo) })
}

// script runs commands on the workstation, each on a line of its own.
func (l *lab) script(t *testing.T, lines []string) {
	t.Helper()
	if len(lines) > 0 {
		must(t, l.WS(20*time.Second, "sh", "-exc", strings.Join(lines, "\n")), strings.Join(lines, "; "))
	}
}

// answering returns those of urls that answer a request.
func (l *lab) answering(urls []string) []string {
	var list []string
	for _, url := range urls {
		if l.WS(5*time.Second, "curl", "-sS", "--fail", "--max-time", "2", "-o", "/dev/null", url).Code == 0 {
			list = append(list, url)
		}
	}
	return list
}

// was is what the workstation had before a connection.
type was struct {
	ways      ways
	answering []string
}

func (l *lab) look(t *testing.T, s situation) was {
	t.Helper()
	return was{l.waysOf(t, slices.Concat(l.cluster(s), l.others(s))...), l.answering(l.bystanders())}
}

// check plays the whole course: what a plain connect says, what holds while connected with the
// settings, and that all is as before in the end.
func (l *lab) check(t *testing.T, s situation) {
	t.Helper()
	before := l.look(t, s)
	l.plainConnect(t, s)
	flags := s.flags
	if flags == nil {
		flags = allowFlags
	}
	t.Run("connected", func(t *testing.T) {
		l.connect(t, flags...)
		l.holds(t, s, before)
	})
	all := slices.Concat(l.cluster(s), l.others(s))
	if diff := differ(before.ways, l.waysOf(t, all...), all); diff != "" {
		t.Errorf("after quit:\n%s", diff)
	}
}

// holds checks what must be true while connected: the cluster through the tunnel and answering, the
// rest as before.
func (l *lab) holds(t *testing.T, s situation, before was) {
	t.Helper()
	cluster, others := l.cluster(s), l.others(s)
	now := l.waysOf(t, slices.Concat(cluster, others)...)
	for _, a := range cluster {
		if !through(now[a]) {
			t.Errorf("%s does not go through the tunnel: %s", a, now[a])
		}
	}
	if diff := differ(before.ways, now, others); diff != "" {
		t.Errorf("not the way it was:\n%s", diff)
	}
	must(t, l.curl("http://echo.default/"), "GET a service by name", "pod")
	must(t, l.curl("http://"+l.EchoPod+":8080/"), "GET a pod by address", "pod")
	if l.echoIP6 != "" {
		must(t, l.curl("http://["+l.echoIP6+"]/"), "GET a service by IPv6 address", "pod")
		must(t, l.curl("http://["+l.echoPod6+"]:8080/"), "GET a pod by IPv6 address", "pod")
	}
	if now := l.answering(before.answering); !slices.Equal(now, before.answering) {
		t.Errorf("before, all of %v answered, now only %v", before.answering, now)
	}
}

// plainConnect connects without settings: refused with a report and nothing changed, or connected.
func (l *lab) plainConnect(t *testing.T, s situation) {
	t.Helper()
	before := l.snapshot(t)
	r := l.WS(time.Minute, "culvert", "connect")
	defer l.unchanged(t, before)
	if len(s.refused) == 0 {
		must(t, r, "culvert connect without settings")
		must(t, l.curl("http://"+l.EchoPod+":8080/"), "GET a pod by address, without settings", "pod")
		must(t, l.WS(30*time.Second, "culvert", "quit"), "culvert quit")
		return
	}
	if r.Code != 3 {
		t.Fatalf("culvert connect without settings: want exit code 3: %s", r)
	}
	for _, want := range s.refused {
		if !strings.Contains(squeeze(r.Err), want) {
			t.Errorf("the report lacks %q:\n%s", want, r.Err)
		}
	}
	for _, no := range s.unclaimed {
		if strings.Contains(squeeze(r.Err), no) {
			t.Errorf("the report has %q:\n%s", no, r.Err)
		}
	}
}

var spaces = regexp.MustCompile(` +`)

// squeeze makes columns one space apart.
func squeeze(text string) string { return spaces.ReplaceAllString(text, " ") }
