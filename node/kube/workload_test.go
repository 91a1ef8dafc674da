package kube

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy"
)

// inCluster answers for the workloads, given as KIND/NAME or as NAMESPACE/KIND/NAME, else of namespace
// shop; those are all the namespaces there are, and team. A kind in hidden may not be seen.
func (api *fakeAPI) inCluster(t *testing.T, hidden []string, names ...string) {
	t.Helper()
	spaces := map[string]bool{"shop": true, "team": true}
	there := map[string][]any{} // by KIND in NAMESPACE
	for _, name := range names {
		w, err := policy.ParseWorkload(name)
		if err != nil {
			t.Fatal(err)
		}
		if w.Namespace == "" {
			w.Namespace = "shop"
		}
		spaces[w.Namespace] = true
		key := string(w.Kind) + "s in " + w.Namespace
		there[key] = append(there[key], workloadJSON(w, ""))
	}
	api.mux.HandleFunc("GET /apis/apps/v1/namespaces/{ns}/{kind}", func(w http.ResponseWriter, r *http.Request) {
		kind, ns := r.PathValue("kind"), r.PathValue("ns")
		if slices.Contains(hidden, kind) {
			writeAnswer(w, 403, refused("list", kind))
			return
		}
		writeAnswer(w, 200, object{"apiVersion": "apps/v1", "kind": "List", "items": append([]any{}, there[kind+" in "+ns]...)})
	})
	api.mux.HandleFunc("GET /apis/apps/v1/namespaces/{ns}/{kind}/{name}", func(w http.ResponseWriter, r *http.Request) {
		kind, ns, name := r.PathValue("kind"), r.PathValue("ns"), r.PathValue("name")
		if slices.Contains(hidden, kind) {
			writeAnswer(w, 403, refused("get", kind))
			return
		}
		for _, o := range there[kind+" in "+ns] {
			if o.(object)["metadata"].(object)["name"] == name {
				writeAnswer(w, 200, o)
				return
			}
		}
		writeAnswer(w, 404, status(404, "NotFound", kind+".apps \""+name+"\" not found", object{"name": name, "kind": kind}))
	})
	api.mux.HandleFunc("GET /api/v1/namespaces", func(w http.ResponseWriter, _ *http.Request) {
		if slices.Contains(hidden, "namespaces") {
			writeAnswer(w, 403, refused("list", "namespaces"))
			return
		}
		var items []any
		for name := range spaces {
			items = append(items, object{"metadata": object{"name": name}})
		}
		writeAnswer(w, 200, object{"apiVersion": "v1", "kind": "NamespaceList", "items": items})
	})
}

// workloadJSON is a workload whose UID is that of KIND/NAME, owned by the object with UID owner.
func workloadJSON(w policy.Workload, owner string) object {
	meta := object{"name": w.Name, "namespace": w.Namespace, "uid": string(w.Kind) + "/" + w.Name}
	if owner != "" {
		meta["ownerReferences"] = []any{object{"apiVersion": "apps/v1", "kind": "X", "name": "x", "uid": owner, "controller": true}}
	}
	return object{"apiVersion": "apps/v1", "kind": "X", "metadata": meta, "spec": object{"selector": object{"matchLabels": object{"app": w.Name}}}}
}

// refused is how an API server says that the user lacks a right.
func refused(verb, resource string) object {
	return status(403, "Forbidden", `x is forbidden: User "ann" cannot `+verb+` resource "`+resource+`" in API group "" in the namespace "shop"`, nil)
}

// canDo answers what the user may do in any namespace: everything but verb on resource.
func (api *fakeAPI) canDo(all []right, but ...string) {
	var rules []any
	for _, r := range all {
		if !slices.Contains(but, r.String()) {
			rules = append(rules, object{"verbs": []string{r.verb}, "apiGroups": []string{r.group}, "resources": []string{r.resource}})
		}
	}
	api.answer("POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews", 201, object{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
		"status": object{"resourceRules": rules, "nonResourceRules": []any{}, "incomplete": false}})
}

func TestResolve(t *testing.T) {
	for name, row := range map[string]struct {
		ask    string
		there  []string
		hidden []string
		want   string // the workload, or
		code   failure.Code
		text   string
		hint   string
	}{
		"a bare name":                    {ask: "echo", there: []string{"deployment/echo", "sts/web"}, want: "shop/deployment/echo"},
		"a stateful set's":               {ask: "web", there: []string{"deployment/echo", "sts/web"}, want: "shop/statefulset/web"},
		"with its kind":                  {ask: "ds/echo", there: []string{"deployment/echo", "ds/echo"}, want: "shop/daemonset/echo"},
		"in another namespace":           {ask: "db/rs/pg", there: []string{"deployment/pg", "db/rs/pg"}, want: "db/replicaset/pg"},
		"one kind hidden, found another": {ask: "echo", there: []string{"deployment/echo"}, hidden: []string{"daemonsets"}, want: "shop/deployment/echo"},
		"several": {ask: "echo", there: []string{"deployment/echo", "ds/echo"}, code: failure.Usage,
			text: "workload shop/echo could be any of shop/deployment/echo, shop/daemonset/echo", hint: "such as shop/deployment/echo"},
		"nearly right": {ask: "ecko", there: []string{"deployment/echo", "sts/web"}, code: failure.Usage,
			text: "workload shop/ecko: no deployment, replicaset, statefulset, daemonset of that name is in namespace shop", hint: "did you mean shop/deployment/echo?"},
		"of another kind": {ask: "sts/echo", there: []string{"deployment/echo"}, code: failure.Usage,
			text: "no statefulset of that name", hint: "did you mean shop/deployment/echo?"},
		"nothing near":      {ask: "database", there: []string{"deployment/echo", "sts/web"}, code: failure.Usage, text: "of that name", hint: "there are shop/deployment/echo, shop/statefulset/web"},
		"an empty place":    {ask: "team/echo", code: failure.Usage, text: "is in namespace team", hint: "see `kubectl -n team get deployments"},
		"no such namespace": {ask: "shopp/echo", there: []string{"deployment/echo"}, code: failure.Usage, text: `there is no namespace shopp in this cluster (context "here")`, hint: "did you mean shop/echo?"},
		"a kind, nearly":    {ask: "deploymnt/echo", code: failure.Usage, text: "there is no namespace deploymnt", hint: "did you mean the kind? write deployment/echo"},
		"a strange place":   {ask: "xyz/sts/echo", code: failure.Usage, text: "there is no namespace xyz", hint: "see `kubectl get namespaces`"},
		"not to be known":   {ask: "ecko", there: []string{"deployment/echo"}, hidden: []string{"namespaces"}, code: failure.Usage, text: "is in namespace shop", hint: "did you mean shop/deployment/echo?"},
		"hidden": {ask: "echo", hidden: []string{"deployments", "replicasets", "statefulsets", "daemonsets"}, code: failure.Permission,
			text: `not permitted in namespace shop as the user of context "here": get deployments, patch pods/ephemeralcontainers`, hint: "kind: Role\nmetadata:\n  name: culvert-agent-user\n  namespace: shop\n"},
		"the right one is hidden": {ask: "echo", there: []string{"deployment/echo"}, hidden: []string{"deployments"}, code: failure.Permission, text: "get deployments"},
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t)
			api.inCluster(t, row.hidden, row.there...)
			api.canDo(agentRights, "get deployments", "patch pods/ephemeralcontainers")
			ask, err := policy.ParseWorkload(row.ask)
			if err != nil {
				t.Fatal(err)
			}
			got, err := api.client(t).Resolve(soon(t), ask, "shop")
			if row.want != "" {
				if err != nil || got.String() != row.want || got.UID == "" || got.selector.String() != "app="+got.Name {
					t.Errorf("%+v, %v, want %s", got, err, row.want)
				}
				return
			}
			fails(t, err, row.code, row.text, row.hint)
		})
	}
}

// fails checks a failure's code, and words of its text and hint.
func fails(t *testing.T, err error, code failure.Code, text, hint string) {
	t.Helper()
	f := failure.Of(err)
	if f == nil || f.Code != code || !strings.Contains(f.Text, text) || !strings.Contains(f.Hint, hint) {
		t.Errorf("%+v\nwant code %d, %q and the hint %q", f, code, text, hint)
	}
}

func TestResolveTellsAnotherError(t *testing.T) {
	api := newFakeAPI(t)
	api.answer("GET /apis/apps/v1/namespaces/shop/{kind}/echo", 500, status(500, "InternalError", "etcd is away", nil))
	_, err := api.client(t).Resolve(soon(t), policy.Workload{Name: "echo"}, "shop")
	fails(t, err, failure.Unreachable, "etcd is away", "")
}

func TestRefusalIsToldWhereTheServerCannotList(t *testing.T) {
	api := newFakeAPI(t)
	api.inCluster(t, []string{"deployments"})
	api.canDo(agentRights) // a right for other names only, for example
	_, err := api.client(t).Resolve(soon(t), policy.Workload{Kind: policy.KindDeployment, Name: "echo"}, "shop")
	fails(t, err, failure.Permission, `cannot get resource "deployments"`, "culvert-agent-user")
}
