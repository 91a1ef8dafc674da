package config

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
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

// TestDocumentedSettingsAreAccepted: what docs/settings.md shows is right, and every key it names exists.
func TestDocumentedSettingsAreAccepted(t *testing.T) {
	text, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	for _, block := range blocks {
		if _, _, err := policy.Decode("docs/settings.md", []byte(block[1])); err != nil {
			t.Errorf("%v\n%s", err, block[1])
		}
	}
	named := regexp.MustCompile("`((?:routing|cluster|dns|transport)\\.\\w+)`").FindAllStringSubmatch(string(text), -1)
	for _, key := range named {
		if _, ok := policy.KeyByPath(key[1]); !ok {
			t.Errorf("there is no key %s", key[1])
		}
	}
	if len(blocks) < 4 || len(named) < 8 {
		t.Errorf("only %d examples and %d keys were found", len(blocks), len(named))
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

// merged returns what args, on top of the environment, come to.
func merged(t *testing.T, args ...string) (policy.Settings, policy.Provenance, error) {
	t.Helper()
	flags, environment, err := FromCommand(parse(t, args...))
	if err != nil {
		return policy.Settings{}, nil, err
	}
	layers, err := Layers(Sources{Flags: flags, Environment: environment})
	if err != nil {
		t.Fatal(err)
	}
	return policy.Merge(layers...)
}

// TestAnEmptyListReachesTheUserHalf: settings of the command line travel as JSON, and "none" is something said.
func TestAnEmptyListReachesTheUserHalf(t *testing.T) {
	flags, _, err := FromCommand(parse(t, "--proxy-via", "", "--also-proxy", ""))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(flags)
	if err != nil {
		t.Fatal(err)
	}
	var got v1alpha1.Settings
	if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, flags) || got.ProxyVia == nil || got.Routing.AlsoProxySubnets == nil {
		t.Errorf("%s: %+v, %v", data, got, err)
	}
}

// TestVNAT: --vnat adds to --proxy-via and is named where it is meant.
func TestVNAT(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for name, tc := range map[string]struct {
		args        []string
		environment string
		want        string // rules and where the key comes from
		err         string
	}{
		"short":              {args: []string{"--vnat", "all"}, want: "all=gateway flag --vnat; flag --vnat"},
		"long":               {args: []string{"--proxy-via", "all=gateway"}, want: "all=gateway flag --proxy-via; flag --proxy-via"},
		"repeated, commas":   {args: []string{"--vnat", "pods,service", "--vnat", "10.0.0.0/8"}, want: "pods=gateway flag --vnat, service=gateway flag --vnat, 10.0.0.0/8=gateway flag --vnat; flag --vnat"},
		"both add up":        {args: []string{"--vnat", "pods", "--proxy-via", "service=gateway"}, want: "pods=gateway flag --vnat, service=gateway flag --proxy-via; flag --proxy-via and --vnat"},
		"the environment":    {environment: "pods=gateway, service=gateway", want: "pods=gateway environment CULVERT_PROXY_VIA, service=gateway environment CULVERT_PROXY_VIA; environment CULVERT_PROXY_VIA"},
		"replaces it":        {args: []string{"--vnat", "pods"}, environment: "service=gateway", want: "pods=gateway flag --vnat; flag --vnat"},
		"extends it":         {args: []string{"--vnat", "+pods"}, environment: "service=gateway", want: "pods=gateway flag --vnat, service=gateway environment CULVERT_PROXY_VIA; flag --vnat, environment CULVERT_PROXY_VIA"},
		"not given":          {want: "; default"},
		"nothing in it":      {args: []string{"--vnat", ""}, want: "; default"},
		"a bad prefix":       {args: []string{"--proxy-via", "pods=gateway", "--vnat", "10.0.0.1/8"}, err: `--vnat: proxyVia[1]: "10.0.0.1/8" has bits set behind its length of 8; write 10.0.0.0/8`},
		"another workload":   {args: []string{"--proxy-via", "pods=echo", "--vnat", "service"}, err: `--proxy-via: proxyVia[0]: "echo" is not a workload that can be used; use gateway`},
		"no workload":        {args: []string{"--proxy-via", "pods"}, err: `--proxy-via: "pods" names no workload; write SUBNET=WORKLOAD, such as all=gateway`},
		"an empty workload":  {args: []string{"--proxy-via", "pods="}, err: `--proxy-via: "pods" names no workload; write SUBNET=WORKLOAD, such as all=gateway`},
		"a workload":         {args: []string{"--vnat", "pods=gateway"}, err: `--vnat: "pods=gateway" names a workload; write --vnat pods, or --proxy-via pods=gateway`},
		"both speak of one":  {args: []string{"--proxy-via", "10.0.0.0/8=gateway", "--vnat", "10.1.0.0/16"}, err: "--vnat: proxyVia[1]: 10.1.0.0/16=gateway overlaps 10.0.0.0/8=gateway (--proxy-via); an address can be reached in one way only, so leave one of them out"},
		"twice":              {args: []string{"--vnat", "all,all"}, err: "--vnat: proxyVia[1]: all=gateway repeats all=gateway (--vnat); an address can be reached in one way only, so leave one of them out"},
		"one only extends":   {args: []string{"--vnat", "+pods", "--proxy-via", "service=gateway"}, err: `--vnat: proxyVia[1]: "+pods=gateway": either all entries begin with "+", which extends the list of lower precedence, or none does, which replaces it`},
		"the environment's ": {environment: "pods=", err: `CULVERT_PROXY_VIA: proxyVia[0]: "pods=" names no workload; write SUBNET=WORKLOAD, such as all=gateway`},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.environment != "" {
				t.Setenv("CULVERT_PROXY_VIA", tc.environment)
			}
			s, from, err := merged(t, tc.args...)
			if err != nil || tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Errorf("\ngot  %v\nwant %s", err, tc.err)
				}
				return
			}
			var rules, origins []string
			for _, r := range s.Routing {
				text := string(r.Symbol)
				if text == "" {
					text = r.Prefix.String()
				}
				rules = append(rules, text+"="+r.Via+" "+r.Origin.String())
			}
			for _, o := range from["proxyVia"] {
				origins = append(origins, o.String())
			}
			if got := strings.Join(rules, ", ") + "; " + strings.Join(origins, ", "); got != tc.want {
				t.Errorf("\ngot  %s\nwant %s", got, tc.want)
			}
		})
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
