package policy

import (
	"reflect"
	"strings"
	"testing"
)

const manifest = `apiVersion: culvert.dev/v1alpha1
kind: Policy
metadata: {name: default, namespace: culvert}
spec:
  routing:
    allowConflictingSubnets: [10.128.0.0/9]
  enforce: [routing.allowConflictingSubnets]
`

func TestDecodeManifest(t *testing.T) {
	settings, at, err := DecodeManifest("policy.yaml", []byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	if got := settings.Routing.AllowConflictingSubnets; !reflect.DeepEqual(got, []string{"10.128.0.0/9"}) || len(settings.Enforce) != 1 {
		t.Errorf("%+v", settings)
	}
	if at["routing.allowConflictingSubnets"].Line != 6 {
		t.Errorf("positions %v", at)
	}
}

func TestDecodeManifestSaysWhatIsWrong(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"an unknown key of settings": {strings.Replace(manifest, "allowConflictingSubnets: [", "allowConflicting: [", 1), "policy.yaml:6: routing.allowConflicting: unknown key"},
		"a bad value":                {strings.Replace(manifest, "10.128.0.0/9", "10.128.0.0/99", 1), "policy.yaml:6: routing.allowConflictingSubnets[0]"},
		"another kind":               {strings.Replace(manifest, "kind: Policy", "kind: Peer", 1), `policy.yaml:2: kind: is "Peer", but a Policy has Policy`},
		"another version":            {strings.Replace(manifest, "v1alpha1", "v9", 1), "policy.yaml:1: apiVersion"},
		"no version":                 {strings.Replace(manifest, "apiVersion: culvert.dev/v1alpha1\n", "", 1), "apiVersion: is missing"},
		"settings beside spec":       {manifest + "routing: {}\n", "policy.yaml:8: routing: unknown key"},
		"nothing":                    {"", "is empty"},
		"a list":                     {"[]", "is a list"},
		"no YAML":                    {"kind: [", "not valid YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			settings, _, err := DecodeManifest("policy.yaml", []byte(row.text))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
			if !reflect.ValueOf(settings).IsZero() {
				t.Errorf("an error, and settings all the same: %+v", settings)
			}
		})
	}
}

func TestIsManifest(t *testing.T) {
	for text, want := range map[string]bool{manifest: true, "kind: Peer": true, "routing: {}": false, "": false, ": [": false, "[kind]": false} {
		if IsManifest([]byte(text)) != want {
			t.Errorf("%q: want %v", text, want)
		}
	}
}

func TestDiffSettings(t *testing.T) {
	decode := func(text string) (s Layer) {
		t.Helper()
		settings, _, err := Decode("x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return Layer{Settings: settings}
	}
	from := decode("routing: {allowConflictingSubnets: [10.128.0.0/9, 10.0.0.0/9], onConflict: yield}\ntransport: {mtu: 1300}")
	to := decode("routing: {allowConflictingSubnets: [10.0.0.0/9, 10.128.0.0/9], conflicts: [{subnet: 10.132.0.0/16, resolve: yield}]}\ntransport: {mtu: 1400}\ndns: {namespaces: []}")
	got, err := DiffSettings(from.Settings, to.Settings)
	if err != nil {
		t.Fatal(err)
	}
	want := []SettingChange{
		{"routing.onConflict", "yield", ""},
		{"routing.conflicts", "", "[{subnet: 10.132.0.0/16, resolve: yield}]"},
		{"dns.namespaces", "", "[]"},
		{"transport.mtu", "1300", "1400"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(manifest))
	f.Add([]byte("kind: Policy\nspec: ~"))
	f.Add([]byte("&a {kind: *a}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, _, err := DecodeManifest("f", data)
		if err != nil {
			return
		}
		if !IsManifest(data) {
			t.Fatal("read as a manifest, but not recognised as one")
		}
		if _, err := Validate("f", settings); err != nil {
			t.Fatalf("accepted, but not valid: %v", err)
		}
	})
}
