package policystatus

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/culvert-dev/culvert/gateway/subnets"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

var facts = Facts{ClusterUID: "c1", ClusterDomain: "cluster.local", Subnets: subnets.Result{
	Services: []subnets.Subnet{{Prefix: netip.MustParsePrefix("10.130.0.0/16"), Source: "ServiceCIDR kubernetes"}},
	Pods:     []subnets.Subnet{{Prefix: netip.MustParsePrefix("10.132.0.0/24"), Source: "podCIDRs of the nodes"}},
}}

func teamPolicy(name string, spec v1alpha1.Settings) *unstructured.Unstructured {
	raw, err := json.Marshal(v1alpha1.Policy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "culvert.dev/v1alpha1", Kind: v1alpha1.PolicyKind},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "culvert", UID: "u-1", Generation: 4, ResourceVersion: "1"}, Spec: spec})
	if err != nil {
		panic(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		panic(err)
	}
	return u
}

func newClient(objects ...runtime.Object) *fake.FakeDynamicClient {
	return fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{Resource: "PolicyList"}, objects...)
}

func run(t *testing.T, c *fake.FakeDynamicClient) (*Publisher, dynamic.ResourceInterface) {
	t.Helper()
	p := New(Config{Client: c, Namespace: "culvert", Name: "default"})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; goleak.VerifyNone(t) })
	return p, c.Resource(Resource).Namespace("culvert")
}

// await returns the status of the Policy once ok holds for it.
func await(t *testing.T, api dynamic.ResourceInterface, name string, ok func(v1alpha1.PolicyStatus) bool) v1alpha1.PolicyStatus {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		u, err := api.Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := decode(u)
		if err != nil {
			t.Fatal(err)
		}
		if ok(p.Status) {
			return p.Status
		}
		if time.Now().After(deadline) {
			t.Fatalf("the status stays %+v", p.Status)
		}
	}
}

func TestPublisherWritesAndFollows(t *testing.T) {
	c := newClient(teamPolicy("default", v1alpha1.Settings{}), teamPolicy("other", v1alpha1.Settings{}))
	p, api := run(t, c)
	p.Publish(facts)
	got := await(t, api, "default", func(s v1alpha1.PolicyStatus) bool { return s.ObservedGeneration == 4 })
	want := v1alpha1.PolicyStatus{ObservedGeneration: 4, ClusterUID: "c1", ClusterDomain: "cluster.local", Subnets: v1alpha1.ClusterSubnets{
		Services: []v1alpha1.Subnet{{CIDR: "10.130.0.0/16", Source: "ServiceCIDR kubernetes"}},
		Pods:     []v1alpha1.Subnet{{CIDR: "10.132.0.0/24", Source: "podCIDRs of the nodes"}}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	await(t, api, "default", func(v1alpha1.PolicyStatus) bool { return p.Ready() })

	more := facts
	more.Subnets.Pods = []subnets.Subnet{{Prefix: netip.MustParsePrefix("10.132.0.0/23"), Source: "podCIDRs of the nodes"}}
	p.Publish(more)
	await(t, api, "default", func(s v1alpha1.PolicyStatus) bool {
		return len(s.Subnets.Pods) == 1 && s.Subnets.Pods[0].CIDR == "10.132.0.0/23"
	})
	p.Publish(more)
	if n := patches(c); n != 2 {
		t.Errorf("%d writes for two changes", n)
	}
	if s := await(t, api, "other", func(v1alpha1.PolicyStatus) bool { return true }); s.ObservedGeneration != 0 {
		t.Errorf("another Policy was written: %+v", s)
	}
}

func patches(c *fake.FakeDynamicClient) (n int) {
	for _, a := range c.Actions() {
		if a.GetVerb() == "patch" {
			n++
		}
	}
	return n
}

func TestPublisherNamesProblems(t *testing.T) {
	bad := v1alpha1.Settings{Routing: v1alpha1.RoutingSettings{AllowConflictingSubnets: []string{"10.128.0.0/9", "ten"}},
		Transport: v1alpha1.TransportSettings{MTU: 7}}
	p, api := run(t, newClient(teamPolicy("default", bad)))
	p.Publish(facts)
	s := await(t, api, "default", func(s v1alpha1.PolicyStatus) bool { return len(s.Problems) > 0 })
	if len(s.Problems) != 2 || !strings.Contains(s.Problems[0], "routing.allowConflictingSubnets[1]") || !strings.Contains(s.Problems[1], "transport.mtu") {
		t.Errorf("problems are %q", s.Problems)
	}
	good := teamPolicy("default", v1alpha1.Settings{})
	good.SetResourceVersion("2") // the fake API leaves counting to us
	if _, err := api.Update(context.Background(), good, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, api, "default", func(s v1alpha1.PolicyStatus) bool { return s.ObservedGeneration == 4 && len(s.Problems) == 0 })
}

func TestPublisherWaitsForAPolicyAndTriesAgain(t *testing.T) {
	c := newClient()
	var attempts atomic.Int32
	c.PrependReactor("patch", "policies", func(ktesting.Action) (bool, runtime.Object, error) {
		return attempts.Add(1) <= 2, nil, errors.New("overloaded")
	})
	p, api := run(t, c)
	p.Publish(facts)
	if _, err := api.Create(context.Background(), teamPolicy("default", v1alpha1.Settings{}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, api, "default", func(s v1alpha1.PolicyStatus) bool { return s.ClusterUID == "c1" })
	if n := attempts.Load(); n != 3 {
		t.Errorf("%d attempts", n)
	}
}
