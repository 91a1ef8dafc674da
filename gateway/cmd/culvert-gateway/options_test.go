package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	ktesting "k8s.io/client-go/testing"

	"github.com/culvert-dev/culvert/gateway/dataplane"
	"github.com/culvert-dev/culvert/gateway/egress"
	"github.com/culvert-dev/culvert/gateway/subnets"
	"github.com/culvert-dev/culvert/gateway/tunnel"
	"github.com/culvert-dev/culvert/internal/version"
)

// environment makes a lookup function of "NAME=value" strings.
func environment(list ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, kv := range list {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
}

func TestParseOptions(t *testing.T) {
	show := func(o options) string {
		return fmt.Sprint(o.namespace, " mtu ", o.mtu, " scope ", o.clusterScope, " svc ", o.services, " pods ", o.pods,
			" allow ", o.egressAllow, " port ", o.carrierPort, " pod ", o.podName, " ", o.podAddrs, " log ", o.logLevel, " dns ", o.nameservers)
	}
	for _, row := range []struct {
		name string
		args string
		env  []string
		want string // the options, or part of the error
	}{
		{"as the chart starts it", "--namespace=team --policy=default --carrier-listen=127.0.0.1:7831 --health-listen=:7832 --mtu=1400 --log-level=info " +
			"--cluster-scope=false --service-subnets=10.130.0.0/16,fd00:130::/108 --pod-subnets=10.132.0.0/16 --egress-allow=10.8.0.0/24",
			[]string{"POD_NAME=culvert-gateway-0", "POD_NAMESPACE=team", "POD_IP=10.132.0.9", "POD_IPS=10.132.0.9,fd00:132::9"},
			"team mtu 1400 scope false svc [10.130.0.0/16 fd00:130::/108] pods [10.132.0.0/16] allow [10.8.0.0/24] port 7831 pod culvert-gateway-0 [10.132.0.9 fd00:132::9] log INFO dns []"},
		{"defaults", "", []string{"POD_NAME=p"}, "culvert mtu 1420 scope true svc [] pods [] allow [] port 7831 pod p [] log INFO dns []"},
		{"environment", "", []string{"POD_NAME=p", "CULVERT_NAMESPACE=team", "CULVERT_MTU=1300", "CULVERT_EGRESS_ALLOW=10.8.0.0/24,10.9.0.0/24", "CULVERT_CLUSTER_SCOPE=false"},
			"team mtu 1300 scope false svc [] pods [] allow [10.8.0.0/24 10.9.0.0/24] port 7831 pod p [] log INFO dns []"},
		{"flags are above the environment", "--mtu 1350", []string{"POD_NAME=p", "CULVERT_MTU=1300"}, "culvert mtu 1350 scope true svc [] pods [] allow [] port 7831 pod p [] log INFO dns []"},
		{"an empty variable says nothing", "", []string{"POD_NAME=p", "CULVERT_MTU="}, "culvert mtu 1420 scope true svc [] pods [] allow [] port 7831 pod p [] log INFO dns []"},
		{"nameservers", "--nameservers 10.130.0.10,[fd00:130::a]:5353", []string{"POD_NAME=p"},
			"culvert mtu 1420 scope true svc [] pods [] allow [] port 7831 pod p [] log INFO dns [10.130.0.10:53 [fd00:130::a]:5353]"},

		{"small MTU", "--mtu 1000", nil, "--mtu 1000: accepted are 1280 to 9000"},
		{"bad prefix", "--pod-subnets 10.132.0.0", nil, "--pod-subnets: "},
		{"host bits", "--egress-allow 10.8.0.1/24", nil, "write 10.8.0.0/24"},
		{"open carrier", "--carrier-listen 0.0.0.0:7831", nil, "only port-forwards may reach it"},
		{"carrier by name", "--carrier-listen localhost:7831", nil, "such as 127.0.0.1:7831"},
		{"level", "--log-level loud", nil, "debug, info, warn and error"},
		{"level between two", "--log-level info+2", nil, "debug, info, warn and error"},
		{"format", "--log-format xml", nil, "text and json"},
		{"fewer than no Peers", "--max-peers -1", nil, "--max-peers -1"},
		{"nameserver", "--nameservers dns.example", nil, "--nameservers"},
		{"unknown flag", "--verbose", nil, "verbose"},
		{"argument", "serve", nil, `unexpected argument "serve"`},
		{"bad variable", "", []string{"CULVERT_MTU=big"}, `CULVERT_MTU="big"`},
		{"bad pod address", "", []string{"POD_IPS=10.132.0.9,none"}, "POD_IPS"},
		{"two mistakes, both named", "--mtu 1 --log-format xml", nil, "--mtu 1: accepted are 1280 to 9000\n--log-format"},
	} {
		t.Run(row.name, func(t *testing.T) {
			o, err := parseOptions(strings.Fields(row.args), environment(row.env...))
			if err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v\nwant  %s", err, row.want)
			}
			if got := show(o); err == nil && got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

func TestRunExitCodes(t *testing.T) {
	for _, row := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"version", exitDone, "culvert-gateway " + version.Version, ""},
		{"--version", exitDone, "culvert-gateway " + version.Version, ""},
		{"--help", exitDone, "--egress-allow", ""},
		{"--mtu 1", exitUsage, "", "error: --mtu 1"},
		{"--kubeconfig /nonexistent", exitFailure, "", "/nonexistent"},
	} {
		t.Run(row.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(context.Background(), strings.Fields(row.args), environment(), &stdout, &stderr)
			if code != row.code || !strings.Contains(stdout.String(), row.stdout) || !strings.Contains(stderr.String(), row.stderr) {
				t.Errorf("code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
			}
		})
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	text := usage()
	if lines := strings.Split(text, "\n"); len(lines) < 30 {
		t.Fatalf("help of %d lines", len(lines))
	}
	for _, line := range strings.Split(text, "\n") {
		if len(line) > 110 {
			t.Errorf("line of %d characters: %s", len(line), line)
		}
	}
}

// planeRecorder is a data plane that asks the border while Peers change.
type planeRecorder struct{ set func([]tunnel.Peer) }

func (p planeRecorder) SetPeers(list []tunnel.Peer) { p.set(list) }

func TestBorder(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("10.132.0.9")}
	everything := netip.MustParsePrefix("0.0.0.0/0")
	b := &border{input: egress.Input{Own: own, Allow: []netip.Prefix{everything, netip.MustParsePrefix("169.254.20.10/32")}}}
	verdict := func(dst string) dataplane.Verdict {
		return b.permit(netip.Addr{}, dataplane.TCP, netip.AddrPortFrom(netip.MustParseAddr(dst), 80))
	}
	if verdict("10.130.0.1") != dataplane.Deny {
		t.Error("something is permitted before anything is known")
	}
	b.setSubnets(subnets.Result{Services: []subnets.Subnet{{Prefix: netip.MustParsePrefix("10.130.0.0/16")}}})
	for dst, want := range map[string]dataplane.Verdict{"10.130.0.1": dataplane.Allow, "169.254.20.10": dataplane.AllowReserved,
		"169.254.169.254": dataplane.Deny, "10.132.0.9": dataplane.Deny, "245.1.2.4": dataplane.Allow} {
		if got := verdict(dst); got != want {
			t.Errorf("%s: verdict %d, want %d", dst, got, want)
		}
	}

	var got []tunnel.Peer
	b.plane = planeRecorder{func(list []tunnel.Peer) {
		if got = list; verdict("245.1.2.4") != dataplane.Deny {
			t.Error("a Peer's address can be dialled while Peers change")
		}
	}}
	ann := tunnel.Peer{Name: "ann", ID: "u1", Node: []netip.Addr{netip.MustParseAddr("245.1.2.4"), netip.MustParseAddr("fd7a:1::4")}}
	b.SetPeers([]tunnel.Peer{ann})
	if len(got) != 1 || !reflect.DeepEqual(got[0], ann) {
		t.Errorf("the data plane was told %+v", got)
	}
	if verdict("245.1.2.5") != dataplane.Deny {
		t.Error("the gateway's side of a Peer's link can be dialled")
	}
	b.SetPeers(nil)
	if verdict("245.1.2.4") != dataplane.Allow || len(got) != 0 {
		t.Error("the address of a Peer that is gone stays closed")
	}
}

func TestReserved(t *testing.T) {
	r := subnets.Result{Services: []subnets.Subnet{{Prefix: netip.MustParsePrefix("10.130.0.0/16")}}, Pods: []subnets.Subnet{{Prefix: netip.MustParsePrefix("250.0.0.0/8")}}}
	allow := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("fd00:db::/64"), netip.MustParsePrefix("10.8.0.0/24")}
	got := fmt.Sprint(reserved(r, []netip.Addr{netip.MustParseAddr("fd00:132::9")}, allow))
	if want := "[10.130.0.0/16 250.0.0.0/8 fd00:132::9/128 fd00:db::/64]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestClusterUID(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, row := range []struct {
		name   string
		scope  bool
		denied map[string]bool
		want   string
	}{
		{"kube-system", true, nil, "uid-kube-system"},
		{"kube-system may not be read", true, map[string]bool{"kube-system": true}, "uid-culvert"},
		{"without cluster scope", false, nil, "uid-culvert"},
		{"neither", true, map[string]bool{"kube-system": true, "culvert": true}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCluster()
			if err := c.Tracker().Add(object("v1", "Namespace", "", "culvert", nil)); err != nil {
				t.Fatal(err)
			}
			failures := 1 // of a kind that passes
			c.PrependReactor("get", "namespaces", func(a ktesting.Action) (bool, runtime.Object, error) {
				if failures--; failures >= 0 {
					return true, nil, errors.New("connection refused")
				}
				if row.denied[a.(ktesting.GetAction).GetName()] {
					return true, nil, apierrors.NewForbidden(namespaces.GroupResource(), "", errors.New("no"))
				}
				return false, nil, nil
			})
			if got := clusterUID(context.Background(), c, row.scope, "culvert", log); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestMemoryLimit(t *testing.T) {
	for text, want := range map[string]int64{"1073741824\n": 1 << 30, "max\n": 0, "9223372036854771712\n": 0, "": 0, "-1": 0} {
		got, ok := memoryLimit(text)
		if ok != (want != 0) || ok && got != want {
			t.Errorf("memoryLimit(%q) = %d, %v", text, got, ok)
		}
	}
}
