package config

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
)

var update = flag.Bool("update", false, "rewrite config.example.yaml")

const exampleFile = "../../config.example.yaml"

func TestExampleFileIsComplete(t *testing.T) {
	if *update {
		if err := os.WriteFile(exampleFile, []byte(Example()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Example() {
		t.Errorf("%s is not what the keys say; run go test ./node/config -update", exampleFile)
	}
}

func TestExampleFileIsValidOnceUncommented(t *testing.T) {
	settingLine := regexp.MustCompile(`(?m)^#( *\w+:.*)$`)
	text := settingLine.ReplaceAllString(strings.TrimPrefix(Example(), exampleHead), "$1")
	_, positions, err := policy.Decode("config.example.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, key := range policy.Keys() {
		if _, said := positions[key.Path]; !said {
			t.Errorf("the example does not show %s", key.Path)
		}
	}
}

// parse returns the flags of `culvert connect` as args set them.
func parse(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("connect", pflag.ContinueOnError)
	BindFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestFlagsWinOverEnvironmentOverFileOverUserFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	write(t, filepath.Join(dir, "culvert", "config.yaml"), "transport: {mtu: 1300}\ndns: {lookupTimeout: 1s, namespaces: [user]}\n")
	file := filepath.Join(dir, "named.yaml")
	write(t, file, "routing: {neverProxySubnets: [10.1.0.0/16]}\ndns: {namespaces: [named]}\n")
	t.Setenv("CULVERT_NEVER_PROXY", "10.2.0.0/16, 10.3.0.0/16")
	t.Setenv("CULVERT_MTU", "1350")
	flags, environment, err := FromCommand(parse(t, "--mtu", "1400", "--allow-conflicting-subnets", "10.128.0.0/9"))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := Layers(Sources{Flags: flags, Environment: environment, File: file})
	if err != nil {
		t.Fatal(err)
	}
	got, from, err := policy.Merge(layers...)
	if err != nil {
		t.Fatal(err)
	}
	if got.MTU != 1400 || from["transport.mtu"][0].Source != policy.SourceFlag {
		t.Errorf("mtu %d from %v, want 1400 from the flag", got.MTU, from["transport.mtu"])
	}
	if got.DNS.LookupTimeout.String() != "1s" || len(got.DNS.Namespaces) != 1 || got.DNS.Namespaces[0] != "named" {
		t.Errorf("dns %+v: want the user file's time-out and the named file's namespace", got.DNS)
	}
	var never []string
	for _, rule := range got.Routing {
		if rule.Resolve == policy.ResolveNever {
			never = append(never, rule.Prefix.String()+" "+rule.Origin.Position.String())
		}
	}
	if want := "10.2.0.0/16 CULVERT_NEVER_PROXY,10.3.0.0/16 CULVERT_NEVER_PROXY"; strings.Join(never, ",") != want {
		t.Errorf("never-proxied %q, want %q", never, want)
	}
}

func TestMissingFile(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if _, err := Layers(Sources{}); err != nil {
		t.Errorf("no user file is no error: %v", err)
	}
	_, err := Layers(Sources{File: "/does/not/exist.yaml"})
	if f := failure.Of(err); f == nil || f.Code != failure.Usage || !strings.Contains(f.Text, "/does/not/exist.yaml") {
		t.Errorf("a named file that is missing: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
