package subnets

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	ktesting "k8s.io/client-go/testing"
)

func object(apiVersion, kind, name string, fields map[string]any) *unstructured.Unstructured {
	o := map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name}}
	if kind == "Pod" {
		o["metadata"].(map[string]any)["namespace"] = "ns"
	}
	for k, v := range fields {
		o[k] = v
	}
	return &unstructured.Unstructured{Object: o}
}

func node(name string, cidrs ...any) *unstructured.Unstructured {
	return object("v1", "Node", name, map[string]any{
		"spec":   map[string]any{"podCIDRs": cidrs},
		"status": map[string]any{"images": []any{"much", "that", "nobody", "reads"}}})
}

func serviceCIDR(version, name string, cidrs ...any) *unstructured.Unstructured {
	return object("networking.k8s.io/"+version, "ServiceCIDR", name, map[string]any{"spec": map[string]any{"cidrs": cidrs}})
}

func pod(name, ip string, hostNetwork bool, phase string) *unstructured.Unstructured {
	return object("v1", "Pod", name, map[string]any{
		"spec":   map[string]any{"hostNetwork": hostNetwork, "containers": []any{"much"}},
		"status": map[string]any{"phase": phase, "podIPs": []any{map[string]any{"ip": ip}}}})
}

// newClient serves the ServiceCIDR API in the given version, "" for none.
func newClient(version string, objects ...runtime.Object) *fake.FakeDynamicClient {
	c := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		nodesResource: "NodeList", podsResource: "PodList", servicesResource: "ServiceList",
		serviceCIDRs[0]: "ServiceCIDRList", serviceCIDRs[1]: "ServiceCIDRList",
	}, objects...)
	c.PrependReactor("list", "servicecidrs", func(a ktesting.Action) (bool, runtime.Object, error) {
		if a.GetResource().Version != version {
			return true, nil, apierrors.NewNotFound(a.GetResource().GroupResource(), "")
		}
		return false, nil, nil
	})
	return c
}

// discover runs a Discoverer and returns its results as text.
func discover(t *testing.T, cfg Config) <-chan string {
	t.Helper()
	results := make(chan string, 16)
	cfg.Namespace = "culvert"
	cfg.OnChange = func(r Result) { results <- show(r) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); New(cfg).Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; goleak.VerifyNone(t) })
	return results
}

func expect(t *testing.T, results <-chan string, want string) {
	t.Helper()
	select {
	case got := <-results:
		if got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	case <-time.After(8 * time.Second):
		t.Fatalf("never: %s", want)
	}
}

func TestDiscovererFollowsTheCluster(t *testing.T) {
	c := newClient("v1", serviceCIDR("v1", "kubernetes", "10.130.0.0/16"), node("n1", "10.132.0.0/24"))
	results := discover(t, Config{Client: c, ClusterScope: true, Own: addrs("10.132.0.7")})
	expect(t, results, "svc 10.130.0.0/16 (ServiceCIDR kubernetes); pods 10.132.0.0/24 (podCIDRs of the nodes)")

	ctx := context.Background()
	if _, err := c.Resource(nodesResource).Create(ctx, node("n2", "10.132.1.0/24"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, results, "svc 10.130.0.0/16 (ServiceCIDR kubernetes); pods 10.132.0.0/23 (podCIDRs of the nodes)")
	if _, err := c.Resource(serviceCIDRs[0]).Create(ctx, serviceCIDR("v1", "more", "10.131.0.0/24"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, results, "svc 10.130.0.0/16 (ServiceCIDR kubernetes) 10.131.0.0/24 (ServiceCIDR more); pods 10.132.0.0/23 (podCIDRs of the nodes)")
	for _, a := range c.Actions() {
		if a.GetResource() == podsResource {
			t.Errorf("pods were read although the nodes say it: %v", a)
		}
	}
}

func TestDiscovererFallsBack(t *testing.T) {
	c := newClient("", // no ServiceCIDRs, and podCIDRs that the CNI ignores
		node("n1", "10.244.0.0/24"),
		pod("a", "192.168.7.9", false, "Running"), pod("b", "192.168.9.1", false, "Pending"),
		pod("host", "172.16.0.1", true, "Running"), pod("done", "192.168.200.1", false, "Succeeded"))
	c.PrependReactor("create", "services", func(a ktesting.Action) (bool, runtime.Object, error) {
		if o := a.(ktesting.CreateActionImpl).CreateOptions; len(o.DryRun) == 0 {
			t.Error("a Service was really created")
		}
		return true, nil, errors.New("the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/12")
	})
	results := discover(t, Config{Client: c, ClusterScope: true, Own: addrs("192.168.7.200")})
	expect(t, results, "svc 10.96.0.0/12 (answer of the API server); pods 192.168.7.0/24 (addresses of the pods) 192.168.9.0/24 (addresses of the pods)")

	// A pod that goes takes nothing with it, one that comes adds its prefix.
	ctx, api := context.Background(), c.Resource(podsResource).Namespace("ns")
	if err := api.Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Create(ctx, pod("c", "192.168.10.1", false, "Running"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, results, "svc 10.96.0.0/12 (answer of the API server); pods 192.168.7.0/24 (addresses of the pods) "+
		"192.168.9.0/24 (addresses of the pods) 192.168.10.0/24 (addresses of the pods)")
}

func TestDiscovererWithBetaServiceCIDRs(t *testing.T) {
	c := newClient("v1beta1", serviceCIDR("v1beta1", "kubernetes", "10.130.0.0/16", "fd00:130::/108"), node("n1", "10.132.0.0/24"))
	results := discover(t, Config{Client: c, ClusterScope: true, Own: addrs("10.132.0.7")})
	expect(t, results, "svc 10.130.0.0/16 (ServiceCIDR kubernetes) fd00:130::/108 (ServiceCIDR kubernetes); pods 10.132.0.0/24 (podCIDRs of the nodes)")
}

func TestDiscovererWithoutRights(t *testing.T) {
	c := newClient("v1")
	c.PrependReactor("*", "*", func(a ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "", errors.New("no"))
	})
	results := discover(t, Config{Client: c, ClusterScope: true, Own: addrs("10.132.0.7"), Pods: prefixes("10.132.0.0/16")})
	expect(t, results, "svc; pods 10.132.0.0/16 (chart value discovery.podSubnets)")
}

func TestDiscovererWithoutClusterScope(t *testing.T) {
	// No client: nothing is asked.
	results := discover(t, Config{Own: addrs("10.132.0.7"), Services: prefixes("10.130.0.0/16"), Pods: prefixes("10.132.0.0/16")})
	expect(t, results, "svc 10.130.0.0/16 (chart value discovery.serviceSubnets); pods 10.132.0.0/16 (chart value discovery.podSubnets)")
}

func TestTrimKeepsWhatIsRead(t *testing.T) {
	u := pod("a", "192.168.7.9", false, "Running")
	u.SetResourceVersion("9")
	want, _ := podAddrs(u)
	trim(u)
	if got, err := podAddrs(u); err != nil || len(got) != 1 || got[0] != want[0] || u.GetName() != "a" || u.GetResourceVersion() != "9" {
		t.Errorf("after trimming: %v, %v, %v", got, err, u.Object)
	}
	if _, ok, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "containers"); ok {
		t.Error("the containers were kept")
	}
	n := node("n1", "10.132.0.0/24")
	trim(n)
	if got, err := nodeCIDRs(n); err != nil || len(got) != 1 {
		t.Errorf("after trimming: %v, %v", got, err)
	}
}
