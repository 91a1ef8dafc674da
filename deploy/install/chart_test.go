package install

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/failure"
)

var update = flag.Bool("update", false, "write the golden files anew")

// values parses --set arguments the way the command does.
func values(t *testing.T, sets ...string) map[string]any {
	t.Helper()
	parsed, err := Values{Set: sets}.Merge()
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestChartVersionIsTheBuilds(t *testing.T) {
	data, err := os.ReadFile("../chart/culvert/Chart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"version: " + version.Version, "appVersion: " + version.Version} {
		if !strings.Contains("\n"+string(data), "\n"+line+"\n") {
			t.Errorf("Chart.yaml lacks the line %q of internal/version", line)
		}
	}
}

func TestRender(t *testing.T) {
	for _, row := range []struct {
		name, namespace string
		sets            []string
	}{
		{name: "defaults", namespace: "culvert"},
		{name: "everything", namespace: "tunnels", sets: []string{
			"image.repository=culvert.dev/culvert-gateway,image.tag=dev,image.pullPolicy=Never",
			"imagePullSecrets[0].name=registry",
			"client.routing.allowConflictingSubnets={+10.128.0.0/9,+172.16.0.0/12}",
			"client.dns.namespaces={default,shop},client.dns.lookupTimeout=2s",
			"client.transport.mtu=1380,client.enforce={transport.mtu}",
			"client.routing.onConflict=virtualize,client.routing.conflicts[0].subnet=all,client.routing.conflicts[0].resolve=allow",
			"client.proxyVia[0].subnet=10.132.64.0/18,client.proxyVia[0].workload=gateway",
			"client.cluster.virtualIPSubnet=211.55.48.0/20,client.cluster.virtualIPv6Subnet=fd00:246::/48",
			"users[0].kind=Group,users[0].name=developers",
			"users[1].kind=ServiceAccount,users[1].name=ci",
			"users[2].kind=ServiceAccount,users[2].name=ci,users[2].namespace=build",
			"egress.allow={192.0.2.0/24}",
			"discovery.serviceSubnets={10.130.0.0/16,fd00:130::/112}",
			"discovery.podSubnets={10.132.0.0/16},discovery.askServiceRange=true",
			"mtu=1380,maxPeers=0,clusterDomain=cluster.example,logLevel=debug,logFormat=json,pingSockets=false,networkPolicy.enabled=true",
			"networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
			"priorityClassName=high,nodeSelector.disk=ssd",
			"tolerations[0].key=edge,tolerations[0].operator=Exists",
			"podAnnotations.note=here",
		}},
		{name: "no-cluster-scope", namespace: "culvert", sets: []string{
			"discovery.clusterScope=false",
			"discovery.serviceSubnets={10.130.0.0/16}", "discovery.podSubnets={10.132.0.0/16}",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := Render(t.Context(), row.namespace, values(t, row.sets...))
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", row.name+".yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("rendered chart differs from %s; see the difference after `go test ./deploy/install -update`", golden)
			}
		})
	}
}

func TestSchemaRefuses(t *testing.T) {
	for _, row := range []struct{ name, set, want string }{
		{"an unknown key", "replicas=3", "replicas"},
		{"an unknown setting of the team", "client.routing.allowConflicting={10.0.0.0/8}", "allowConflicting"},
		{"a section that is not the settings'", "client.rooting.x=1", "rooting"},
		{"a prefix that is a word", "client.routing.neverProxySubnets={corporate}", "neverProxySubnets"},
		{"a prefix where a list belongs", "client.routing.neverProxySubnets=10.0.0.0/8", "neverProxySubnets"},
		{"a word that settles no conflict", "client.routing.onConflict=allow", "onConflict"},
		{"a workload that is not there", "client.proxyVia[0].subnet=all,client.proxyVia[0].workload=echo", "workload"},
		{"an IPv6 prefix for virtual IPv4 addresses", "client.cluster.virtualIPSubnet=fd00::/48", "virtualIPSubnet"},
		{"an extension of the egress list", "egress.allow={+10.0.0.0/8}", "egress"},
		{"an MTU below IPv6's least", "mtu=1200", "mtu"},
		{"a log level of another program", "logLevel=verbose", "logLevel"},
		{"a pull policy misspelt", "image.pullPolicy=never", "pullPolicy"},
		{"a user of unknown kind", "users[0].kind=Team,users[0].name=x", "users"},
		{"a user without a name", "users[0].kind=User", "name"},
		{"a group with a namespace", "users[0].kind=Group,users[0].name=x,users[0].namespace=y", "namespace"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := Render(t.Context(), "culvert", values(t, row.set))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one naming %q", err, row.want)
			}
			if code := failure.Of(err).Code; code != failure.Usage {
				t.Errorf("exit code %d, want %d", code, failure.Usage)
			}
		})
	}
}
