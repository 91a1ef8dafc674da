package connection

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
	"github.com/culvert-dev/culvert/node/report"
	"github.com/culvert-dev/culvert/policy"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

func TestNothingIsShownBeforeItIsDecided(t *testing.T) {
	s := &Session{notices: notices{}}
	s.publishView()
	if _, err := s.Plan(); err == nil || !strings.Contains(err.Error(), "nothing is decided yet") {
		t.Errorf("plan: %v", err)
	}
	if _, err := s.Why(t.Context(), "10.130.0.1"); err == nil {
		t.Error("why: no error")
	}
}

func TestPlanAndWhyOfAConnection(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	s.publishView()
	plan, err := s.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if !plan.InForce || plan.Refused || !plan.Plan.Equal(s.plan) || plan.Basis == nil || plan.Basis.Interface != "culvert0" {
		t.Errorf("%+v", plan)
	}
	why, err := s.Why(t.Context(), "10.132.5.6")
	if err != nil {
		t.Fatal(err)
	}
	if len(why.Addresses) != 1 || why.Addresses[0].Outcome != policy.OutcomeTunnel || !why.InForce || why.Trace != nil {
		t.Fatalf("%+v", why)
	}
	if got := why.Addresses[0]; got.Interface != "culvert0" || len(got.Claims) != 1 || got.Claims[0].Owner != "OpenVPN" {
		t.Errorf("%+v", got)
	}
	if _, err := s.Why(t.Context(), "echo.default"); err == nil || !strings.Contains(err.Error(), "echo.default is a name") {
		t.Errorf("a name without a resolver: %v", err)
	}
}

// TestWhyFollowsWhatWasAgreedTo: while the user has not agreed to what the Policy takes, an address in
// it is explained as it is, and not as the Policy would have it.
func TestWhyFollowsWhatWasAgreedTo(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	s.trusted = ""
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	s.plan = policy.NewPlan(s.planInput(s.agreedOnly(s.settings, s.cluster), s.cluster))
	s.publishView()
	why, err := s.Why(t.Context(), "10.132.5.6")
	if err != nil || why.Addresses[0].Outcome != policy.OutcomeOpen {
		t.Errorf("%+v, %v", why, err)
	}
}

// TestLookingWhileTheSessionGoesOn is for the race detector.
func TestLookingWhileTheSessionGoesOn(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	s.publishView()
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for range 50 {
				_, err := s.Plan()
				_, err2 := s.Why(t.Context(), "10.132.5.6")
				if err != nil || err2 != nil {
					t.Error(err, err2)
				}
			}
		})
	}
	for i := range 200 {
		s.knowledge.facts = behindVPN()
		s.settings, s.cluster, _ = s.merge(s.followed)
		s.iface = []string{"culvert0", "culvert1"}[i%2]
		s.setPlan(policy.NewPlan(s.planInput(s.settings, s.cluster)))
		s.publishView()
	}
	others.Wait()
}

// fakeCluster is an API server that lets everything be done and has p as its Policy; nil for none.
func fakeCluster(p *v1alpha1.Policy) http.Handler {
	mux := http.NewServeMux()
	reply := func(code int, v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			json.NewEncoder(w).Encode(v) //nolint:errcheck // the client is gone
		}
	}
	type object map[string]any
	mux.Handle("POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews", reply(http.StatusCreated, object{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "status": object{"incomplete": true}}))
	mux.Handle("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", reply(http.StatusCreated, object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "status": object{"userInfo": object{"username": "ann"}}}))
	items := []any{}
	if p != nil {
		p.APIVersion, p.Kind = v1alpha1.Group+"/"+v1alpha1.Version, policy.PolicyKind
		items = append(items, p)
	}
	mux.Handle("GET /apis/culvert.dev/v1alpha1/namespaces/culvert/policies", reply(http.StatusOK, object{
		"apiVersion": v1alpha1.Group + "/" + v1alpha1.Version, "kind": "PolicyList", "metadata": object{}, "items": items}))
	return mux
}

// asking returns a request whose API server is handler.
func asking(t *testing.T, handler http.Handler) report.Request {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"k","cluster":{"server":"` + server.URL + `"}}],` +
		`"contexts":[{"name":"c","context":{"cluster":"k","user":""}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return report.Request{Name: "default", Kube: kube.Options{Kubeconfig: path}}
}

// example is a Policy of a cluster in ranges for documentation (RFC 5737), which no host routes.
func example() *v1alpha1.Policy {
	p := team("1", nil)
	p.Status.Subnets = v1alpha1.ClusterSubnets{
		Services: []v1alpha1.Subnet{{CIDR: "198.51.100.0/24", Source: "test"}},
		Pods:     []v1alpha1.Subnet{{CIDR: "203.0.113.0/24", Source: "test"}},
	}
	return p
}

func TestPreview(t *testing.T) {
	team := example()
	team.Spec.Routing.NeverProxySubnets = []string{"203.0.113.9/32"}
	preview, err := NewPreview(t.Context(), asking(t, fakeCluster(team)), nil)
	if err != nil {
		t.Fatal(err)
	}
	plan := preview.Plan()
	if plan.InForce || plan.Refused || plan.Basis != nil || len(plan.Consent) > 0 {
		t.Errorf("%+v", plan)
	}
	through := map[netip.Prefix]policy.RouteKind{}
	for _, r := range plan.Plan.Routes {
		through[r.Prefix] = r.Kind
	}
	for prefix, want := range map[string]policy.RouteKind{"198.51.100.0/24": policy.RouteTunnel, "203.0.113.0/24": policy.RouteTunnel, "203.0.113.9/32": policy.RouteThrow} {
		if through[netip.MustParsePrefix(prefix)] != want {
			t.Errorf("%s: %q, want %q", prefix, through[netip.MustParsePrefix(prefix)], want)
		}
	}
	again, err := NewPreview(t.Context(), asking(t, fakeCluster(team)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.view.input.Overlay, preview.view.input.Overlay) {
		t.Errorf("the same preview has other addresses: %v and %v", again.view.input.Overlay, preview.view.input.Overlay)
	}
	why, err := preview.Why(t.Context(), netip.MustParseAddr("203.0.113.9"))
	if err != nil || why.InForce || why.Addresses[0].Outcome != policy.OutcomeNever || why.Addresses[0].Kernel == (api.Kernel{}) {
		t.Errorf("%+v, %v", why, err)
	}
}

// TestPreviewBesideAConnection: what the running connection has on the host is its successor's.
func TestPreviewBesideAConnection(t *testing.T) {
	s := connected(t, team("1", []string{"10.128.0.0/9"}, "10.132.0.0/16"))
	s.overlay = []netip.Prefix{netip.MustParsePrefix("245.1.2.4/31"), netip.MustParsePrefix("fd33::4/127")}
	s.knowledge.resolver.Servers = nil
	s.resolver.Servers = []netip.Addr{netip.MustParseAddr("203.0.113.53")}
	s.publishView()
	running, err := s.Plan()
	if err != nil {
		t.Fatal(err)
	}
	preview, err := NewPreview(t.Context(), asking(t, fakeCluster(example())), running.Basis)
	if err != nil {
		t.Fatal(err)
	}
	in := preview.view.input
	if in.Own != s.view.Load().input.Own || !slices.Equal(in.Overlay, s.overlay) {
		t.Errorf("own %+v, overlay %v", in.Own, in.Overlay)
	}
	if got := preview.Plan().Plan.Protected; len(got) != 1 || got[0].Prefix.Addr() != s.resolver.Servers[0] {
		t.Errorf("protected %v, want the resolver that the connection found", got)
	}
}

func TestPreviewTellsWhatConnectWouldSay(t *testing.T) {
	consent := example()
	consent.Spec.Routing.AlsoProxySubnets = []string{"192.0.2.0/24"}
	request := asking(t, fakeCluster(consent))
	preview, err := NewPreview(t.Context(), request, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := preview.Plan().Consent; len(got) != 1 || !strings.Contains(got[0], "192.0.2.0/24") {
		t.Errorf("consent %q", got)
	}
	request.TrustPolicy = true
	if preview, err = NewPreview(t.Context(), request, nil); err != nil || len(preview.Plan().Consent) > 0 {
		t.Errorf("agreed to, and asked again: %+v, %v", preview, err)
	}
	for name, row := range map[string]struct {
		handler http.Handler
		code    failure.Code
	}{
		"no rights":       {refusing, failure.Permission},
		"not installed":   {fakeCluster(nil), failure.GatewayState},
		"services only":   {fakeCluster(team("1", nil)), 0},
		"no subnets":      {fakeCluster(&v1alpha1.Policy{ObjectMeta: example().ObjectMeta}), failure.GatewayState},
		"a server error":  {http.NotFoundHandler(), failure.GatewayState},
		"enforced beyond": {fakeCluster(enforcing()), failure.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			request := asking(t, row.handler)
			request.Flags.Routing.AllowConflictingSubnets = []string{"10.0.0.0/8"}
			_, err := NewPreview(t.Context(), request, nil)
			if f := failure.Of(err); row.code != 0 && (f == nil || f.Code != row.code) || row.code == 0 && err != nil {
				t.Errorf("%v, want code %d", err, row.code)
			}
		})
	}
}

// enforcing is example's Policy, but nobody may take anything.
func enforcing() *v1alpha1.Policy {
	p := example()
	p.Spec.Enforce = []string{"routing.allowConflictingSubnets"}
	return p
}

func TestEffectiveSettingsSayWhatIsMissing(t *testing.T) {
	team := example()
	team.Spec.Transport.MTU = 1300
	value := func(request report.Request) (string, []string) {
		t.Helper()
		settings, missing, err := EffectiveSettings(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range settings {
			if e.Key == "transport.mtu" {
				return e.Value + " " + e.Sources[0].String(), missing
			}
		}
		return "", missing
	}
	if got, missing := value(asking(t, fakeCluster(team))); got != "1300 policy Policy culvert/default" || len(missing) > 0 {
		t.Errorf("%q, missing %q", got, missing)
	}
	if got, missing := value(asking(t, refusing)); got != "0 default" || len(missing) != 1 || !strings.Contains(missing[0], "the Policy's layer is missing") {
		t.Errorf("%q, missing %q", got, missing)
	}
	team.Status.Problems = []string{"spec.routing: wrong"}
	if got, missing := value(asking(t, fakeCluster(team))); got != "0 default" || len(missing) != 1 || !strings.Contains(missing[0], "spec.routing: wrong") {
		t.Errorf("%q, missing %q", got, missing)
	}
}

func TestAgreementTo(t *testing.T) {
	team := example()
	request := asking(t, fakeCluster(team))
	client, err := kube.Load(request.Kube)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want Agreement) {
		t.Helper()
		if got, err := AgreementTo(request, client, team); err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	check(NothingTaken)
	team.Spec.Routing.AlsoProxySubnets = []string{"192.0.2.0/24"}
	check(NotAgreed)
	preview, err := NewPreview(t.Context(), asking(t, fakeCluster(team)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := rememberConsent(preview.consent.Hash); err != nil {
		t.Fatal(err)
	}
	check(Agreed)
}
