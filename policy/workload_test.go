package policy

import (
	"strings"
	"testing"
)

func TestParseWorkload(t *testing.T) {
	for in, want := range map[string]Workload{
		"gateway":                   {Name: "gateway"},
		" echo ":                    {Name: "echo"},
		"db.v2":                     {Name: "db.v2"},
		"shop/echo":                 {Namespace: "shop", Name: "echo"},
		"deploy/echo":               {Kind: KindDeployment, Name: "echo"},
		"Deployment/echo":           {Kind: KindDeployment, Name: "echo"},
		"deployments.apps/echo":     {Kind: KindDeployment, Name: "echo"},
		"deployment.apps/echo":      {Kind: KindDeployment, Name: "echo"},
		"rs/echo-5d4":               {Kind: KindReplicaSet, Name: "echo-5d4"},
		"replicasets/echo-5d4":      {Kind: KindReplicaSet, Name: "echo-5d4"},
		"sts/web":                   {Kind: KindStatefulSet, Name: "web"},
		"ds/log":                    {Kind: KindDaemonSet, Name: "log"},
		"shop/sts/web":              {Namespace: "shop", Kind: KindStatefulSet, Name: "web"},
		"deploy/daemonset/log":      {Namespace: "deploy", Kind: KindDaemonSet, Name: "log"},
		"deployment/gateway":        {Kind: KindDeployment, Name: "gateway"},
		"shop/gateway":              {Namespace: "shop", Name: "gateway"},
		"jobs/deployment/echo":      {Namespace: "jobs", Kind: KindDeployment, Name: "echo"},
		strings.Repeat("a", 200):    {Name: strings.Repeat("a", 200)},
		"shop/DaemonSets.apps/log":  {Namespace: "shop", Kind: KindDaemonSet, Name: "log"},
		"shop/deployment/deploy":    {Namespace: "shop", Kind: KindDeployment, Name: "deploy"},
		"1/2":                       {Namespace: "1", Name: "2"},
		"statefulset/statefulset.x": {Kind: KindStatefulSet, Name: "statefulset.x"},
	} {
		if got, err := ParseWorkload(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestParseWorkloadRefuses(t *testing.T) {
	const accepted = "; write gateway or [NAMESPACE/][KIND/]NAME, such as echo or shop/deployment/echo"
	for in, want := range map[string]string{
		"":                             `"" has "" for a name, which is up to 253 of`,
		"/echo":                        `has "" for a namespace`,
		"shop/":                        `has "" for a name`,
		"shop//echo":                   `has "" in place of one of the kinds deployment (deploy), replicaset (rs), statefulset (sts), daemonset (ds)`,
		"/deploy/echo":                 `has "" for a namespace`,
		"a/b/c/d":                      `has 4 parts`,
		"shop/deploymnt/echo":          `(did you mean deployment?)`,
		"pod/echo-0":                   `names a pod, which is none of the kinds deployment (deploy),`,
		"svc/echo":                     `(for a namespace of that name, write the kind as well)`,
		"shop/pod/echo-0":              `has "pod" in place of one of the kinds`,
		"Echo":                         `has "Echo" for a name`,
		"-echo":                        `has "-echo" for a name`,
		"echo-":                        `has "echo-" for a name`,
		"a..b":                         `has "a..b" for a name`,
		"Shop/echo":                    `has "Shop" for a namespace`,
		"shop.eu/echo":                 `has "shop.eu" for a namespace`,
		"deploy.apps/echo":             `has "deploy.apps" for a namespace`,
		strings.Repeat("a", 254):       `for a name, which is up to 253 of`,
		strings.Repeat("a", 64) + "/b": `for a namespace, which is up to 63 of`,
	} {
		got, err := ParseWorkload(in)
		if err == nil || got != (Workload{}) || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), accepted) {
			t.Errorf("%q: %+v, %v; want %q", in, got, err, want)
		}
	}
}

func TestOnlyTheBareWordIsTheGateway(t *testing.T) {
	for in, want := range map[string]bool{"gateway": true, "deployment/gateway": false, "shop/gateway": false, "gateway-2": false} {
		if w, err := ParseWorkload(in); err != nil || w.IsGateway() != want {
			t.Errorf("%q: gateway %v, %v", in, w.IsGateway(), err)
		}
	}
}

func FuzzParseWorkload(f *testing.F) {
	for _, seed := range []string{"gateway", "echo", "deploy/echo", "shop/ds/log", "shop/echo", "pod/x", "a/b/c/d", "Deployment.apps/x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w, err := ParseWorkload(s)
		if err != nil {
			if w != (Workload{}) {
				t.Fatalf("%q: an error and %+v", s, w)
			}
			return
		}
		again, err := ParseWorkload(w.String())
		if err != nil || again != w {
			t.Fatalf("%q is %+v; its normal form %q is %+v, %v", s, w, w, again, err)
		}
		if strings.Count(w.String(), "/") != strings.Count(strings.TrimSpace(s), "/") {
			t.Fatalf("%q has become %q", s, w)
		}
	})
}
