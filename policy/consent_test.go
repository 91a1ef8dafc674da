package policy

import (
	"reflect"
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
		"nothing to take it from":           {office, "", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", nil},
		"the user says the same":            {vpn, "routing: {allowConflictingSubnets: [+10.128.0.0/9]}", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", nil},
		"the user says otherwise":           {vpn, "routing: {allowConflictingSubnets: []}", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", nil},
		"the user keeps it":                 {vpn, "routing: {neverProxySubnets: [10.0.0.0/8]}", "routing: {allowConflictingSubnets: [10.128.0.0/9]}", nil},
		"never-proxied takes nothing":       {vpn, "", "routing: {neverProxySubnets: [10.128.0.0/9]}", nil},
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
			c := ConsentNeeded(Input{Settings: s, Cluster: lab, Facts: host(t, tc.host)})
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
		layer(t, SourcePolicy, "routing: {allowConflictingSubnets: [10.128.0.0/9], alsoProxySubnets: [192.0.2.0/24], neverProxySubnets: [10.130.0.9/32]}\ndns: {includeSuffixes: [corp.example]}"))
	if err != nil {
		t.Fatal(err)
	}
	left := s.Without(SourcePolicy)
	want := []string{"never 10.130.0.9/32 policy policy.yaml:1", "also 198.51.100.0/24 file file.yaml:1"}
	if got := ruleTexts(left.Routing); !reflect.DeepEqual(got, want) || len(left.DNS.IncludeSuffixes) > 0 {
		t.Errorf("got %q and %v", got, left.DNS.IncludeSuffixes)
	}
	if len(s.Routing) != 4 || len(s.DNS.IncludeSuffixes) != 1 {
		t.Error("the settings themselves were changed")
	}
	if c := ConsentNeeded(Input{Settings: left, Cluster: lab, Facts: host(t, vpn)}); c.Needed {
		t.Errorf("consent is still needed: %q", c.Takes)
	}
}

func TestTakesNoMore(t *testing.T) {
	const old = "routing: {allowConflictingSubnets: [10.128.0.0/9, service], alsoProxySubnets: [192.0.2.0/24]}\ndns: {includeSuffixes: [corp.example]}"
	for text, want := range map[string]bool{
		old: true,
		"":  true,
		"routing: {allowConflictingSubnets: [10.132.0.0/16]}":                                                      true,
		"routing: {allowConflictingSubnets: [service], neverProxySubnets: [10.0.0.0/8], onConflict: yield}":        true,
		"routing: {allowConflictingSubnets: [10.0.0.0/8]}":                                                         false,
		"routing: {allowConflictingSubnets: [pods]}":                                                               false,
		"routing: {alsoProxySubnets: [10.132.0.0/16]}":                                                             false,
		"dns: {includeSuffixes: [a.corp.example, svc.cluster.local]}":                                              true,
		"dns: {includeSuffixes: [example]}":                                                                        false,
		"routing: {conflicts: [{subnet: 10.132.0.0/16, resolve: allow}, {subnet: 172.16.0.0/12, resolve: yield}]}": true,
	} {
		merged := func(text string) Settings {
			s, _, err := Merge(layer(t, SourcePolicy, text))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		if got := TakesNoMore(merged(text), merged(old), lab); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
