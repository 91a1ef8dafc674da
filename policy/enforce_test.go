package policy

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// TestEnforceOnlyNarrows: what the team enforces cannot be loosened by the user, but tightened, and
// what was cut back is said.
func TestEnforceOnlyNarrows(t *testing.T) {
	for name, tc := range map[string]struct {
		user, policy string
		want         []string
		onConflict   Resolve
		narrowed     string // KEY VALUE, joined by commas
	}{
		"not enforced: the user decides": {
			user: "routing: {allowConflictingSubnets: [10.0.0.0/8]}", policy: "routing: {allowConflictingSubnets: [10.128.0.0/9]}",
			want: []string{"allow 10.0.0.0/8 file file.yaml:1"},
		},
		"a wider prefix is cut back to the team's": {
			user: "routing: {allowConflictingSubnets: [10.0.0.0/8]}", policy: "routing: {allowConflictingSubnets: [10.128.0.0/9]}\nenforce: [routing.allowConflictingSubnets]",
			want: []string{"allow 10.128.0.0/9 file file.yaml:1"}, narrowed: "routing.allowConflictingSubnets 10.0.0.0/8",
		},
		"a narrower prefix is the user's right": {
			user: "routing: {allowConflictingSubnets: [10.130.0.0/16]}", policy: "routing: {allowConflictingSubnets: [10.128.0.0/9]}\nenforce: [routing.allowConflictingSubnets]",
			want: []string{"allow 10.130.0.0/16 file file.yaml:1"},
		},
		"one elsewhere goes": {
			user: "routing: {allowConflictingSubnets: [172.16.0.0/12, 10.130.0.0/16]}", policy: "routing: {allowConflictingSubnets: [10.128.0.0/9]}\nenforce: [routing.allowConflictingSubnets]",
			want: []string{"allow 10.130.0.0/16 file file.yaml:1"}, narrowed: "routing.allowConflictingSubnets 172.16.0.0/12",
		},
		"nothing is enforced to be allowed": {
			user: "routing: {allowConflictingSubnets: [all]}", policy: "enforce: [routing.allowConflictingSubnets]",
			narrowed: "routing.allowConflictingSubnets all",
		},
		"a symbol inside all": {
			user: "routing: {allowConflictingSubnets: [pods]}", policy: "routing: {allowConflictingSubnets: [all]}\nenforce: [routing.allowConflictingSubnets]",
			want: []string{"allow pods file file.yaml:1"},
		},
		"what the team leaves alone stays left alone": {
			user: "routing: {neverProxySubnets: [10.1.0.0/16]}", policy: "routing: {neverProxySubnets: [10.2.0.0/16]}\nenforce: [routing.neverProxySubnets]",
			want: []string{"never 10.1.0.0/16 file file.yaml:1", "never 10.2.0.0/16 policy policy.yaml:1"},
		},
		"the stricter word counts": {
			user: "routing: {onConflict: yield}", policy: "enforce: [routing.onConflict]",
			onConflict: ResolveError, narrowed: "routing.onConflict yield",
		},
		"stricter than the team is allowed": {
			user: "routing: {onConflict: error}", policy: "routing: {onConflict: yield}\nenforce: [routing.onConflict]",
			onConflict: ResolveError,
		},
		"the team's word without the user's": {policy: "routing: {onConflict: yield}\nenforce: [routing.onConflict]", onConflict: ResolveYield},
		"a yield always stands, an allow inside the team's": {
			user:   "routing: {conflicts: [{subnet: 10.1.0.0/16, resolve: yield}, {subnet: 10.2.0.0/16, resolve: allow}, {subnet: 10.3.0.0/16, resolve: allow}]}",
			policy: "routing: {conflicts: [{subnet: 10.2.0.0/15, resolve: allow}, {subnet: 10.4.0.0/16, resolve: yield}]}\nenforce: [routing.conflicts]",
			want: []string{"yield 10.1.0.0/16 file file.yaml:1", "allow 10.2.0.0/15 policy policy.yaml:1", "allow 10.2.0.0/16 file file.yaml:1",
				"allow 10.3.0.0/16 file file.yaml:1", "yield 10.4.0.0/16 policy policy.yaml:1"},
		},
		"yield and virtualize are not the team's": {
			user: "routing: {onConflict: virtualize}", policy: "routing: {onConflict: yield}\nenforce: [routing.onConflict]",
			onConflict: ResolveYield, narrowed: "routing.onConflict virtualize",
		},
		"nor the other way round": {
			user: "routing: {onConflict: yield}", policy: "routing: {onConflict: virtualize}\nenforce: [routing.onConflict]",
			onConflict: ResolveVirtualize, narrowed: "routing.onConflict yield",
		},
		"an error is stricter than virtual addresses": {
			user: "routing: {onConflict: error}", policy: "routing: {onConflict: virtualize}\nenforce: [routing.onConflict]",
			onConflict: ResolveError,
		},
		"a virtualize always stands": {
			user:   "routing: {conflicts: [{subnet: 10.1.0.0/16, resolve: virtualize}, {subnet: 10.4.1.0/24, resolve: virtualize}]}",
			policy: "routing: {conflicts: [{subnet: 10.4.0.0/16, resolve: yield}]}\nenforce: [routing.conflicts]",
			want:   []string{"virtualize 10.1.0.0/16 file file.yaml:1", "yield 10.4.0.0/16 policy policy.yaml:1", "virtualize 10.4.1.0/24 file file.yaml:1"},
		},
		"a virtualize against the team's yield": {
			user:   "routing: {conflicts: [{subnet: 10.4.0.0/16, resolve: virtualize}]}",
			policy: "routing: {conflicts: [{subnet: 10.4.0.0/16, resolve: yield}]}\nenforce: [routing.conflicts]",
			want:   []string{"virtualize 10.4.0.0/16 file file.yaml:1"},
		},
		"a yield against the team's allow": {
			user:   "routing: {conflicts: [{subnet: 10.4.0.0/16, resolve: yield}]}",
			policy: "routing: {allowConflictingSubnets: [10.4.0.0/16]}\nenforce: [routing.allowConflictingSubnets]",
			want:   []string{"yield 10.4.0.0/16 file file.yaml:1"},
		},
		"an allow against the team's virtualize": {
			user:   "routing: {conflicts: [{subnet: 10.4.1.0/24, resolve: allow}, {subnet: pods, resolve: allow}]}",
			policy: "routing: {conflicts: [{subnet: all, resolve: allow}, {subnet: 10.0.0.0/8, resolve: allow}, {subnet: 10.4.0.0/16, resolve: virtualize}, {subnet: pods, resolve: virtualize}]}\nenforce: [routing.conflicts]",
			want: []string{"allow all policy policy.yaml:1", "virtualize pods policy policy.yaml:1",
				"allow 10.0.0.0/8 policy policy.yaml:1", "virtualize 10.4.0.0/16 policy policy.yaml:1"},
			narrowed: "routing.conflicts allow 10.4.1.0/24",
		},
		"an allow against the team's yield": {
			user:   "routing: {conflicts: [{subnet: 10.4.0.0/16, resolve: allow}]}",
			policy: "routing: {conflicts: [{subnet: 10.4.0.0/16, resolve: yield}]}\nenforce: [routing.conflicts]",
			want:   []string{"yield 10.4.0.0/16 policy policy.yaml:1"}, narrowed: "routing.conflicts 10.4.0.0/16=allow",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := Merge(layer(t, SourceFile, tc.user), layer(t, SourcePolicy, tc.policy))
			if err != nil {
				t.Fatal(err)
			}
			if got := ruleTexts(s.Routing); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			if tc.onConflict != "" && s.OnConflict != tc.onConflict {
				t.Errorf("onConflict %q from %s, want %q", s.OnConflict, s.OnConflictFrom, tc.onConflict)
			}
			var narrowed []string
			for _, n := range s.Narrowed {
				narrowed = append(narrowed, n.Key+" "+n.Value)
			}
			if got := strings.Join(narrowed, ","); got != tc.narrowed {
				t.Errorf("narrowed %q, want %q", got, tc.narrowed)
			}
		})
	}
}

// TestEnforceVirtualSubnets: the team's prefix is in force, and so is its wish that a free one be found.
func TestEnforceVirtualSubnets(t *testing.T) {
	for name, tc := range map[string]struct{ user, policy, want, narrowed string }{
		"not enforced":         {"cluster: {virtualIPSubnet: 211.55.48.0/20}", "cluster: {virtualIPSubnet: 247.0.0.0/8}", "211.55.48.0/20", ""},
		"the user finds one":   {`cluster: {virtualIPSubnet: ""}`, "cluster: {virtualIPSubnet: 247.0.0.0/8}", "invalid Prefix", ""},
		"the team's":           {"cluster: {virtualIPSubnet: 211.55.48.0/20}", "cluster: {virtualIPSubnet: 247.0.0.0/8}\nenforce: [cluster.virtualIPSubnet]", "247.0.0.0/8", "cluster.virtualIPSubnet 211.55.48.0/20 (file file.yaml:1) goes beyond what policy.yaml:1 enforces and is cut back to that"},
		"the team's over none": {`cluster: {virtualIPSubnet: ""}`, "cluster: {virtualIPSubnet: 247.0.0.0/8}\nenforce: [cluster.virtualIPSubnet]", "247.0.0.0/8", `cluster.virtualIPSubnet "" (file file.yaml:1) goes beyond what policy.yaml:1 enforces and is cut back to that`},
		"the team finds one":   {"cluster: {virtualIPSubnet: 211.55.48.0/20}", "enforce: [cluster.virtualIPSubnet]", "invalid Prefix", "cluster.virtualIPSubnet 211.55.48.0/20 (file file.yaml:1) goes beyond what policy.yaml enforces and is cut back to that"},
	} {
		s, _, err := Merge(layer(t, SourceFile, tc.user), layer(t, SourcePolicy, tc.policy))
		var narrowed []string
		for _, n := range s.Narrowed {
			narrowed = append(narrowed, n.String())
		}
		if err != nil || s.VirtualSubnet.String() != tc.want || strings.Join(narrowed, ",") != tc.narrowed {
			t.Errorf("%s: %s, narrowed %q, %v; want %s, %q", name, s.VirtualSubnet, narrowed, err, tc.want, tc.narrowed)
		}
	}
}

func TestEnforceOfOtherKeys(t *testing.T) {
	s, _, err := Merge(
		layer(t, SourceFile, "dns: {namespaces: [shop, own], includeSuffixes: [corp.example, a.team.example], lookupTimeout: 1s}\ntransport: {mtu: 1400}"),
		layer(t, SourcePolicy, "dns: {namespaces: [shop], includeSuffixes: [team.example]}\nenforce: [dns.namespaces, dns.includeSuffixes, dns.lookupTimeout, transport.mtu]"),
	)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.DNS.Namespaces, ","); got != "shop" {
		t.Errorf("namespaces %s", got)
	}
	if x := s.DNS.IncludeSuffixes; len(x) != 1 || x[0].Name != "a.team.example" {
		t.Errorf("suffixes %v", x)
	}
	if s.DNS.LookupTimeout != DefaultLookupTimeout || s.MTU != 0 {
		t.Errorf("scalars %v, %d are not the team's", s.DNS.LookupTimeout, s.MTU)
	}
	if len(s.Narrowed) != 4 {
		t.Errorf("narrowed %v", s.Narrowed)
	}
}

func TestOnlyAPolicyEnforces(t *testing.T) {
	_, _, err := Merge(layer(t, SourceFile, "enforce: [transport.mtu]"))
	if err == nil || !strings.Contains(err.Error(), "file.yaml:1: enforce: only a Policy of the cluster can enforce") {
		t.Errorf("got %v", err)
	}
}

// TestContradictions: of allow, yield and virtualize for one subnet the source of higher precedence counts,
// and within one source the yield, then the virtualize.
func TestContradictions(t *testing.T) {
	for name, tc := range map[string]struct {
		file, policy string
		want         string
	}{
		"the user's yield beats the team's allow": {
			"routing: {conflicts: [{subnet: 10.0.0.0/8, resolve: yield}]}", "routing: {allowConflictingSubnets: [10.0.0.0/8]}", "yield 10.0.0.0/8",
		},
		"the user's allow beats the team's yield": {
			"routing: {allowConflictingSubnets: [pods]}", "routing: {conflicts: [{subnet: pods, resolve: yield}]}", "allow pods",
		},
		"the user's virtualize beats the team's yield": {
			"routing: {conflicts: [{subnet: 10.0.0.0/8, resolve: virtualize}]}", "routing: {conflicts: [{subnet: 10.0.0.0/8, resolve: yield}]}", "virtualize 10.0.0.0/8",
		},
		"the user's allow beats the team's virtualize": {
			"routing: {allowConflictingSubnets: [all]}", "routing: {conflicts: [{subnet: all, resolve: virtualize}]}", "allow all",
		},
		"one source says virtualize and allow": {
			"routing: {allowConflictingSubnets: [pods], conflicts: [{subnet: pods, resolve: virtualize}]}", "", "virtualize pods",
		},
		"one source says all three": {
			"routing: {conflicts: [{subnet: pods, resolve: virtualize}, {subnet: pods, resolve: allow}, {subnet: pods, resolve: yield}]}", "", "yield pods",
		},
		"one source says both": {
			"routing: {allowConflictingSubnets: [10.0.0.0/8], conflicts: [{subnet: 10.0.0.0/8, resolve: yield}]}", "", "yield 10.0.0.0/8",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := Merge(layer(t, SourceFile, tc.file), layer(t, SourcePolicy, tc.policy))
			if err != nil || len(s.Routing) != 1 || string(s.Routing[0].Resolve)+" "+s.Routing[0].subnet() != tc.want {
				t.Errorf("got %v, %v, want %s", ruleTexts(s.Routing), err, tc.want)
			}
		})
	}
}

// TestNoWayRoundEnforcement: keys that say the same in other words, and more specific prefixes, get
// nobody past what the team enforces.
func TestNoWayRoundEnforcement(t *testing.T) {
	vpn := office + "link tun0 tun p2p\n10.0.0.0/8 dev tun0"
	for name, tc := range map[string]struct {
		user, policy string
		facts        string
		addr         string
		want         Outcome
		quiet        bool // it is not even said, since a symbol only means it
	}{
		"a more specific allow inside an enforced yield": {
			user:   "routing: {conflicts: [{subnet: 10.130.0.0/17, resolve: allow}]}",
			policy: "routing: {conflicts: [{subnet: 10.0.0.0/8, resolve: allow}, {subnet: 10.130.0.0/16, resolve: yield}]}\nenforce: [routing.conflicts]",
			facts:  vpn, addr: "10.130.0.1", want: OutcomeYielded,
		},
		"the allow list against an enforced yield": {
			user:   "routing: {allowConflictingSubnets: [10.130.0.0/16]}",
			policy: "routing: {conflicts: [{subnet: 10.130.0.0/16, resolve: yield}]}\nenforce: [routing.conflicts]",
			facts:  vpn, addr: "10.130.0.1", want: OutcomeYielded,
		},
		"a symbol against an enforced yield": {
			user:   "routing: {allowConflictingSubnets: [all]}",
			policy: "routing: {allowConflictingSubnets: [all], conflicts: [{subnet: 10.128.0.0/9, resolve: yield}]}\nenforce: [routing.conflicts]",
			facts:  vpn, addr: "10.130.0.1", want: OutcomeYielded, quiet: true,
		},
		"conflicts against an enforced allow list": {
			user:   "routing: {conflicts: [{subnet: all, resolve: allow}]}",
			policy: "routing: {allowConflictingSubnets: [10.132.0.0/16]}\nenforce: [routing.allowConflictingSubnets]",
			facts:  vpn, addr: "10.130.0.1", want: OutcomeOpen,
		},
		"also-proxied inside an enforced never": {
			user:   "routing: {alsoProxySubnets: [10.130.0.0/17]}",
			policy: "routing: {neverProxySubnets: [10.130.0.0/16]}\nenforce: [routing.neverProxySubnets]",
			facts:  office, addr: "10.130.0.1", want: OutcomeNever,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := Merge(layer(t, SourceFile, tc.user), layer(t, SourcePolicy, tc.policy))
			if err != nil {
				t.Fatal(err)
			}
			e := Explain(Input{Settings: s, Cluster: lab, Facts: host(t, tc.facts)}, netip.MustParseAddr(tc.addr))
			if e.Outcome != tc.want || !tc.quiet && len(s.Narrowed) == 0 {
				t.Errorf("%s (%s), narrowed %v; want %s", e.Outcome, e.Reason, s.Narrowed, tc.want)
			}
		})
	}
	s, _, err := Merge(layer(t, SourceFile, "cluster: {serviceSubnets: []}"), layer(t, SourcePolicy, "cluster: {serviceSubnets: [10.130.0.0/16]}\nenforce: [cluster.serviceSubnets]"))
	if err != nil || len(s.ServiceSubnets) != 1 {
		t.Errorf("the user went back to what was discovered: %v, %v", s.ServiceSubnets, err)
	}
}

// TestSymbolsDoNotPassAnEnforcedVirtualize: what all means inside the team's prefix is as forbidden as the
// prefix itself, and what it means elsewhere stands.
func TestSymbolsDoNotPassAnEnforcedVirtualize(t *testing.T) {
	s, _, err := Merge(layer(t, SourceFile, "routing: {allowConflictingSubnets: [all]}"),
		layer(t, SourcePolicy, "routing: {allowConflictingSubnets: [all], conflicts: [{subnet: 10.130.0.0/15, resolve: virtualize}]}\nenforce: [routing.conflicts]"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range expanded(s.Routing, wants(lab, s)) {
		got = append(got, string(r.Resolve)+" "+r.Prefix.String())
	}
	if want := []string{"virtualize 10.130.0.0/15", "allow 10.132.0.0/16"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestPrecedenceOfSymbolsAndPrefixes: what names a prefix wins within one source, the source between two.
func TestPrecedenceOfSymbolsAndPrefixes(t *testing.T) {
	vpn := host(t, office+"link tun0 tun p2p\n10.0.0.0/8 dev tun0")
	for name, tc := range map[string]struct {
		file, policy string
		want         Outcome
	}{
		"the user's symbol against the team's prefix": {"routing: {conflicts: [{subnet: service, resolve: yield}]}", "routing: {allowConflictingSubnets: [10.130.0.0/16]}", OutcomeYielded},
		"the user's allow for all likewise":           {"routing: {allowConflictingSubnets: [all]}", "routing: {conflicts: [{subnet: 10.130.0.0/16, resolve: yield}]}", OutcomeTunnel},
		"one source, symbol and prefix":               {"routing: {conflicts: [{subnet: all, resolve: allow}, {subnet: 10.130.0.0/16, resolve: yield}]}", "", OutcomeYielded},
	} {
		s, _, err := Merge(layer(t, SourceFile, tc.file), layer(t, SourcePolicy, tc.policy))
		if err != nil {
			t.Fatal(err)
		}
		if e := Explain(Input{Settings: s, Cluster: lab, Facts: vpn}, netip.MustParseAddr("10.130.0.1")); e.Outcome != tc.want {
			t.Errorf("%s: %s (%s), want %s", name, e.Outcome, e.Reason, tc.want)
		}
	}
	lan := host(t, "link eth0 - 10.0.0.2/8\ndefault via 10.0.0.1 dev eth0\n10.0.0.0/8 dev eth0 proto kernel scope link")
	if e := Explain(Input{Settings: settings(t, "--allow-conflicting-subnets=all"), Cluster: lab, Facts: lan}, netip.MustParseAddr("10.130.0.1")); e.Outcome != OutcomeLAN {
		t.Errorf("a symbol takes a connected network: %s (%s)", e.Outcome, e.Reason)
	}
}
