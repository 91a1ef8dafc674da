package policy

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

const goodFile = `# the team's file
routing:
  allowConflictingSubnets: [10.128.0.0/9, fd00:1::/48]
  alsoProxySubnets:
    - 192.0.2.0/24
  neverProxySubnets: ["+10.130.7.9/32"]
cluster: {virtualIPSubnet: 211.55.48.0/20, virtualIPv6Subnet: ""}
proxyVia:
  - {subnet: +pods, workload: gateway}
  - {subnet: +10.130.0.0/17, workload: gateway}
dns:
  namespaces: [shop, kube-system]
  includeSuffixes: [Corp.Example.]
  lookupTimeout: 1500ms
transport: {mtu: 1380}
`

func TestDecode(t *testing.T) {
	s, at, err := Decode("culvert.yaml", []byte(goodFile))
	if err != nil {
		t.Fatal(err)
	}
	want := v1alpha1.Settings{
		Routing: v1alpha1.RoutingSettings{
			AllowConflictingSubnets: []string{"10.128.0.0/9", "fd00:1::/48"},
			AlsoProxySubnets:        []string{"192.0.2.0/24"},
			NeverProxySubnets:       []string{"+10.130.7.9/32"},
		},
		Cluster:   v1alpha1.ClusterSettings{VirtualIPSubnet: "211.55.48.0/20"},
		ProxyVia:  []v1alpha1.ProxyVia{{Subnet: "+pods", Workload: "gateway"}, {Subnet: "+10.130.0.0/17", Workload: "gateway"}},
		DNS:       v1alpha1.DNSSettings{Namespaces: []string{"shop", "kube-system"}, IncludeSuffixes: []string{"corp.example"}, LookupTimeout: "1.5s"},
		Transport: v1alpha1.TransportSettings{MTU: 1380},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	for key, place := range map[string]string{
		"routing.allowConflictingSubnets":    "culvert.yaml:3",
		"routing.alsoProxySubnets[0]":        "culvert.yaml:5",
		"cluster.virtualIPv6Subnet":          "culvert.yaml:7",
		"proxyVia":                           "culvert.yaml:8",
		"proxyVia[1]":                        "culvert.yaml:10",
		"transport.mtu":                      "culvert.yaml:15",
		"routing.allowConflictingSubnets[1]": "culvert.yaml:3",
	} {
		if got := at[key].String(); got != place {
			t.Errorf("%s was written at %s, want %s", key, got, place)
		}
	}
}

func TestDecodeSaysNothing(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n", "empty document": "---\n", "empty sections": "routing:\ndns: {}\ntransport: null\n",
	} {
		t.Run(name, func(t *testing.T) {
			s, at, err := Decode("f", []byte(text))
			if err != nil || !reflect.DeepEqual(s, v1alpha1.Settings{}) || len(at) > 0 {
				t.Errorf("got %+v, %v, %v", s, at, err)
			}
		})
	}
}

// TestDecodeEmptyListIsSaid: an empty list replaces the team's, a list that is not there does not.
func TestDecodeEmptyListIsSaid(t *testing.T) {
	s, _, err := Decode("f", []byte("routing: {alsoProxySubnets: []}"))
	if err != nil || s.Routing.AlsoProxySubnets == nil || s.Routing.NeverProxySubnets != nil {
		t.Errorf("got %#v, %v", s.Routing, err)
	}
}

func TestDecodeErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown section, nearly right": {
			"rooting:\n  alsoProxySubnets: []",
			"f:1: rooting: unknown key; did you mean routing? accepted keys: routing, cluster, proxyVia, dns, transport, enforce",
		},
		"unknown key, unfinished": {
			"routing:\n  alsoProxy: [10.0.0.0/8]",
			"f:2: routing.alsoProxy: unknown key; did you mean routing.alsoProxySubnets? accepted keys: allowConflictingSubnets, alsoProxySubnets, neverProxySubnets, onConflict, conflicts",
		},
		"unknown key, wrong case": {
			"transport: {MTU: 1400}",
			"f:1: transport.MTU: unknown key; did you mean transport.mtu? accepted keys: mtu",
		},
		"unknown key, like nothing": {
			"transport: {colour: red}",
			"f:1: transport.colour: unknown key; accepted keys: mtu",
		},
		"a key of a later version": {
			"cluster: {virtualIPSubnets: [246.0.0.0/8]}",
			"f:1: cluster.virtualIPSubnets: unknown key; did you mean cluster.virtualIPSubnet? accepted keys: virtualIPSubnet, virtualIPv6Subnet, serviceSubnets, podSubnets",
		},
		"a word of a later version": {
			"routing: {onConflict: virtualise}",
			`f:1: routing.onConflict: "virtualise" is not one of error, yield, virtualize; did you mean virtualize?`,
		},
		"a word for rules only": {
			"routing: {onConflict: allow}",
			`f:1: routing.onConflict: "allow" is not one of error, yield, virtualize`,
		},
		"a list for a prefix": {
			"cluster:\n  virtualIPSubnet: [246.0.0.0/8]",
			"f:2: cluster.virtualIPSubnet: is a list, but wants one prefix, such as 246.0.0.0/8",
		},
		"an empty prefix": {
			"cluster: {virtualIPv6Subnet: }",
			"f:1: cluster.virtualIPv6Subnet: is empty, but wants one prefix, such as fd00:246::/48",
		},
		"a workload that cannot be used": {
			"proxyVia:\n- {subnet: all, workload: echo}",
			`f:2: proxyVia[0]: "echo" is not a workload that can be used; use gateway`,
		},
		"no workload": {
			"proxyVia: [{subnet: all}]",
			"f:1: proxyVia[0]: has no workload; write {subnet: all, workload: gateway}",
		},
		"proxy-via as a flag has it": {
			"proxyVia: [all=gateway]",
			`f:1: proxyVia[0]: is "all=gateway", but wants {subnet: ..., workload: ...}`,
		},
		"proxy-via as a mapping": {
			"proxyVia: {all: gateway}",
			"f:1: proxyVia: is a mapping, but wants a list of {subnet, workload}, such as [{subnet: all, workload: gateway}]",
		},
		"a key too many of proxy-via": {
			"proxyVia: [{subnet: all, resolve: allow}]",
			"f:1: proxyVia[0].resolve: unknown key; accepted keys: subnet, workload",
		},
		"a subnet twice": {
			"proxyVia:\n- {subnet: pods, workload: gateway}\n- {subnet: pods, workload: gateway}",
			"f:3: proxyVia[1]: pods=gateway repeats pods=gateway (f:2); an address can be reached in one way only, so leave one of them out",
		},
		"a prefix inside another": {
			"proxyVia:\n- {subnet: 10.132.64.0/18, workload: gateway}\n- {subnet: 10.132.0.0/16, workload: gateway}",
			"f:3: proxyVia[1]: 10.132.0.0/16=gateway overlaps 10.132.64.0/18=gateway (f:2); an address can be reached in one way only, so leave one of them out",
		},
		"all and one of them": {
			"proxyVia:\n- {subnet: +service, workload: gateway}\n- {subnet: +all, workload: gateway}",
			"f:3: proxyVia[1]: all=gateway overlaps service=gateway (f:2); an address can be reached in one way only, so leave one of them out",
		},
		"everything through a workload": {
			"proxyVia: [{subnet: 0.0.0.0/0, workload: gateway}]",
			`f:1: proxyVia[0]: "0.0.0.0/0" is a default route; the tunnel takes prefixes of the cluster only`,
		},
		"a conflict without a resolution": {
			"routing:\n  conflicts:\n  - {subnet: 10.0.0.0/8}",
			"f:3: routing.conflicts[0]: has no resolve; write {subnet: 10.132.64.0/18, resolve: yield}",
		},
		"a conflict with a key too many": {
			"routing:\n  conflicts:\n  - {subnet: 10.0.0.0/8, resolve: allow, why: x}",
			"f:3: routing.conflicts[0].why: unknown key; accepted keys: subnet, resolve",
		},
		"a conflict resolved in an unknown way": {
			"routing: {conflicts: [{subnet: 10.0.0.0/8, resolve: alow}]}",
			`f:1: routing.conflicts[0]: "alow" is not one of allow, yield, virtualize; did you mean allow?`,
		},
		"a conflict as a flag has it": {
			"routing: {conflicts: [10.0.0.0/8=allow]}",
			`f:1: routing.conflicts[0]: is "10.0.0.0/8=allow", but wants {subnet: ..., resolve: ...}`,
		},
		"a symbol, nearly right": {
			"routing: {allowConflictingSubnets: [services]}",
			`f:1: routing.allowConflictingSubnets[0]: "services" is neither a prefix nor one of the symbols service, pods, also, all; did you mean service? write 10.128.0.0/9, for example`,
		},
		"a key that cannot be enforced": {
			"enforce: [routing.onConflicts]",
			`f:1: enforce[0]: "routing.onConflicts" is not one of ` + strings.Join(enforceablePaths(), ", ") + "; did you mean routing.onConflict?",
		},
		"a key twice": {
			"dns:\n  namespaces: [a]\n  namespaces: [b]",
			"f:3: dns.namespaces: is here a second time; it was set on line 2",
		},
		"a section twice": {
			"dns:\n  namespaces: [a]\ndns: {}",
			"f:3: dns: is here a second time; it was set on line 1",
		},
		"host bits": {
			"routing:\n  alsoProxySubnets:\n    - 192.0.2.0/24\n    - 192.0.2.9/24",
			`f:4: routing.alsoProxySubnets[1]: "192.0.2.9/24" has bits set behind its length of 24; write 192.0.2.0/24`,
		},
		"an address": {
			"routing: {neverProxySubnets: [10.1.2.3]}",
			`f:1: routing.neverProxySubnets[0]: "10.1.2.3" is an address, not a prefix; for this one address write 10.1.2.3/32`,
		},
		"a name": {
			"routing: {neverProxySubnets: [pods]}",
			`f:1: routing.neverProxySubnets[0]: "pods" is not a prefix; write an address and a length, such as 10.128.0.0/9 or fd00:1::/48`,
		},
		"IPv4 as IPv6": {
			"cluster: {podSubnets: ['::ffff:10.0.0.0/104']}",
			`f:1: cluster.podSubnets[0]: "::ffff:10.0.0.0/104" is an IPv4 prefix in IPv6 form; write 10.0.0.0/8`,
		},
		"everything": {
			"routing: {alsoProxySubnets: [0.0.0.0/0]}",
			`f:1: routing.alsoProxySubnets[0]: "0.0.0.0/0" is a default route; the tunnel takes prefixes of the cluster only`,
		},
		"loopback": {
			"routing: {alsoProxySubnets: [127.0.0.0/16]}",
			`f:1: routing.alsoProxySubnets[0]: "127.0.0.0/16" cannot be routed into a tunnel: loopback (RFC 1122, section 3.2.1.3)`,
		},
		"a text instead of a list": {
			"routing:\n  alsoProxySubnets: 10.0.0.0/8",
			`f:2: routing.alsoProxySubnets: is "10.0.0.0/8", but wants a list of prefixes, such as [192.0.2.0/24]`,
		},
		"a list instead of a section": {
			"routing: [a]",
			"f:1: routing: is a list, but holds keys: allowConflictingSubnets, alsoProxySubnets, neverProxySubnets, onConflict, conflicts",
		},
		"a list instead of a file": {
			"- routing",
			"f:1: is a list, but holds keys: routing, cluster, proxyVia, dns, transport, enforce",
		},
		"a number for a name": {
			"dns: {namespaces: [123]}",
			`f:1: dns.namespaces[0]: is the number 123, but wants a text, such as "shop"`,
		},
		"an entry that is a mapping": {
			"dns: {namespaces: [{a: b}]}",
			`f:1: dns.namespaces[0]: is a mapping, but wants a text, such as "shop"`,
		},
		"empty value": {
			"dns:\n  lookupTimeout:\n",
			"f:2: dns.lookupTimeout: is empty, but wants one duration, such as 2s",
		},
		"a duration without a unit": {
			"dns: {lookupTimeout: 4}",
			`f:1: dns.lookupTimeout: "4" is not a duration between 100ms and 1m0s; write a number with a unit, such as 4s or 500ms`,
		},
		"a quoted number": {
			"transport: {mtu: '1400'}",
			`f:1: transport.mtu: is "1400", but wants one integer, such as 1380`,
		},
		"a number out of bounds": {
			"transport: {mtu: 1200}",
			`f:1: transport.mtu: "1200" is not an MTU; write a number of bytes between 1280 and 9000, or 0 to derive it from the route`,
		},
		"a namespace with a capital": {
			"dns: {namespaces: [Shop]}",
			`f:1: dns.namespaces[0]: "Shop" is not the name of a namespace; use lower-case letters, digits and '-', at most 63`,
		},
		"the root zone": {
			"dns: {includeSuffixes: [.]}",
			`f:1: dns.includeSuffixes[0]: "." is the root; name a domain, such as corp.example`,
		},
		"a bad domain": {
			"dns: {includeSuffixes: [a..b]}",
			`f:1: dns.includeSuffixes[0]: "a..b" is not a domain; write labels of letters, digits and '-' joined by dots, such as corp.example`,
		},
		"some entries extend, some replace": {
			"dns: {namespaces: [+a, b]}",
			`f:1: dns.namespaces[1]: "b": either all entries begin with "+", which extends the list of lower precedence, or none does, which replaces it`,
		},
		"a key that is a list": {
			"dns: {[a]: b}",
			"f:1: dns: has a key that is a list; accepted keys: namespaces, includeSuffixes, lookupTimeout",
		},
		"a second document": {
			"dns: {}\n---\ndns: {}",
			"f:2: is a second document; settings are one document, remove the line '---'",
		},
		"no YAML": {
			"dns: [a\nrouting: {}",
			"f:1: not valid YAML: did not find expected ',' or ']'",
		},
		"a tab": {
			"dns:\n\tnamespaces: []",
			"f:2: not valid YAML: found character that cannot start any token",
		},
		"no text at all": {
			"\x00\x01", "f: not valid YAML: control characters are not allowed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, at, err := Decode("f", []byte(tc.text))
			if err == nil {
				t.Fatalf("accepted as %+v", s)
			}
			if err.Error() != tc.want {
				t.Errorf("\ngot  %s\nwant %s", err, tc.want)
			}
			if !reflect.DeepEqual(s, v1alpha1.Settings{}) || at != nil {
				t.Errorf("an error, and yet %+v, %v", s, at)
			}
			var se *SettingError
			if !errors.As(err, &se) {
				t.Error("no *SettingError")
			}
		})
	}
}

func TestDecodeNamesAllProblems(t *testing.T) {
	_, _, err := Decode("f", []byte("rooting: {}\ntransport: {mtu: 1}\ndns: {namespaces: [A, b, C]}"))
	if n := len(strings.Split(err.Error(), "\n")); n != 4 {
		t.Errorf("%d problems, want 4:\n%v", n, err)
	}
}

func TestDecodeAliases(t *testing.T) {
	s, _, err := Decode("f", []byte("dns: {namespaces: &n [a, b], includeSuffixes: *n}"))
	if err != nil || len(s.DNS.IncludeSuffixes) != 2 {
		t.Errorf("got %+v, %v", s.DNS, err)
	}
}

// FuzzDecode: whatever the text, no panic; on error nothing is returned; what is accepted is in
// normal form, so that it validates and merges to the same again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(goodFile))
	f.Add([]byte("routing: {alsoProxySubnets: [&a 10.0.0.0/8, *a]}"))
	f.Add([]byte("dns: &d\n  ? [a]\n  : *d\n"))
	f.Add([]byte("proxyVia: [&v {subnet: pods, workload: gateway}, {subnet: 'fd00::/8', workload: gateway}]"))
	f.Add([]byte("proxyVia: [{subnet: +all, workload: gateway}, *v]"))
	f.Add([]byte("enforce: [proxyVia, cluster.virtualIPSubnet]"))
	f.Add([]byte("cluster: {virtualIPSubnet: 240.0.0.0/4, virtualIPv6Subnet: 'FD00::/48'}"))
	f.Add([]byte("routing: {onConflict: virtualize, conflicts: [{subnet: ' 10.0.0.0/8', resolve: 'virtualize '}]}"))
	f.Add([]byte("transport: {mtu: 0x578}"))
	f.Add([]byte("transport: {mtu: 1_400}"))
	f.Add([]byte("!!binary dns: {lookupTimeout: 1h}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, at, err := Decode("f", data)
		if err != nil {
			if !reflect.DeepEqual(s, v1alpha1.Settings{}) || at != nil || err.Error() == "" {
				t.Errorf("error %q, and yet %+v, %v", err, s, at)
			}
			return
		}
		again, err := Validate("f", s)
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("accepted %+v, but validation gives %+v, %v", s, again, err)
		}
		if _, _, err := Merge(Layer{Source: SourcePolicy, Settings: s, Positions: at}); err != nil { // the one that may say enforce
			t.Errorf("accepted %+v, but it does not merge: %v", s, err)
		}
	})
}
