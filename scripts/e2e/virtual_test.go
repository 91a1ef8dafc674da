//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// virtualFlags hide what the VPN routes behind virtual addresses.
var virtualFlags = []string{"--on-conflict", "virtualize"}

// hidings are the ways of asking for virtual addresses in place of all that the cluster has.
var hidings = []struct {
	name  string
	flags []string
}{
	{"on conflict", virtualFlags},
	{"all", []string{"--proxy-via", "all=gateway"}},
	{"service and pods", []string{"--proxy-via", "service=gateway", "--proxy-via", "pods=gateway"}},
	{"each prefix by hand", []string{"--proxy-via", "10.130.0.0/16=gateway", "--proxy-via", "10.132.0.0/16=gateway"}},
	{"in short", []string{"--vnat", "all"}},
}

// TestVirtualAddresses is the classic case: the VPN routes all of 10.0.0.0/8, in one piece or as halves,
// and the cluster lies inside.
//
//	name ──► 246.x.y.z ──► culvert0 ══► gateway ──► 10.x.y.z        10.0.0.0/8 ──► tun0, all the while
func TestVirtualAddresses(t *testing.T) {
	for _, routes := range []string{"10.0.0.0/8", "10.0.0.0/9,10.128.0.0/9"} {
		t.Run(strings.ReplaceAll(routes, "/", "_"), func(t *testing.T) {
			l := shared
			l.useVPN(t, "openvpn", routes)
			for _, x := range hidings {
				t.Run(x.name, func(t *testing.T) { l.hides(t, x.flags, "http://"+corpHost+"/") })
			}
		})
	}
}

// hides connects with flags and checks that all of the cluster is reached by virtual addresses, nothing
// else is routed to us, and the URLs of others answer all the while.
func (l *lab) hides(t *testing.T, flags []string, others ...string) {
	t.Helper()
	addrs := slices.Concat(l.echoes(), l.others(situation{}))
	before := l.waysOf(t, addrs...)
	l.answersAllTheWhile(t, others...)
	l.connect(t, flags...)
	if diff := differ(before, l.waysOf(t, addrs...), addrs); diff != "" {
		t.Errorf("a real address has not the way it had:\n%s", diff)
	}
	subnets := l.virtualSubnets(t)
	l.onlyVirtual(t, subnets)
	seen := map[string]bool{}
	for _, s := range l.services(t) {
		l.serves(t, s, subnets, seen)
	}
	for _, name := range []string{"echo", "echo.default", "echo.default.svc", "echo.default.svc.default.culvert.internal"} {
		must(t, l.curl("http://"+name+"/"), "GET "+name, "pod")
	}
	l.pingsPods(t)
	l.othersAnswer(t)
}

// answersAllTheWhile asks the URLs time and again until the test ends, and fails it if one did not answer.
func (l *lab) answersAllTheWhile(t *testing.T, urls ...string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "answers")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	curl := "curl -s -g -o /dev/null --max-time 3 -w '%{http_code} %{url}\\n' " + strings.Join(urls, " -o /dev/null ")
	stop := l.background(t, out, "sh", "-c", "while :; do "+curl+"; sleep 0.1; done")
	t.Cleanup(func() {
		stop()
		out.Close() //nolint:errcheck // it is read already
		answers := strings.Split(strings.TrimSpace(readFile(t, log)), "\n")
		bad := slices.DeleteFunc(slices.Clone(answers), func(a string) bool { return strings.HasPrefix(a, "200 ") })
		t.Logf("%d of %d requests to %v answered", len(answers)-len(bad), len(answers), urls)
		if len(bad) > 0 || len(answers) < len(urls) {
			t.Errorf("of %d requests %d were not answered: %v", len(answers), len(bad), bad)
		}
	})
}

// twins is the part of `culvert plan -o json` that says which virtual addresses there are.
type twins struct {
	Twins []struct {
		Real, Virtual netip.Prefix
		Pooled        bool
	}
	Pools       []netip.Prefix
	Virtualized []netip.Prefix
}

// virtualSpace is class E and the unique local addresses of IPv6.
var virtualSpace = []netip.Prefix{netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("fc00::/7")}

func (l *lab) twins(t *testing.T) twins {
	t.Helper()
	r := l.WS(20*time.Second, "culvert", "plan", "-o", "json")
	var p struct {
		InForce bool
		Plan    twins
	}
	if err := json.Unmarshal([]byte(r.Out), &p); err != nil || !p.InForce {
		t.Fatalf("culvert plan: %v: %s", err, r)
	}
	return p.Plan
}

// virtualSubnets returns the prefixes that hold all virtual addresses of programs on the workstation.
func (l *lab) virtualSubnets(t *testing.T) []netip.Prefix {
	t.Helper()
	p := l.twins(t)
	list := slices.Clone(p.Pools)
	for _, twin := range p.Twins {
		switch {
		case !twin.Virtual.IsValid():
			t.Errorf("there is no twin of %s", twin.Real)
		case !slices.ContainsFunc(virtualSpace, twin.Virtual.Overlaps), twin.Virtual.Overlaps(twin.Real):
			t.Errorf("%s is no twin for %s: want a prefix in %v", twin.Virtual, twin.Real, virtualSpace)
		case !twin.Pooled:
			list = append(list, twin.Virtual)
		}
	}
	if len(list) == 0 {
		t.Fatalf("no virtual addresses in %+v", p)
	}
	return list
}

func within(addr string, prefixes []netip.Prefix) bool {
	a, err := netip.ParseAddr(addr)
	return err == nil && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// onlyVirtual checks that the host's routes lead nothing into the tunnel but the virtual subnets and the
// gateway's own addresses, which lie in the overlay prefixes of this connection.
func (l *lab) onlyVirtual(t *testing.T, subnets []netip.Prefix) {
	t.Helper()
	allowed := slices.Clone(subnets)
	for _, a := range l.status(t).Peer.Addresses {
		own := netip.MustParseAddr(a)
		allowed = append(allowed, netip.PrefixFrom(own, own.BitLen()-1).Masked())
	}
	routed := 0
	for _, family := range []string{"-4", "-6"} {
		r := l.WS(5*time.Second, "ip", "-o", family, "route", "show", "table", "all", "dev", "culvert0")
		must(t, r, "routes of culvert0")
		for line := range strings.Lines(r.Out) {
			dst := destinationOf(line)
			if dst.Addr().IsMulticast() || dst.Addr().IsLinkLocalUnicast() {
				continue // every IPv6 interface has them
			}
			if !slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Bits() <= dst.Bits() && p.Contains(dst.Addr()) }) {
				t.Errorf("more than %v is routed to us: %s", allowed, line)
			}
			if within(dst.Addr().String(), subnets) {
				routed++
			}
		}
	}
	if routed < len(subnets) {
		t.Errorf("of %v only %d are routed to us", subnets, routed)
	}
}

// destinationOf returns the prefix of a line of `ip route`, not valid for a default route.
func destinationOf(line string) netip.Prefix {
	for _, word := range strings.Fields(line) {
		if p, err := netip.ParsePrefix(word); err == nil {
			return p
		}
		if a, err := netip.ParseAddr(word); err == nil {
			return netip.PrefixFrom(a, a.BitLen())
		}
		if word == "default" {
			break
		}
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// service is a service of the cluster as kubectl shows it.
type service struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		ClusterIP  string
		IPFamilies []string
		Ports      []struct {
			Name, Protocol string
			Port           int
		}
	}
}

func (s service) name() string {
	return s.Metadata.Name + "." + s.Metadata.Namespace + ".svc.cluster.local"
}

// services returns every service of the cluster but the gateway's.
func (l *lab) services(t *testing.T) []service {
	t.Helper()
	r := l.Kubectl("get", "services", "-A", "-o", "json")
	var list struct{ Items []service }
	if err := json.Unmarshal([]byte(r.Out), &list); err != nil || len(list.Items) < 5 {
		t.Fatalf("services: %v: %s", err, r)
	}
	return slices.DeleteFunc(list.Items, func(s service) bool { return s.Metadata.Namespace == "culvert" })
}

// serves checks a service by name: each answer lies in the virtual subnets, each port answers over its
// protocol, SRV leads to the same addresses, and an address to a name. seen holds the targets of SRV that
// were looked at.
func (l *lab) serves(t *testing.T, s service, subnets []netip.Prefix, seen map[string]bool) {
	t.Helper()
	hosts := []string{s.name()}
	for _, family := range s.Spec.IPFamilies {
		qtype := map[string]string{"IPv4": "A", "IPv6": "AAAA"}[family]
		vips := l.vips(t, qtype, s.name())
		if len(vips) == 0 {
			t.Errorf("%s %s: no answer", s.name(), qtype)
		}
		for _, vip := range vips {
			if !within(vip, subnets) {
				t.Errorf("%s %s: %s is not in %v", s.name(), qtype, vip, subnets)
			}
			l.namedBack(t, vip, s)
		}
		if len(s.Spec.IPFamilies) > 1 {
			hosts = append(hosts, vips...) // a program takes one of the families
		}
	}
	for _, port := range s.Spec.Ports {
		for _, host := range hosts {
			l.servesPort(t, host, port.Protocol, port.Port)
		}
		l.located(t, fmt.Sprintf("_%s._%s.%s", port.Name, strings.ToLower(port.Protocol), s.name()), subnets, seen)
	}
}

// vips asks the host's resolver for the addresses of a name.
func (l *lab) vips(t *testing.T, qtype, name string) []string {
	t.Helper()
	r := l.WS(10*time.Second, "dig", "+short", "+tries=1", "+time=5", qtype, name)
	must(t, r, "dig "+name)
	list := strings.Fields(r.Out)
	slices.Sort(list)
	return list
}

// namedBack checks that the reverse name of a virtual address is that of the service it was an answer for;
// a pod's is that of an endpoint, of one of the services that it belongs to.
func (l *lab) namedBack(t *testing.T, vip string, s service) {
	t.Helper()
	want := "." + s.name() + "."
	if s.Spec.ClusterIP == "None" {
		want = ".svc.cluster.local."
	}
	r := l.WS(10*time.Second, "dig", "+short", "+tries=1", "+time=5", "-x", vip)
	for name := range strings.Lines(r.Out) {
		if strings.HasSuffix("."+strings.TrimSpace(name), want) {
			return
		}
	}
	t.Errorf("the reverse name of %s, an answer to %s: %s", vip, s.name(), r)
}

// servesPort checks one port of a service by its name or virtual address.
func (l *lab) servesPort(t *testing.T, host, protocol string, port int) {
	t.Helper()
	what, target := fmt.Sprintf("%s port %d/%s", host, port, protocol), hostPort(host, port)
	switch {
	case port == 53:
		way := map[string]string{"UDP": "+notcp", "TCP": "+tcp"}[protocol]
		must(t, l.WS(10*time.Second, "dig", "+short", way, "@"+host, "kubernetes.default.svc.cluster.local"), what, "10.130.0.1")
	case protocol == "UDP":
		must(t, l.Labnet(20*time.Second, "udp", "--count", "5", target), what, `"lost":0`)
	case port == 7000:
		must(t, l.Labnet(20*time.Second, "pingpong", "--count", "5", target), what)
	case port == 80 || port == 8080:
		must(t, l.curl("http://"+target+"/"), what, `"pod"`)
	default:
		must(t, l.dial(host, port), what)
	}
}

// located checks an answer to SRV (RFC 2782): its target has addresses, beside it and when asked for, and
// all are virtual.
func (l *lab) located(t *testing.T, name string, subnets []netip.Prefix, seen map[string]bool) {
	t.Helper()
	r := l.WS(10*time.Second, "dig", "+noall", "+answer", "+additional", "+tries=1", "+time=5", "SRV", name)
	targets := srvTarget.FindAllStringSubmatch(r.Out, -1)
	if len(targets) == 0 {
		t.Errorf("SRV %s: %s", name, r)
	}
	for _, beside := range addressRecord.FindAllStringSubmatch(r.Out, -1) {
		if !within(beside[1], subnets) {
			t.Errorf("SRV %s: a real address beside it: %s", name, r)
		}
	}
	for _, target := range targets {
		if seen[target[1]] {
			continue
		}
		seen[target[1]] = true
		vips := append(l.vips(t, "A", target[1]), l.vips(t, "AAAA", target[1])...)
		if len(vips) == 0 || slices.ContainsFunc(vips, func(vip string) bool { return !within(vip, subnets) }) {
			t.Errorf("SRV %s: %s is at %v", name, target[1], vips)
		}
	}
}

var (
	srvTarget     = regexp.MustCompile(`(?m)\sSRV\s+\d+\s+\d+\s+\d+\s+(\S+)$`)
	addressRecord = regexp.MustCompile(`(?m)\sA(?:AAA)?\s+(\S+)$`)
)

// pingsPods pings every pod behind echo-headless by its virtual address.
func (l *lab) pingsPods(t *testing.T) {
	t.Helper()
	const pods = "echo-headless.default.svc.cluster.local"
	vips := append(l.vips(t, "A", pods), l.vips(t, "AAAA", pods)...)
	if len(vips) == 0 {
		t.Fatalf("no pods behind %s", pods)
	}
	for _, vip := range vips {
		l.pings(t, vip)
	}
}

// pings checks that an address answers each ping, and by itself.
func (l *lab) pings(t *testing.T, addr string) {
	t.Helper()
	must(t, l.WS(20*time.Second, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "3", addr), "ping "+addr, " 0% packet loss", "from "+addr)
}
