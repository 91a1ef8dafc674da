package policy

import (
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// layersOf reads a file per source, "" for none, in order of precedence.
func layersOf(t *testing.T, flags []Value, userFile, team string) []Layer {
	t.Helper()
	fromFlags, err := Values(SourceFlag, flags...)
	if err != nil {
		t.Fatal(err)
	}
	layers := []Layer{fromFlags}
	for _, x := range []struct {
		source     Source
		name, text string
	}{{SourceUserFile, "/home/a/.config/culvert/config.yaml", userFile}, {SourcePolicy, "Policy culvert/default", team}} {
		settings, at, err := Decode(x.name, []byte(x.text))
		if err != nil {
			t.Fatal(err)
		}
		l := Layer{Source: x.source, Name: x.name, Settings: settings, Positions: at}
		if x.source == SourcePolicy {
			l.Positions = nil // as from the API server
		}
		layers = append(layers, l)
	}
	return layers
}

func TestEffectiveText(t *testing.T) {
	for name, layers := range map[string][]Layer{
		"effective-defaults": layersOf(t, nil, "", ""),
		"effective-layers": layersOf(t,
			[]Value{{"transport.mtu", "1380", "--mtu"}, {"routing.allowConflictingSubnets", "+10.130.0.0/16", "--allow-conflicting-subnets"}},
			"transport: {mtu: 1400}\ndns: {namespaces: [shop, pay]}\nrouting:\n  neverProxySubnets: []\n",
			"transport: {mtu: 1300}\nrouting: {allowConflictingSubnets: [10.132.0.0/16], neverProxySubnets: [10.130.7.9/32]}\ndns: {namespaces: [team]}"),
		"effective-enforced": layersOf(t,
			[]Value{{"routing.allowConflictingSubnets", "10.0.0.0/8", "--allow-conflicting-subnets"}, {"transport.mtu", "9000", "--mtu"}},
			"", "routing: {allowConflictingSubnets: [10.128.0.0/9]}\ntransport: {mtu: 1300}\nenforce: [routing.allowConflictingSubnets, transport.mtu]"),
		"effective-contradicted": layersOf(t,
			[]Value{{"routing.conflicts", "10.132.0.0/16=yield", "--conflict"}},
			"routing: {allowConflictingSubnets: [10.132.0.0/16, 10.130.0.0/16]}", ""),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := EffectiveSettings(layers...)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, EffectiveText(got))
		})
	}
}

// TestEffectiveSettingsAreThoseMerged: every key is there once, with the sources that Merge names, and a
// bad value fails both.
func TestEffectiveSettingsAreThoseMerged(t *testing.T) {
	layers := layersOf(t, []Value{{"transport.mtu", "1380", "--mtu"}}, "dns: {lookupTimeout: 2s}", "dns: {lookupTimeout: 3s}")
	_, from, err := Merge(layers...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := EffectiveSettings(layers...)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(Keys()) {
		t.Fatalf("%d keys, want %d", len(got), len(Keys()))
	}
	for i, e := range got {
		if e.Key != Keys()[i].Path || len(e.Sources) == 0 || e.Sources[0] != from[e.Key][0] {
			t.Errorf("%s: %v, Merge says %v", e.Key, e.Sources, from[e.Key])
		}
		if e.Key == "dns.lookupTimeout" && (e.Value != "2s" || len(e.Overridden) != 1 || e.Overridden[0].Value != "3s") {
			t.Errorf("%+v", e)
		}
	}
	bad := Layer{Source: SourcePolicy, Name: "Policy", Settings: v1alpha1.Settings{}}
	bad.Settings.Routing.AllowConflictingSubnets = []string{"ten"}
	if _, err := EffectiveSettings(bad); err == nil || !strings.Contains(err.Error(), "ten") {
		t.Errorf("a bad value: %v", err)
	}
}
