//go:build lab

package install

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/culvert-dev/culvert/deploy"
	"github.com/culvert-dev/culvert/node/failure"
)

// These tests need an API server and the rights of its administrator. CULVERT_TEST_KUBECONFIG names
// the kubeconfig of a cluster made for tests: users are impersonated, and everything happens in a
// namespace that the test makes and deletes, but for the custom resource definitions, which stay.

// Valid WireGuard public keys.
const (
	aKey       = "2JDbRjCtYmLlEXWkAsVZNXHtvlI8VfQTFw3jA4V0LXI="
	anotherKey = "QGlcP95qava3vX6xFjMOduVKj0jdUwbiB0XvWh3NKnA="
)

// TestOnACluster shares one installed chart; that its namespace goes at the end, with a Peer left in
// it, is part of the test (removeNamespace).
func TestOnACluster(t *testing.T) {
	l := newLab(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *lab)
	}{
		{"admission binds Peers to their users", bindsPeersToTheirUsers},
		{"schemas refuse bad values", refusesBadValues},
		{"an upgrade changes only what it names", changesOnlyWhatIsNamed},
		{"Pod Security restricted admits the gateway", isRestricted},
		{"missing rights are named before anything changes", namesMissingRights},
		{"the user's Role is what error messages print", hasTheUserRole},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, l) })
	}
}

// lab is a cluster with the chart in a namespace of its own.
type lab struct {
	*testing.T
	installer *Installer
	config    *rest.Config
	namespace string
}

// newLab installs the chart without waiting for the gateway: what is tested is the API server's part.
func newLab(t *testing.T) *lab {
	t.Helper()
	kubeconfig := os.Getenv("CULVERT_TEST_KUBECONFIG")
	if kubeconfig == "" {
		t.Fatal("CULVERT_TEST_KUBECONFIG is not set: it names the kubeconfig of a cluster made for tests (lab kubeconfig)")
	}
	flags := genericclioptions.NewConfigFlags(false)
	flags.KubeConfig = &kubeconfig
	cache := t.TempDir()
	flags.CacheDir = &cache
	l := &lab{T: t, namespace: fmt.Sprintf("culvert-test-%x", time.Now().UnixNano())}
	flags.Namespace = &l.namespace
	var err error
	if l.config, err = flags.ToRESTConfig(); err != nil {
		t.Fatal(err)
	}
	if l.installer, err = New(flags, l.namespace, testWriter{t}); err != nil {
		t.Fatal(err)
	}
	options := Options{CreateNamespace: true, Values: Values{
		Image: "culvert.dev/culvert-gateway:dev",
		Set:   []string{"image.pullPolicy=Never", "users[0].kind=Group,users[0].name=developers"},
	}}
	if err := l.installer.Install(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.removeNamespace)
	l.waitForAdmission()
	return l
}

// waitForAdmission waits until the API server has taken up the new admission policies, which takes
// it a second or so.
func (l *lab) waitForAdmission() {
	l.Helper()
	forged := peer("probe", "somebody-else")
	err := wait.PollUntilContextTimeout(l.Context(), 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := l.peersAs("bob", "developers").Create(ctx, forged, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy"), nil
	})
	if err != nil {
		l.Fatalf("a forged Peer is still not refused: %v", err)
	}
}

// testWriter sends progress to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// removeNamespace deletes the namespace with all that is in it, the chart's cluster-wide objects
// first, and fails if it does not go: nothing of the chart may hold it.
func (l *lab) removeNamespace() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := l.installer.Uninstall(ctx, UninstallOptions{Namespace: true}); err != nil {
		l.Error(err)
	}
}

// peersAs returns a client for Peers that acts as user, a member of groups.
func (l *lab) peersAs(user string, groups ...string) dynamic.ResourceInterface {
	config := rest.CopyConfig(l.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		l.Fatal(err)
	}
	return client.Resource(peerResource).Namespace(l.namespace)
}

func (l *lab) gatewayUser() string {
	return "system:serviceaccount:" + l.namespace + ":culvert-gateway"
}

// peer returns a valid Peer of user.
func peer(name, user string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "culvert.dev/v1alpha1", "kind": "Peer",
		"metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"user": user, "publicKey": aKey, "addresses": []any{"245.1.2.4/32", "fd00:245::4/128"},
			"client": map[string]any{"os": "linux/amd64", "version": "0.1.0-dev", "host": "ws-1.example"},
		},
	}}
}

// refused fails the test unless err is the API server's refusal with the words want.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("not refused; want %q", want)
	case !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err), !strings.Contains(err.Error(), want):
		t.Errorf("error %v, want a refusal with %q", err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func bindsPeersToTheirUsers(t *testing.T, l *lab) {
	ctx := t.Context()
	alice, bob, eve := l.peersAs("alice", "developers"), l.peersAs("bob", "developers"), l.peersAs("eve")
	label := []byte(`{"metadata":{"labels":{"touched":"yes"}}}`)

	_, err := alice.Create(ctx, peer("alice-laptop", "alice"), metav1.CreateOptions{})
	must(t, err)
	_, err = alice.Patch(ctx, "alice-laptop", types.MergePatchType, label, metav1.PatchOptions{})
	must(t, err)
	_, err = bob.Create(ctx, peer("bob-laptop", "alice"), metav1.CreateOptions{})
	refused(t, err, `spec.user is "alice" and you are "bob"`)
	_, err = eve.Create(ctx, peer("eve-laptop", "eve"), metav1.CreateOptions{})
	refused(t, err, `cannot create resource "peers"`)
	_, err = bob.Patch(ctx, "alice-laptop", types.MergePatchType, label, metav1.PatchOptions{})
	refused(t, err, `this Peer belongs to "alice" and you are "bob"`)
	_, err = alice.Patch(ctx, "alice-laptop", types.MergePatchType, []byte(`{"spec":{"user":"bob"}}`), metav1.PatchOptions{})
	refused(t, err, "spec.user of a Peer never changes")
	for _, spec := range []string{`{"publicKey":"` + anotherKey + `"}`, `{"addresses":["245.1.2.6/32"]}`} {
		_, err = alice.Patch(ctx, "alice-laptop", types.MergePatchType, []byte(`{"spec":`+spec+`}`), metav1.PatchOptions{})
		refused(t, err, "spec.publicKey and spec.addresses of a Peer never change")
	}
	twins := []byte(`{"spec":{"twins":[{"real":"10.130.0.0/16","virtual":"246.130.0.0/16"}]}}`)
	_, err = alice.Patch(ctx, "alice-laptop", types.MergePatchType, twins, metav1.PatchOptions{})
	must(t, err)
	refused(t, bob.Delete(ctx, "alice-laptop", metav1.DeleteOptions{}), `this Peer belongs to "alice"`)
	must(t, alice.Delete(ctx, "alice-laptop", metav1.DeleteOptions{}))

	t.Run("a holder of manage, and the gateway, delete others'", func(t *testing.T) {
		l.grantManage(t, "mallory")
		for _, user := range []string{"mallory", l.gatewayUser()} {
			_, err := alice.Create(ctx, peer("alice-laptop", "alice"), metav1.CreateOptions{})
			must(t, err)
			must(t, l.peersAs(user).Delete(ctx, "alice-laptop", metav1.DeleteOptions{}))
		}
	})
	t.Run("status is the gateway's", func(t *testing.T) {
		_, err := alice.Create(ctx, peer("alice-laptop", "alice"), metav1.CreateOptions{})
		must(t, err)
		status := []byte(`{"status":{"carrier":"apiserver","gateway":{"pod":"culvert-gateway-0","publicKey":"` + aKey + `"}}}`)
		admin := l.installer.dynamic.Resource(peerResource).Namespace(l.namespace)
		_, err = admin.Patch(ctx, "alice-laptop", types.MergePatchType, status, metav1.PatchOptions{}, "status")
		refused(t, err, "written by its gateway alone")
		_, err = alice.Patch(ctx, "alice-laptop", types.MergePatchType, status, metav1.PatchOptions{}, "status")
		refused(t, err, "peers/status")
		_, err = l.peersAs(l.gatewayUser()).Patch(ctx, "alice-laptop", types.MergePatchType, status, metav1.PatchOptions{}, "status")
		must(t, err)
		_, err = l.peersAs(l.gatewayUser()).Patch(ctx, "alice-laptop", types.MergePatchType, label, metav1.PatchOptions{})
		refused(t, err, `cannot patch resource "peers"`)
	})
	// A Peer is left behind: the namespace must go all the same, see removeNamespace.
}

// grantManage binds a Role that lets user change Peers of others.
func (l *lab) grantManage(t *testing.T, user string) {
	t.Helper()
	rbac := l.installer.typed.RbacV1()
	_, err := rbac.Roles(l.namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "manage"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"culvert.dev"}, Resources: []string{"peers"}, Verbs: []string{"manage", "delete"}}},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = rbac.RoleBindings(l.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "manage"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "manage"},
		Subjects:   []rbacv1.Subject{{Kind: "User", Name: user, APIGroup: rbacv1.GroupName}},
	}, metav1.CreateOptions{})
	must(t, err)
}

func refusesBadValues(t *testing.T, l *lab) {
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	type row struct {
		name  string
		path  []string
		value any
		want  string // "" for a value that is accepted
	}
	check := func(client dynamic.ResourceInterface, base func() *unstructured.Unstructured, rows []row) {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				object := base()
				if err := unstructured.SetNestedField(object.Object, row.value, append([]string{"spec"}, row.path...)...); err != nil {
					t.Fatal(err)
				}
				_, err := client.Create(t.Context(), object, dryRun)
				if row.want == "" {
					must(t, err)
				} else {
					refused(t, err, row.want)
				}
			})
		}
	}
	list := func(entries ...string) []any {
		out := []any{}
		for _, e := range entries {
			out = append(out, e)
		}
		return out
	}

	check(l.peersAs("alice", "developers"), func() *unstructured.Unstructured { return peer("probe", "alice") }, []row{
		{"a user with an escape sequence", []string{"user"}, "al\x1b[31mice", "control characters"},
		{"a short key", []string{"publicKey"}, "abc=", "WireGuard public key"},
		{"a key of 33 bytes", []string{"publicKey"}, strings.Repeat("A", 44), "WireGuard public key"},
		{"one address is enough", []string{"addresses"}, list("245.1.2.4/32"), ""},
		{"no address", []string{"addresses"}, list(), "should have at least 1 item"},
		{"an address without a length", []string{"addresses"}, list("245.1.2.4"), "not one address"},
		{"a subnet for an address", []string{"addresses"}, list("245.1.2.0/24"), "not one address"},
		{"the gateway's own half", []string{"addresses"}, list("245.1.2.5/32"), "is odd"},
		{"the gateway's own half of IPv6", []string{"addresses"}, list("fd00::f/128"), "is odd"},
		{"two of one family", []string{"addresses"}, list("245.1.2.4/32", "245.1.2.6/32"), "two families"},
		{"loopback", []string{"addresses"}, list("127.0.0.2/32"), "loopback"},
		{"an IPv4-mapped address", []string{"addresses"}, list("::ffff:245.1.2.4/128"), "not one address"},
		{"twins", []string{"twins"}, []any{map[string]any{"real": "10.130.0.0/16", "virtual": "246.130.0.0/16"}}, ""},
		{"twins of two lengths", []string{"twins"}, []any{map[string]any{"real": "10.130.0.0/16", "virtual": "246.0.0.0/8"}}, "same family and length"},
		{"a twin with host bits", []string{"twins"}, []any{map[string]any{"real": "10.130.0.1/16", "virtual": "246.130.0.0/16"}}, "without host bits"},
		{"a host name with a line break", []string{"client", "host"}, "a\nb", "letters, digits"},
		{"an endless host name", []string{"client", "host"}, strings.Repeat("a", 300), "Too long"},
	})

	via := func(subnet string) map[string]any { return map[string]any{"subnet": subnet, "workload": "gateway"} }
	policies := l.installer.dynamic.Resource(policyResource).Namespace(l.namespace)
	policy := func() *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "culvert.dev/v1alpha1", "kind": "Policy", "metadata": map[string]any{"name": "probe"}, "spec": map[string]any{},
		}}
	}
	check(policies, policy, []row{
		{"prefixes of both families", []string{"routing", "allowConflictingSubnets"}, list("10.128.0.0/9", "fd00:1::/32"), ""},
		{"a list that extends", []string{"routing", "neverProxySubnets"}, list("+10.0.0.0/8", "+fd00::/8"), ""},
		{"a list that half extends", []string{"routing", "neverProxySubnets"}, list("+10.0.0.0/8", "fd00::/8"), "either all entries begin with +"},
		{"a prefix too long", []string{"routing", "allowConflictingSubnets"}, list("10.128.0.0/33"), `"10.128.0.0/33" is not an address prefix`},
		{"a prefix with host bits", []string{"routing", "alsoProxySubnets"}, list("10.128.0.1/9"), "has bits set behind its length"},
		{"a word for a prefix", []string{"cluster", "podSubnets"}, list("corporate"), `"corporate" is not an address prefix`},
		{"a text where a list belongs", []string{"cluster", "serviceSubnets"}, "10.0.0.0/8", "must be of type array"},
		{"symbols", []string{"routing", "allowConflictingSubnets"}, list("service", "10.132.0.0/16"), ""},
		{"a symbol where only prefixes are", []string{"routing", "neverProxySubnets"}, list("pods"), `"pods" is not an address prefix`},
		{"conflicts left to others", []string{"routing", "onConflict"}, "yield", ""},
		{"conflicts settled by an unknown word", []string{"routing", "onConflict"}, "yeild", "supported values"},
		{"conflicts prefix by prefix", []string{"routing", "conflicts"}, []any{map[string]any{"subnet": "10.132.64.0/18", "resolve": "yield"}, map[string]any{"subnet": "all", "resolve": "allow"}}, ""},
		{"a conflict without a resolution", []string{"routing", "conflicts"}, []any{map[string]any{"subnet": "10.132.64.0/18"}}, "resolve: Required value"},
		{"a conflict of a word", []string{"routing", "conflicts"}, []any{map[string]any{"subnet": "corporate", "resolve": "allow"}}, `"corporate" is not an address prefix`},
		{"conflicts behind virtual addresses", []string{"routing"}, map[string]any{"onConflict": "virtualize", "conflicts": []any{map[string]any{"subnet": "pods", "resolve": "virtualize"}}}, ""},
		{"virtual subnets", []string{"cluster"}, map[string]any{"virtualIPSubnet": "211.55.48.0/20", "virtualIPv6Subnet": "fd00:246::/48"}, ""},
		{"virtual subnets to be found", []string{"cluster"}, map[string]any{"virtualIPSubnet": "", "virtualIPv6Subnet": ""}, ""},
		{"an IPv6 prefix for IPv4", []string{"cluster", "virtualIPSubnet"}, "fd00:246::/48", "is not an IPv4 prefix of length 4 to 28"},
		{"a virtual subnet too small", []string{"cluster", "virtualIPSubnet"}, "246.0.0.0/29", "of length 4 to 28"},
		{"a virtual subnet with host bits", []string{"cluster", "virtualIPSubnet"}, "246.0.0.1/8", "without bits set behind its length"},
		{"a virtual subnet inside what others use", []string{"cluster", "virtualIPSubnet"}, "100.96.0.0/16", "overlaps what others use"},
		{"a virtual subnet around loopback", []string{"cluster", "virtualIPSubnet"}, "112.0.0.0/4", "overlaps what others use"},
		{"a global prefix for IPv6", []string{"cluster", "virtualIPv6Subnet"}, "2001:db8::/48", "is not a prefix inside fc00::/7"},
		{"a virtual subnet of IPv6 too large", []string{"cluster", "virtualIPv6Subnet"}, "fc00::/16", "of length 32 to 64"},
		{"subnets by a workload", []string{"proxyVia"}, []any{via("+pods"), via("+10.130.0.0/17")}, ""},
		{"a workload that is not there", []string{"proxyVia"}, []any{map[string]any{"subnet": "all", "workload": "echo"}}, `supported values: "gateway"`},
		{"a subnet twice", []string{"proxyVia"}, []any{via("pods"), via("pods")}, "a subnet is there twice"},
		{"all and one of them", []string{"proxyVia"}, []any{via("also"), via("all")}, "all means service, pods and also as well"},
		{"subnets of which one extends", []string{"proxyVia"}, []any{via("+pods"), via("service")}, "either all subnets begin with +"},
		{"enforced keys", []string{"enforce"}, list("routing.allowConflictingSubnets", "transport.mtu", "proxyVia", "cluster.virtualIPv6Subnet"), ""},
		{"an enforced sentence", []string{"enforce"}, list("no VPN at all"), "is not the path of a key"},
		{"namespaces", []string{"dns", "namespaces"}, list("default", "shop-1"), ""},
		{"a namespace in capitals", []string{"dns", "namespaces"}, list("Shop"), "is not the name of a namespace"},
		{"suffixes", []string{"dns", "includeSuffixes"}, list("corp.example", "_tcp.corp.example."), ""},
		{"a suffix with an empty label", []string{"dns", "includeSuffixes"}, list("corp..example"), "is not a domain"},
		{"a time-out", []string{"dns", "lookupTimeout"}, "1.5s", ""},
		{"a time-out without a unit", []string{"dns", "lookupTimeout"}, "4", "is not a duration between"},
		{"a time-out of hours", []string{"dns", "lookupTimeout"}, "2h", "is not a duration between"},
		{"an MTU left to the route", []string{"transport", "mtu"}, int64(0), ""},
		{"an MTU below IPv6's least", []string{"transport", "mtu"}, int64(1200), "1280 to 9000"},
	})
}

func changesOnlyWhatIsNamed(t *testing.T, l *lab) {
	ctx := t.Context()
	upgrade := func(sets ...string) {
		t.Helper()
		if err := l.installer.Upgrade(ctx, Options{Values: Values{Set: sets}}); err != nil {
			t.Fatal(err)
		}
	}
	upgrade("client.routing.allowConflictingSubnets={10.128.0.0/9}")
	upgrade("client.dns.namespaces={shop}")
	found, err := l.installer.dynamic.Resource(policyResource).Namespace(l.namespace).Get(ctx, "default", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	allowed, _, _ := unstructured.NestedStringSlice(found.Object, "spec", "routing", "allowConflictingSubnets")
	namespaces, _, _ := unstructured.NestedStringSlice(found.Object, "spec", "dns", "namespaces")
	if fmt.Sprint(allowed, namespaces) != "[10.128.0.0/9] [shop]" {
		t.Errorf("the Policy holds %v and %v after two upgrades", allowed, namespaces)
	}
	for _, takenAway := range []string{"client.routing.allowConflictingSubnets=null", "client.dns.namespaces={}", "client.dns=null"} {
		upgrade(takenAway)
	}
	found, err = l.installer.dynamic.Resource(policyResource).Namespace(l.namespace).Get(ctx, "default", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if spec, _, _ := unstructured.NestedMap(found.Object, "spec"); len(spec) > 0 {
		t.Errorf("the Policy still holds %v after all was taken away", spec)
	}
	set, err := l.installer.typed.AppsV1().StatefulSets(l.namespace).Get(ctx, workload, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Spec.Template.Spec.Containers[0].Image; got != "culvert.dev/culvert-gateway:dev" {
		t.Errorf("the image became %s", got)
	}
	if set.Generation != 1 {
		t.Errorf("settings of the team changed the StatefulSet (generation %d): the gateway would restart", set.Generation)
	}
}

func isRestricted(t *testing.T, l *lab) {
	namespace, err := l.installer.typed.CoreV1().Namespaces().Get(t.Context(), l.namespace, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := namespace.Labels["pod-security.kubernetes.io/enforce"]; got != "restricted" {
		t.Errorf("the namespace enforces %q", got)
	}
	// The gateway's own pod, made from the template as it stands in the cluster.
	set, err := l.installer.typed.AppsV1().StatefulSets(l.namespace).Get(t.Context(), workload, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: set.Spec.Template.Spec}
	_, err = l.installer.typed.CoreV1().Pods(l.namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	must(t, err)
	pod.Spec.SecurityContext = nil
	_, err = l.installer.typed.CoreV1().Pods(l.namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	refused(t, err, "PodSecurity")
}

func namesMissingRights(t *testing.T, l *lab) {
	kubeconfig, user := os.Getenv("CULVERT_TEST_KUBECONFIG"), "carol"
	flags := genericclioptions.NewConfigFlags(false)
	flags.KubeConfig, flags.Impersonate = &kubeconfig, &user
	name := l.namespace + "-other"
	flags.Namespace = &name
	carol, err := New(flags, name, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	err = carol.Install(t.Context(), Options{CreateNamespace: true})
	if err == nil || failure.Of(err).Code != failure.Permission {
		t.Fatalf("error %v, want a missing right", err)
	}
	for _, want := range []string{
		"get, create, patch statefulsets.apps in namespace " + name,
		"validatingadmissionpolicies.admissionregistration.k8s.io",
		"customresourcedefinitions.apiextensions.k8s.io",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q:\n%v", want, err)
		}
	}
	_, err = l.installer.typed.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("namespace %s: %v, want it not made", name, err)
	}
}

func hasTheUserRole(t *testing.T, l *lab) {
	roles := l.installer.dynamic.Resource(schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"})
	found, err := roles.Namespace(l.namespace).Get(t.Context(), deploy.UserRoleName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := documents(deploy.UserRole(l.namespace))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(found.Object["rules"]) != fmt.Sprint(text[0].Object["rules"]) {
		t.Errorf("the cluster grants %v, the error message prints %v", found.Object["rules"], text[0].Object["rules"])
	}
}
