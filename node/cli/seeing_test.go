package cli

import (
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/dns"
	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: -update writes it anew\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// behindVPN is what a plan follows from on a laptop whose VPN routes 10.0.0.0/8.
func behindVPN(t *testing.T, flags ...policy.Value) policy.Input {
	t.Helper()
	layer, err := policy.Values(policy.SourceFlag, flags...)
	if err != nil {
		t.Fatal(err)
	}
	settings, _, err := policy.Merge(layer)
	if err != nil {
		t.Fatal(err)
	}
	subnets := func(cidr string) []policy.Subnet { return []policy.Subnet{{Prefix: netip.MustParsePrefix(cidr)}} }
	return policy.Input{
		Settings: settings,
		Cluster:  policy.Cluster{Services: subnets("10.130.0.0/16"), Pods: subnets("10.132.0.0/16"), Domain: policy.DefaultDomain},
		Facts: policy.Facts{
			Links: []policy.Link{{Index: 2, Name: "eth0", Up: true}, {Index: 7, Name: "tun0", Kind: "tun", Up: true}},
			Routes: []policy.Route{
				{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Table: policy.TableMain, NextHops: []policy.NextHop{{Addr: netip.MustParseAddr("192.168.7.1"), Link: 2}}},
				{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Table: policy.TableMain, NextHops: []policy.NextHop{{Link: 7}}},
			},
			Rules: policy.DefaultRules(),
		},
	}
}

func TestPlanText(t *testing.T) {
	allow := policy.Value{Key: "routing.allowConflictingSubnets", Text: "10.130.0.0/16,10.132.0.0/17", Name: "--allow-conflicting-subnets"}
	yield := policy.Value{Key: "routing.onConflict", Text: "yield", Name: "--on-conflict"}
	refused, taken := policy.NewPlan(behindVPN(t)), policy.NewPlan(behindVPN(t, allow, yield))
	for name, plan := range map[string]api.Plan{
		"plan-refused": {Name: "default", Refused: true, Plan: refused},
		"plan-inforce": {Name: "default", InForce: true, Plan: taken},
		"plan-consent": {Name: "default", Plan: taken, Consent: []string{"send 192.0.2.0/24 through the cluster"}},
		"plan-diff":    {Name: "default", Plan: taken, Diff: policy.DiffPlans(refused, taken)},
		"plan-same":    {Name: "default", Plan: taken, Diff: policy.DiffPlans(taken, taken)},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, planText(plan)) })
	}
}

// TestRefusedPlanHasTheExitCodeOfConnect: in text the report is the error, in JSON the object says it.
func TestRefusedPlanHasTheExitCodeOfConnect(t *testing.T) {
	plan := api.Plan{Version: api.PlanVersion, Refused: true, Plan: policy.NewPlan(behindVPN(t))}
	for _, output := range []outputFormat{"text", jsonOutput} {
		var b strings.Builder
		err := (&planOptions{output: output}).show(&b, plan)
		if output == jsonOutput {
			var got api.Plan
			if err != exitCode(failure.Conflict) || json.Unmarshal([]byte(b.String()), &got) != nil || !got.Plan.Equal(plan.Plan) {
				t.Errorf("%v\n%s", err, b.String())
			}
		} else if f := failure.Of(err); f.Code != failure.Conflict || f.Text != plan.Plan.ConflictReport() {
			t.Errorf("%v", err)
		}
	}
	plan.Refused = false
	if err := (&planOptions{}).show(&strings.Builder{}, plan); err != nil {
		t.Errorf("not refused: %v", err)
	}
}

func TestWhyText(t *testing.T) {
	yield := policy.Value{Key: "routing.onConflict", Text: "yield", Name: "--on-conflict"}
	allow := policy.Value{Key: "routing.allowConflictingSubnets", Text: "10.130.0.0/16", Name: "--allow-conflicting-subnets"}
	in := behindVPN(t, yield, allow)
	explained := func(addr string, kernel api.Kernel) api.Explained {
		return api.Explained{Explanation: policy.Explain(in, netip.MustParseAddr(addr)), Interface: "culvert0", Kernel: kernel}
	}
	service, pod := netip.MustParseAddr("10.130.5.6"), netip.MustParseAddr("10.132.1.2")
	tunnel := api.Kernel{Interface: "culvert0", Table: 7200}
	vpn := api.Kernel{Interface: "tun0", Table: 254, NextHop: netip.MustParseAddr("10.8.0.1")}
	for name, why := range map[string]api.Why{
		"why-address": {InForce: true, Addresses: []api.Explained{explained("10.130.5.6", tunnel)}},
		"why-stolen":  {InForce: true, Addresses: []api.Explained{explained("10.130.5.6", vpn)}},
		"why-preview": {Addresses: []api.Explained{explained("10.130.5.6", api.Kernel{Refusal: "no route"})}},
		"why-name": {
			InForce: true, Addresses: []api.Explained{explained("10.130.5.6", tunnel)},
			Trace: &dns.Trace{
				Name: "echo.shop", Matched: "echo.shop.svc.cluster.local.", Addresses: []netip.Addr{service},
				Lookups: []dns.Lookup{{
					Name: "echo.shop.svc.cluster.local.", SearchDomain: "svc.cluster.local", Source: "cluster", Reason: "the cluster's domain",
					Questions: []dns.Question{
						{Type: "A", AnsweredBy: "cluster", Rcode: "NOERROR", Addresses: []netip.Addr{service}, Cached: true, Aliases: []string{"a.example."}},
						{Type: "AAAA", AnsweredBy: "cluster", Rcode: "NOERROR"},
					},
				}},
			},
		},
		"why-withheld": {
			InForce: true, Addresses: []api.Explained{explained("10.132.1.2", vpn)},
			Trace: &dns.Trace{Name: "headless.shop", Lookups: []dns.Lookup{{
				Name: "headless.shop.svc.cluster.local.", Source: "cluster", Reason: "the cluster's domain",
				Questions: []dns.Question{{
					Type: "A", AnsweredBy: "cluster", Rcode: "SERVFAIL", Given: []netip.Addr{pod},
					Withheld: []dns.WithheldAddr{{Addr: pod, Prefix: netip.MustParsePrefix("10.132.0.0/16"), Owner: "tun0 (OpenVPN)"}},
					Errors:   []dns.ExtendedError{{Code: 17, Meaning: "Filtered", Text: "10.132.0.0/16 is left to tun0 (OpenVPN)"}},
				}},
			}}},
		},
		"why-agent": {
			InForce: true, Addresses: []api.Explained{explained("10.130.5.6", tunnel)},
			Trace: &dns.Trace{
				Name: "db.mesh.internal", Matched: "db.mesh.internal.", Addresses: []netip.Addr{service},
				Lookups: []dns.Lookup{
					{
						Name: "db.mesh.internal.svc.cluster.local.", SearchDomain: "svc.cluster.local", Source: "cluster", Reason: "the cluster's domain",
						Questions: []dns.Question{{Type: "A", AnsweredBy: "cluster", Agents: []string{"deployment/echo", "statefulset/web"}, Rcode: "NOERROR"}},
					},
					{
						Name: "db.mesh.internal.", Source: "agent", Workload: "deployment/echo", Reason: "in the suffix mesh.internal of workload deployment/echo",
						Questions: []dns.Question{{Type: "A", AnsweredBy: "agent", Agents: []string{"deployment/echo"}, Rcode: "NOERROR", Addresses: []netip.Addr{service}}},
					},
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := renderWhy(&b, why); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.String())
		})
	}
}

func TestPolicyText(t *testing.T) {
	team := shownPolicy{Name: "culvert/default", Agreement: "agreed"}
	team.Spec.Routing.AllowConflictingSubnets = []string{"10.128.0.0/9"}
	team.Spec.Enforce = []string{"routing.allowConflictingSubnets"}
	team.Status.Subnets.Services = []v1alpha1.Subnet{{CIDR: "10.130.0.0/16", Source: "ServiceCIDR kubernetes"}}
	for name, p := range map[string]shownPolicy{"policy": team, "policy-empty": {Name: "culvert/default", Unknown: "no subnets"}} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := renderPolicy(&b, p); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.String())
		})
	}
	diff := settingsDiff{From: "Policy culvert/default", To: "policy.yaml", Changes: []policy.SettingChange{
		{Key: "transport.mtu", From: "1300", To: "1400"}, {Key: "dns.namespaces", To: "[shop]"}, {Key: "routing.onConflict", From: "yield"},
	}}
	golden(t, "policy-diff", diff.text())
	diff.Changes = nil
	if got := diff.text(); got != "policy.yaml says what Policy culvert/default says\n" {
		t.Errorf("%q", got)
	}
}

// TestDocumentedFieldsExist: docs/plan.md names no field that JSON does not have, and all at the top.
func TestDocumentedFieldsExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/plan.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(text), "\n## ")
	documented := []any{api.Plan{}, api.Why{}, explainedSettings{}, shownPolicy{}, validated{}, settingsDiff{}}
	if len(sections) != len(documented)+1 {
		t.Fatalf("%d sections", len(sections))
	}
	for i, v := range documented {
		fields := map[string]bool{}
		top := jsonFields(reflect.TypeOf(v), fields)
		section := sections[i+1]
		name, _, _ := strings.Cut(section, "\n")
		for _, f := range top {
			if !strings.Contains(section, "`"+f) && f != "version" {
				t.Errorf("%s: %s is not documented", name, f)
			}
		}
		for _, row := range regexp.MustCompile(`(?m)^\| (.*) \| (.*) \|$`).FindAllStringSubmatch(section, -1) {
			for _, code := range regexp.MustCompile("`([a-zA-Z0-9.\\[\\]]+)`").FindAllStringSubmatch(row[1], -1) {
				for _, part := range strings.FieldsFunc(code[1], func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
					if !fields[part] {
						t.Errorf("%s: there is no field %s (%s)", name, part, code[1])
					}
				}
			}
		}
	}
}

// jsonFields adds the names of all fields below a type, and returns those of the type itself.
func jsonFields(typ reflect.Type, fields map[string]bool) (top []string) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return nil
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		below := jsonFields(f.Type, fields)
		if f.Anonymous && name == "" {
			top = append(top, below...)
		} else if name != "" && name != "-" {
			fields[name] = true
			top = append(top, name)
		}
	}
	return top
}

// TestExamplesOfHelpAndDocsAreAccepted: every command line shown names a command and flags that exist.
func TestExamplesOfHelpAndDocsAreAccepted(t *testing.T) {
	var lines []string
	for _, path := range []string{"../../docs/plan.md", "../../docs/settings.md", "../../docs/virtual.md", "../../README.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			if strings.HasPrefix(line, "    ") {
				lines = append(lines, line)
			}
		}
	}
	for _, cmd := range newRoot().Commands() {
		lines = append(lines, strings.Split(cmd.Example, "\n")...)
		for _, sub := range cmd.Commands() {
			lines = append(lines, strings.Split(sub.Example, "\n")...)
		}
	}
	checked := 0
	for _, line := range lines {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, "|")
		line, _, _ = strings.Cut(line, ">")
		args := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "sudo "))
		if len(args) < 2 || args[0] != "culvert" || args[1] == "gateway" {
			continue
		}
		checked++
		cmd, rest, err := newRoot().Find(args[1:])
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	if checked < 20 {
		t.Errorf("only %d examples were found", checked)
	}
}

// TestPolicyCommandsAskTheCluster runs them against an API server that has one Policy.
func TestPolicyCommandsAskTheCluster(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/apis/culvert.dev/v1alpha1/namespaces/culvert/policies" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"apiVersion":"culvert.dev/v1alpha1","kind":"PolicyList","metadata":{},"items":[{"apiVersion":"culvert.dev/v1alpha1","kind":"Policy",`+ //nolint:errcheck // the client is gone
			`"metadata":{"name":"default","namespace":"culvert"},"spec":{"routing":{"alsoProxySubnets":["192.0.2.0/24"]},"transport":{"mtu":1300}},`+
			`"status":{"subnets":{"services":[{"cidr":"198.51.100.0/24","source":"test"}]}}}]}`)
	}))
	defer server.Close()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	file, config := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "kubeconfig")
	for path, text := range map[string]string{
		file: "transport: {mtu: 1400}\nrouting: {alsoProxySubnets: [192.0.2.0/24]}\n",
		config: `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"k","cluster":{"server":"` + server.URL + `"}}],` +
			`"contexts":[{"name":"c","context":{"cluster":"k","user":""}}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"policy", "diff", file}, "--- Policy culvert/default\n+++ " + file + "\n- transport.mtu: 1300\n+ transport.mtu: 1400\n"},
		{[]string{"policy", "show"}, "consent\n  not agreed yet\n"},
		{[]string{"policy", "show", "-o", "json"}, `"agreement": "not agreed yet"`},
		{[]string{"config", "explain", "transport.mtu"}, "transport.mtu  1300  policy Policy culvert/default\n"},
	} {
		var out strings.Builder
		root := newRoot()
		root.SetOut(&out)
		root.SetArgs(append(row.args, "--kubeconfig", config))
		if err := root.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), row.want) {
			t.Errorf("%v: %v\n%s", row.args, err, out.String())
		}
	}
}
