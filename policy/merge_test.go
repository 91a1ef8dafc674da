package policy

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// layer decodes one source of settings.
func layer(t testing.TB, source Source, text string) Layer {
	t.Helper()
	name := strings.ReplaceAll(string(source), " ", "-") + ".yaml"
	s, at, err := Decode(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Layer{Source: source, Name: name, Settings: s, Positions: at}
}

// ruleTexts shows rules as "allow 10.0.0.0/8 flag --x".
func ruleTexts(rules []RoutingRule) []string {
	var out []string
	for _, r := range rules {
		out = append(out, string(r.Resolve)+" "+r.subnet()+" "+r.Origin.String())
	}
	return out
}

func TestMergeLists(t *testing.T) {
	for name, tc := range map[string]struct {
		file, policy string
		want         []string
		from         string
	}{
		"nothing anywhere": {"", "", nil, "default"},
		"only the team": {
			"", "routing: {alsoProxySubnets: [192.0.2.0/24]}",
			[]string{"also 192.0.2.0/24 policy policy.yaml:1"}, "policy policy.yaml:1",
		},
		"the user replaces": {
			"routing: {alsoProxySubnets: [198.51.100.0/24]}", "routing: {alsoProxySubnets: [192.0.2.0/24]}",
			[]string{"also 198.51.100.0/24 file file.yaml:1"}, "file file.yaml:1",
		},
		"the user says none": {
			"routing: {alsoProxySubnets: []}", "routing: {alsoProxySubnets: [192.0.2.0/24]}",
			nil, "file file.yaml:1",
		},
		"the user extends": {
			"routing:\n  alsoProxySubnets:\n  - +198.51.100.0/24", "routing: {alsoProxySubnets: [192.0.2.0/24]}",
			[]string{"also 192.0.2.0/24 policy policy.yaml:1", "also 198.51.100.0/24 file file.yaml:3"}, "file file.yaml:2, policy policy.yaml:1",
		},
		"both extend the default": {
			"routing: {alsoProxySubnets: [+198.51.100.0/24]}", "routing: {alsoProxySubnets: [+192.0.2.0/24]}",
			[]string{"also 192.0.2.0/24 policy policy.yaml:1", "also 198.51.100.0/24 file file.yaml:1"}, "file file.yaml:1, policy policy.yaml:1, default",
		},
		"said twice counts for the user": {
			"routing: {alsoProxySubnets: [+192.0.2.0/24]}", "routing: {alsoProxySubnets: [192.0.2.0/24]}",
			[]string{"also 192.0.2.0/24 file file.yaml:1"}, "file file.yaml:1, policy policy.yaml:1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, from, err := Merge(layer(t, SourceFile, tc.file), layer(t, SourcePolicy, tc.policy))
			if err != nil {
				t.Fatal(err)
			}
			if got := ruleTexts(s.Routing); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			var origins []string
			for _, o := range from["routing.alsoProxySubnets"] {
				origins = append(origins, o.String())
			}
			if got := strings.Join(origins, ", "); got != tc.from {
				t.Errorf("from %q, want %q", got, tc.from)
			}
		})
	}
}

func TestMergeScalars(t *testing.T) {
	flags, err := Values(SourceFlag, Value{"transport.mtu", "0", "--mtu"})
	if err != nil {
		t.Fatal(err)
	}
	s, from, err := Merge(flags, layer(t, SourceUserFile, "dns: {lookupTimeout: 2s}"), layer(t, SourcePolicy, "transport: {mtu: 1300}\ndns: {lookupTimeout: 3s}"))
	if err != nil {
		t.Fatal(err)
	}
	if s.MTU != 0 || s.DNS.LookupTimeout != 2*time.Second {
		t.Errorf("got MTU %d and %v", s.MTU, s.DNS.LookupTimeout)
	}
	if got := from["transport.mtu"][0].String(); got != "flag --mtu" {
		t.Errorf("mtu from %s", got)
	}
	if got := from["dns.lookupTimeout"][0].String(); got != "user file user-file.yaml:1" {
		t.Errorf("lookupTimeout from %s", got)
	}
	if s, _, _ := Merge(layer(t, SourceFile, "cluster: {virtualIPSubnet: 211.55.48.0/20, virtualIPv6Subnet: 'fd00:246::/48'}")); s.VirtualSubnet.String() != "211.55.48.0/20" || s.VirtualIPv6Subnet.String() != "fd00:246::/48" {
		t.Errorf("virtual subnets %s, %s", s.VirtualSubnet, s.VirtualIPv6Subnet)
	}
	if s, _, _ := Merge(); s.DNS.LookupTimeout != DefaultLookupTimeout {
		t.Errorf("default lookupTimeout %v", s.DNS.LookupTimeout)
	}
}

// TestEveryKeyHasProvenance: explain can show every value with its source.
func TestEveryKeyHasProvenance(t *testing.T) {
	_, from, err := Merge()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range Keys() {
		if len(from[k.Path]) != 1 || from[k.Path][0].Source != SourceDefault {
			t.Errorf("%s is from %v", k.Path, from[k.Path])
		}
	}
}

func TestMergeRefusesABadPolicy(t *testing.T) {
	bad := Layer{Source: SourcePolicy, Name: "Policy culvert/default", Settings: v1alpha1.Settings{
		Routing:   v1alpha1.RoutingSettings{AllowConflictingSubnets: []string{"10.0.0.0/8", "10.128.0.1/9"}},
		Transport: v1alpha1.TransportSettings{MTU: 100},
	}}
	_, _, err := Merge(layer(t, SourceFile, "dns: {namespaces: [a]}"), bad)
	want := `Policy culvert/default: routing.allowConflictingSubnets[1]: "10.128.0.1/9" has bits set behind its length of 9; write 10.128.0.0/9
Policy culvert/default: transport.mtu: "100" is not an MTU; write a number of bytes between 1280 and 9000, or 0 to derive it from the route`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestValues(t *testing.T) {
	l, err := Values(SourceEnvironment,
		Value{"routing.alsoProxySubnets", " 192.0.2.0/24, 198.51.100.0/24 ,", "CULVERT_ALSO_PROXY"},
		Value{"dns.namespaces", "", "CULVERT_DNS_NAMESPACES"},
	)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Settings.Routing.AlsoProxySubnets; !reflect.DeepEqual(got, []string{"192.0.2.0/24", "198.51.100.0/24"}) {
		t.Errorf("got %q", got)
	}
	if l.Settings.DNS.Namespaces == nil {
		t.Error("an empty variable does not say: none")
	}
	_, err = Values(SourceFlag, Value{"routing.alsoProxySubnets", "192.0.2.0/24,10.1.2.3", "--also-proxy"}, Value{"dns.lookupTimeout", "soon", "--dns-lookup-timeout"})
	want := `--also-proxy: "10.1.2.3" is an address, not a prefix; for this one address write 10.1.2.3/32
--dns-lookup-timeout: "soon" is not a duration between 100ms and 1m0s; write a number with a unit, such as 4s or 500ms`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
