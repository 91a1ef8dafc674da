package policy

import (
	"reflect"
	"strings"
	"testing"
)

const vpn = office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0"

func TestConsent(t *testing.T) {
	for name, tc := range map[string]struct {
		host, file, policy string
		takes              []string
	}{
		"no Policy to speak of": {vpn, "", "dns: {namespaces: [shop]}", nil},
		"a prefix taken from a VPN": {vpn, "", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", []string{
			"take 10.130.0.0/16 (services) from 10.0.0.0/8 on tun0 (OpenVPN, table main)",
			"take 10.132.0.0/16 (pods) from 10.0.0.0/8 on tun0 (OpenVPN, table main)",
		}},
		"one of two subnets": {vpn, "", "routing: {allowConflictingSubnets: [10.132.0.0/16]}", []string{
			"take 10.132.0.0/16 (pods) from 10.0.0.0/8 on tun0 (OpenVPN, table main)",
		}},
		"a prefix that the user would hide": {vpn, "routing: {onConflict: virtualize}", "routing: {allowConflictingSubnets: [10.132.0.0/16]}", []string{
			"take 10.132.0.0/16 (pods) from 10.0.0.0/8 on tun0 (OpenVPN, table main)",
		}},
		"nothing to take it from":           {office, "", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", nil},
		"the user says the same":            {vpn, "routing: {allowConflictingSubnets: [+10.128.0.0/9]}", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", nil},
		"the user says otherwise":           {vpn, "routing: {allowConflictingSubnets: []}", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", nil},
		"the user keeps it":                 {vpn, "routing: {neverProxySubnets: [10.0.0.0/8]}", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", nil},
		"never-proxied takes nothing":       {vpn, "", "routing: {neverProxySubnets: [10.128.0.0/9]}", nil},
		"virtual addresses take nothing":    {vpn, "", "routing: {onConflict: virtualize, conflicts: [{subnet: service, resolve: virtualize}]}\nproxyVia: [{subnet: 10.20.0.0/16, workload: gateway}]\ncluster: {virtualIPSubnet: 211.55.48.0/20}", nil},
		"an also-proxied prefix outside":    {office, "", "routing: {alsoProxySubnets: [192.0.2.0/24]}", []string{"send 192.0.2.0/24 through the cluster"}},
		"an also-proxied prefix inside":     {office, "", "routing: {alsoProxySubnets: [10.130.4.0/24]}", nil},
		"an also-proxied prefix of a VPN's": {vpn, "", "routing: {alsoProxySubnets: [10.20.0.0/16], allowConflictingSubnets: [10.20.0.0/16]}", []string{"take 10.20.0.0/16 (also) from 10.0.0.0/8 on tun0 (OpenVPN, table main)", "send 10.20.0.0/16 through the cluster"}},
		"a domain outside the cluster":      {office, "", "dns: {includeSuffixes: [corp.example]}", []string{"ask the cluster for the names in corp.example"}},
		"a domain of the cluster":           {office, "", "dns: {includeSuffixes: [shop.svc.cluster.local, cluster.local]}", nil},
		"a domain that only looks alike":    {office, "", "dns: {includeSuffixes: [evilcluster.local]}", []string{"ask the cluster for the names in evilcluster.local"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := Merge(layer(t, SourceFile, tc.file), layer(t, SourcePolicy, tc.policy))
			if err != nil {
				t.Fatal(err)
			}
			c := ConsentNeeded(Input{Settings: s, Cluster: lab, Facts: host(t, tc.host), Virtual: Virtual{V4: DefaultVirtualSubnet}})
			if !reflect.DeepEqual(c.Takes, tc.takes) || c.Needed != (len(tc.takes) > 0) {
				t.Errorf("needed %v, takes %q\nwant %q", c.Needed, c.Takes, tc.takes)
			}
			if c.Needed && (c.Hash == "" || c.Text == "") {
				t.Errorf("no hash or text: %+v", c)
			}
		})
	}
}

func TestConsentHash(t *testing.T) {
	hash := func(uid, host_, policy string) string {
		s, _, err := Merge(layer(t, SourcePolicy, policy))
		if err != nil {
			t.Fatal(err)
		}
		c := lab
		c.UID = uid
		return ConsentNeeded(Input{Settings: s, Cluster: c, Facts: host(t, host_)}).Hash
	}
	const two = "routing: {allowConflictingSubnets: [10.128.0.0/9, 10.20.0.0/16]}"
	first := hash("a", vpn, two)
	if hash("a", office, two) != first {
		t.Error("the hash depends on the host")
	}
	if hash("a", vpn, "# new\ntransport: {mtu: 1400}\nrouting: {allowConflictingSubnets: [10.20.0.0/16, 10.128.0.0/9]}") != first {
		t.Error("the hash depends on order, comments or what takes nothing")
	}
	for name, other := range map[string]string{
		"another cluster": hash("b", vpn, two),
		"more":            hash("a", vpn, "routing: {allowConflictingSubnets: [10.128.0.0/9, 10.20.0.0/16, 10.30.0.0/16]}"),
		"less":            hash("a", vpn, "routing: {allowConflictingSubnets: [10.128.0.0/9]}"),
		"another meaning": hash("a", vpn, "routing: {alsoProxySubnets: [10.128.0.0/9, 10.20.0.0/16]}"),
		"a domain more":   hash("a", vpn, two+"\ndns: {includeSuffixes: [corp.example]}"),
	} {
		if other == first {
			t.Errorf("%s has the same hash", name)
		}
	}
}

func TestConsentText(t *testing.T) {
	s, _, err := Merge(layer(t, SourcePolicy, "routing: {allowConflictingSubnets: [10.128.0.0/9]}\ndns: {includeSuffixes: [corp.example]}"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "consent", ConsentNeeded(Input{Settings: s, Cluster: lab, Facts: host(t, vpn)}).Text)
}

// TestWithout: who has not agreed still gets what the Policy leaves alone.
func TestWithout(t *testing.T) {
	s, _, err := Merge(
		layer(t, SourceFile, "routing: {alsoProxySubnets: [+198.51.100.0/24]}"),
		layer(t, SourcePolicy, "routing: {allowConflictingSubnets: [10.128.0.0/9], alsoProxySubnets: [192.0.2.0/24], neverProxySubnets: [10.130.0.9/32],\n"+
			"  conflicts: [{subnet: service, resolve: virtualize}]}\nproxyVia: [{subnet: pods, workload: gateway}]\ndns: {includeSuffixes: [corp.example]}"))
	if err != nil {
		t.Fatal(err)
	}
	left := s.Without(SourcePolicy)
	want := []string{"via pods policy policy.yaml:3", "virtualize service policy policy.yaml:2", "never 10.130.0.9/32 policy policy.yaml:1", "also 198.51.100.0/24 file file.yaml:1"}
	if got := ruleTexts(left.Routing); !reflect.DeepEqual(got, want) || len(left.DNS.IncludeSuffixes) > 0 {
		t.Errorf("got %q and %v", got, left.DNS.IncludeSuffixes)
	}
	if len(s.Routing) != 6 || len(s.DNS.IncludeSuffixes) != 1 {
		t.Error("the settings themselves were changed")
	}
	if c := ConsentNeeded(Input{Settings: left, Cluster: lab, Facts: host(t, vpn)}); c.Needed {
		t.Errorf("consent is still needed: %q", c.Takes)
	}
}

func TestTakesNoMore(t *testing.T) {
	const old = "routing: {allowConflictingSubnets: [10.128.0.0/9, service], alsoProxySubnets: [192.0.2.0/24]}\ndns: {includeSuffixes: [corp.example]}"
	grown := cluster("10.64.0.0/10", "10.132.0.0/16")
	for name, tc := range map[string]struct {
		text    string
		cluster Cluster
		want    bool
	}{
		"the same":                         {old, lab, true},
		"nothing":                          {"", lab, true},
		"one rule less":                    {"routing: {allowConflictingSubnets: [service]}", lab, true},
		"what takes nothing":               {"routing: {neverProxySubnets: [10.0.0.0/8], onConflict: yield, conflicts: [{subnet: 172.16.0.0/12, resolve: yield}]}", lab, true},
		"the same in the words of another": {"routing: {conflicts: [{subnet: 10.128.0.0/9, resolve: allow}]}", lab, true},
		// The more specific wins against a yield, a never or a LAN where the wider did not.
		"a part":                       {"routing: {allowConflictingSubnets: [10.132.0.0/16]}", lab, false},
		"more":                         {"routing: {allowConflictingSubnets: [10.0.0.0/8]}", lab, false},
		"another symbol":               {"routing: {allowConflictingSubnets: [pods]}", lab, false},
		"the same in a grown cluster":  {old, grown, false},
		"also for allow":               {"routing: {alsoProxySubnets: [10.128.0.0/9]}", lab, false},
		"a name inside the cluster":    {"dns: {includeSuffixes: [corp.example, svc.cluster.local]}", lab, true},
		"a wider domain":               {"dns: {includeSuffixes: [example]}", lab, false},
		"a domain inside the one said": {"dns: {includeSuffixes: [a.corp.example]}", lab, false},
	} {
		merged := func(text string) Settings {
			s, _, err := Merge(layer(t, SourcePolicy, text))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		if got := TakesNoMore(merged(tc.text), tc.cluster, merged(old), lab); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestConsentCannotBeGotAround: what a Policy takes needs a yes, whatever words it is said in.
func TestConsentCannotBeGotAround(t *testing.T) {
	in := func(user, team string, c Cluster, facts string) Input {
		s, _, err := Merge(layer(t, SourceFile, user), layer(t, SourcePolicy, team))
		if err != nil {
			t.Fatal(err)
		}
		return Input{Settings: s, Cluster: c, Facts: host(t, facts)}
	}
	also := in("routing: {neverProxySubnets: [10.130.0.0/16]}", "routing: {alsoProxySubnets: [10.130.0.0/17]}", lab, office)
	if c := ConsentNeeded(also); !c.Needed || !strings.Contains(c.Text, "10.130.0.0/17") {
		t.Errorf("a Policy that sends what the user never proxies: %+v", c)
	}
	vpn := office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0"
	small := in("", "routing: {allowConflictingSubnets: [service]}", cluster("10.130.0.0/16"), vpn)
	large := in("", "routing: {allowConflictingSubnets: [service]}", cluster("10.64.0.0/10"), vpn)
	if a, b := ConsentNeeded(small), ConsentNeeded(large); a.Hash == b.Hash || !b.Needed {
		t.Errorf("services that grow are what was agreed to: %+v", b)
	}
}
