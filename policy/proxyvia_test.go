package policy

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestProxyVia(t *testing.T) {
	for name, tc := range map[string]struct {
		entry string
		want  string // the normal form
		err   string
	}{
		"a prefix":               {entry: "10.130.0.0/16=gateway", want: "10.130.0.0/16=gateway"},
		"a symbol, spaces":       {entry: " all = gateway", want: "all=gateway"},
		"IPv6, capitals":         {entry: "FD00:1::/48=gateway", want: "fd00:1::/48=gateway"},
		"no workload":            {entry: "10.130.0.0/16", err: `"10.130.0.0/16" names no workload; write SUBNET=WORKLOAD, such as all=gateway`},
		"an empty workload":      {entry: "all=", err: `"all=" names no workload; write SUBNET=WORKLOAD, such as all=gateway`},
		"another workload":       {entry: "all=echo", err: `"echo" is not a workload that can be used; use gateway`},
		"another's full name":    {entry: "all=shop/deployment/echo", err: `"shop/deployment/echo" is not a workload that can be used; use gateway`},
		"no subnet":              {entry: "=gateway", err: `"" is not a prefix; write an address and a length, such as 10.128.0.0/9 or fd00:1::/48`},
		"a symbol, nearly right": {entry: "pod=gateway", err: `"pod" is neither a prefix nor one of the symbols service, pods, also, all; did you mean pods? write 10.128.0.0/9, for example`},
		"host bits":              {entry: "10.130.0.1/16=gateway", err: `"10.130.0.1/16" has bits set behind its length of 16; write 10.130.0.0/16`},
		"everything":             {entry: "::/0=gateway", err: `"::/0" is a default route; the tunnel takes prefixes of the cluster only`},
		"loopback":               {entry: "127.0.0.0/8=gateway", err: `"127.0.0.0/8" is loopback, and the gateway has no loopback to offer`},
		"a workload's loopback":  {entry: "127.0.0.0/8=echo", err: `"echo" is not a workload that can be used; use gateway`},
		"no workload's name":     {entry: "all=Echo", err: `"Echo" is not a workload that can be used; use gateway`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := proxyVia(tc.entry)
			if tc.err != "" && (err == nil || err.Error() != tc.err) {
				t.Errorf("error %v, want %s", err, tc.err)
			}
			if tc.err == "" && (err != nil || got != tc.want) {
				t.Errorf("%q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

// TestProxyViaAcceptingWorkloads: what proxyVia takes once it takes workloads. Until then all but the
// gateway is refused; see TestProxyVia.
func TestProxyViaAcceptingWorkloads(t *testing.T) {
	if acceptWorkloads {
		t.Error("workloads are accepted: TestProxyVia, the CRD and the chart's schema have to say so too")
	}
	for entry, want := range map[string]string{
		"all=gateway":                     "all=gateway",
		" pods = echo":                    "pods=echo",
		"10.130.0.0/16=Deploy/echo":       "10.130.0.0/16=deployment/echo",
		"10.130.0.0/16=shop/sts/web":      "10.130.0.0/16=shop/statefulset/web",
		"127.0.0.0/8=echo":                "127.0.0.0/8=echo",
		"127.8.0.1/32=echo":               "127.8.0.1/32=echo",
		"::1/128=shop/echo":               "::1/128=shop/echo",
		"0:0::1/128=shop/deployment/echo": "::1/128=shop/deployment/echo",
	} {
		got, err := readVia(entry, true)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", entry, got, err, want)
		}
		if r := viaRule(got, Origin{}); r.viaText() != want {
			t.Errorf("%s has become the rule %s", entry, r.viaText())
		}
	}
	for entry, want := range map[string]string{
		"all=":                  `"all=" names no workload; write SUBNET=WORKLOAD, such as all=gateway`,
		"all=pod/echo-0":        `"pod/echo-0" names a pod, which is none of the kinds`,
		"127.0.0.0/8=gateway":   `"127.0.0.0/8" is loopback, and the gateway has no loopback to offer; name the workload whose it is, such as 127.0.0.0/8=echo`,
		"::1/128=gateway":       `"::1/128" is loopback, and the gateway has no loopback to offer; name`,
		"127.0.0.1=echo":        `"127.0.0.1" is an address, not a prefix; for this one address write 127.0.0.1/32`,
		"::/127=echo":           `"::/127" cannot be routed into a tunnel`,
		"169.254.0.0/16=echo":   `"169.254.0.0/16" cannot be routed into a tunnel: link-local`,
		"0.0.0.0/0=deploy/echo": `"0.0.0.0/0" is a default route`,
	} {
		if got, err := readVia(entry, true); got != "" || !strings.HasPrefix(textOf(err), want) {
			t.Errorf("%s: %q, %v, want %s", entry, got, err, want)
		}
	}
}

// viaTexts shows the rules of proxyVia as "all=gateway flag --vnat".
func viaTexts(s Settings) []string {
	var out []string
	for _, r := range s.Routing {
		if r.Resolve == ResolveVia {
			out = append(out, r.viaText()+" "+r.Origin.String())
		}
	}
	return out
}

func TestMergeProxyVia(t *testing.T) {
	for name, tc := range map[string]struct {
		file, policy string
		want         []string
		err          string
	}{
		"the team's": {
			policy: "proxyVia: [{subnet: 10.130.0.0/16, workload: gateway}, {subnet: pods, workload: gateway}]",
			want:   []string{"pods=gateway policy policy.yaml:1", "10.130.0.0/16=gateway policy policy.yaml:1"},
		},
		"the user replaces": {
			file: "proxyVia: [{subnet: pods, workload: gateway}]", policy: "proxyVia: [{subnet: all, workload: gateway}]",
			want: []string{"pods=gateway file file.yaml:1"},
		},
		"the user says none": {file: "proxyVia: []", policy: "proxyVia: [{subnet: all, workload: gateway}]"},
		"the user extends": {
			file: "proxyVia: [{subnet: +pods, workload: gateway}]", policy: "proxyVia: [{subnet: service, workload: gateway}]",
			want: []string{"pods=gateway file file.yaml:1", "service=gateway policy policy.yaml:1"},
		},
		"both say the same": {
			file: "proxyVia: [{subnet: +all, workload: gateway}]", policy: "proxyVia: [{subnet: all, workload: gateway}]",
			want: []string{"all=gateway file file.yaml:1"},
		},
		"an extension that overlaps": {
			file: "proxyVia: [{subnet: +10.132.64.0/18, workload: gateway}]", policy: "proxyVia: [{subnet: 10.132.0.0/16, workload: gateway}]",
			err: "policy.yaml:1: proxyVia: 10.132.0.0/16=gateway overlaps 10.132.64.0/18=gateway (file.yaml:1); an address can be reached in one way only, so leave one of them out",
		},
		"the team enforces its own": {
			file:   "proxyVia: [{subnet: +pods, workload: gateway}, {subnet: +service, workload: gateway}]",
			policy: "proxyVia: [{subnet: service, workload: gateway}]\nenforce: [proxyVia]",
			want:   []string{"service=gateway file file.yaml:1"},
		},
		"the team enforces its own against none": {
			file: "proxyVia: []", policy: "proxyVia: [{subnet: service, workload: gateway}]\nenforce: [proxyVia]",
			want: []string{"service=gateway policy policy.yaml:1"},
		},
		"the team enforces none": {file: "proxyVia: [{subnet: all, workload: gateway}]", policy: "enforce: [proxyVia]"},
	} {
		t.Run(name, func(t *testing.T) {
			s, from, err := Merge(layer(t, SourceFile, tc.file), layer(t, SourcePolicy, tc.policy))
			if tc.err != "" {
				if err == nil || err.Error() != tc.err || from != nil {
					t.Errorf("error %v, want %s", err, tc.err)
				}
				return
			}
			if got := viaTexts(s); err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
			if ruled := strings.Contains(tc.policy, "enforce"); ruled && strings.Contains(tc.file, "subnet") != (len(s.Narrowed) > 0) {
				t.Errorf("narrowed %v", s.Narrowed)
			}
		})
	}
}

// TestCheckProxyVia: what symbols stand for decides, and both entries are named.
func TestCheckProxyVia(t *testing.T) {
	for name, tc := range map[string]struct {
		flags []string
		want  string
	}{
		"apart":                       {flags: []string{"--proxy-via=service=gateway,10.132.0.0/16=gateway,198.51.100.0/24=gateway"}},
		"all alone":                   {flags: []string{"--proxy-via=all=gateway", "--also-proxy=10.132.7.0/24"}},
		"a symbol around a prefix":    {flags: []string{"--proxy-via=pods=gateway,10.132.64.0/18=gateway"}, want: "--proxy-via: proxyVia: 10.132.64.0/18=gateway overlaps pods=gateway (--proxy-via) in 10.132.64.0/18; an address can be reached in one way only, so leave one of them out"},
		"a prefix around a symbol":    {flags: []string{"--proxy-via=service=gateway,10.128.0.0/9=gateway"}, want: "--proxy-via: proxyVia: 10.128.0.0/9=gateway overlaps service=gateway (--proxy-via) in 10.130.0.0/16; an address can be reached in one way only, so leave one of them out"},
		"a symbol equal to a prefix":  {flags: []string{"--proxy-via=service=gateway,10.130.0.0/16=gateway"}, want: "--proxy-via: proxyVia: 10.130.0.0/16=gateway overlaps service=gateway (--proxy-via) in 10.130.0.0/16; an address can be reached in one way only, so leave one of them out"},
		"symbols that overlap":        {flags: []string{"--proxy-via=also=gateway,pods=gateway", "--also-proxy=10.132.7.0/24"}, want: "--proxy-via: proxyVia: pods=gateway overlaps also=gateway (--proxy-via) in 10.132.7.0/24; an address can be reached in one way only, so leave one of them out"},
		"symbols that do not overlap": {flags: []string{"--proxy-via=also=gateway,pods=gateway", "--also-proxy=192.0.2.0/24"}},
		"a symbol for nothing":        {flags: []string{"--proxy-via=also=gateway,10.0.0.0/8=gateway"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckProxyVia(settings(t, tc.flags...), lab)
			if got := textOf(err); got != tc.want {
				t.Errorf("\ngot  %s\nwant %s", got, tc.want)
			}
		})
	}
	other := Settings{Routing: []RoutingRule{
		viaRule("pods=shop/echo", Origin{SourcePolicy, Position{Name: "Policy culvert/default"}}), viaRule("pods=gateway", Origin{SourceFlag, Position{Name: "--vnat"}}),
	}}
	two := Settings{Routing: []RoutingRule{
		viaRule("10.132.64.0/18=deployment/echo", Origin{SourceFile, Position{Name: "culvert.yaml", Line: 3}}), viaRule("pods=shop/web", Origin{SourceFlag, Position{Name: "--proxy-via"}}),
	}}
	want := "culvert.yaml:3: proxyVia: 10.132.64.0/18=deployment/echo overlaps pods=shop/web (--proxy-via) in 10.132.64.0/18; an address can be reached in one way only, so leave one of them out"
	if got := textOf(CheckProxyVia(two, lab)); got != want {
		t.Errorf("a part of one workload's for another:\ngot  %s\nwant %s", got, want)
	}
	want = "Policy culvert/default: proxyVia: pods=shop/echo overlaps pods=gateway (--vnat); an address can be reached in one way only, so leave one of them out"
	if got := textOf(CheckProxyVia(other, lab)); got != want {
		t.Errorf("two workloads for one subnet:\ngot  %s\nwant %s", got, want)
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestClashesAreThoseOfEveryPair compares the look-up by length with asking every pair.
func TestClashesAreThoseOfEveryPair(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		prefix := func() netip.Prefix {
			bits := 8 + r.IntN(17)
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(4)), 0}), bits).Masked()
		}
		var rules []RoutingRule
		for range 1 + r.IntN(8) {
			subnet := prefix().String()
			if r.IntN(3) == 0 {
				subnet = symbols[r.IntN(len(symbols))]
			}
			rules = append(rules, viaRule(subnet+"=gateway", Origin{}))
		}
		var wanted []want
		for range r.IntN(5) {
			wanted = append(wanted, want{prefix: prefix(), kind: []SubnetKind{KindServices, KindPods, KindAlso}[r.IntN(3)]})
		}
		var got, expected []int
		for _, c := range viaClashes(rules, wanted) {
			got = append(got, c.second)
			if !clash(rules[c.first], rules[c.second], wanted) || c.first >= c.second {
				t.Errorf("seed %d: %v and %v do not clash", seed, rules[c.first], rules[c.second])
			}
		}
		for i, x := range rules {
			if slices.ContainsFunc(rules[:i], func(y RoutingRule) bool { return clash(x, y, wanted) }) {
				expected = append(expected, i)
			}
		}
		if !slices.Equal(got, expected) {
			t.Errorf("seed %d: %v clash, want %v: %v, wanted %v", seed, got, expected, rules, wanted)
		}
	}
}

// clash is the obvious answer to whether two rules speak of one address.
func clash(a, b RoutingRule, wanted []want) bool {
	if a.Symbol != "" && b.Symbol != "" && (a.Symbol == b.Symbol || a.Symbol == SymbolAll || b.Symbol == SymbolAll) {
		return true
	}
	prefixes := func(r RoutingRule) []netip.Prefix {
		if r.Symbol == "" {
			return []netip.Prefix{r.Prefix}
		}
		var out []netip.Prefix
		for _, w := range wanted {
			if r.Symbol.means(w.kind) {
				out = append(out, w.prefix)
			}
		}
		return out
	}
	for _, p := range prefixes(a) {
		if slices.ContainsFunc(prefixes(b), p.Overlaps) {
			return true
		}
	}
	return false
}
