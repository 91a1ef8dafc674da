package kube

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

const reviewsPath = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews"

func TestLoadTakesWhatTheKubeconfigSays(t *testing.T) {
	c := newFakeAPI(t).client(t)
	if c.Context != "here" || c.Cluster != "fake" || c.UserNamespace != "team" || c.Namespace() != "culvert" {
		t.Errorf("context %q, cluster %q, namespace %q, of culvert %q", c.Context, c.Cluster, c.UserNamespace, c.Namespace())
	}
	if !strings.Contains(string(c.Extension), `"shop"`) {
		t.Errorf("extension %q", c.Extension)
	}
}

func TestWhoami(t *testing.T) {
	api := newFakeAPI(t)
	api.mux.HandleFunc(reviewsPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret-token" {
			t.Errorf("authorised by %q", r.Header.Get("Authorization"))
		}
		writeAnswer(w, http.StatusCreated, object{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "status": object{"userInfo": object{"username": "ann"}}})
	})
	c := api.client(t)
	if len(c.Dialled()) != 0 || c.LocalAddr().IsValid() {
		t.Error("dialled before anything was asked")
	}
	who, err := c.Whoami(soon(t))
	if err != nil || who != "ann" {
		t.Errorf("%q, %v", who, err)
	}
	if got := c.Dialled(); len(got) != 1 || got[0].String() != api.Listener.Addr().String() || !c.LocalAddr().IsLoopback() {
		t.Errorf("dialled %v from %v, want %v from loopback", got, c.LocalAddr(), api.Listener.Addr())
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	forbidden := `selfsubjectreviews is forbidden: User "ann" cannot create resource`
	for _, row := range []struct {
		name   string
		client func(t *testing.T, api *fakeAPI) *Client
		code   int // of the API server's answer; 0 for none
		answer object
		want   failure.Code
		text   string
	}{
		{"expired token", nil, 401, status(401, "Unauthorized", "Unauthorized", nil), failure.Permission, "does not accept the credentials"},
		{"missing right", nil, 403, status(403, "Forbidden", forbidden, nil), failure.Permission, "not permitted"},
		{"refused by an admission policy", nil, 403, status(403, "Forbidden", "ValidatingAdmissionPolicy 'culvert' denied", nil), failure.Refused, "ValidatingAdmissionPolicy"},
		{"no such resource", nil, 404, status(404, "NotFound", "the server could not find the requested resource", object{}), failure.GatewayState, "not installed"},
		{"no such namespace", nil, 404, status(404, "NotFound", `namespaces "culvert" not found`, object{"name": "culvert", "kind": "namespaces"}), failure.GatewayState, "not installed"},
		{"invalid", nil, 422, status(422, "Invalid", "spec.publicKey: bad", nil), failure.General, "spec.publicKey"},
		{"overloaded", nil, 500, status(500, "InternalError", "etcd is away", nil), failure.Unreachable, "etcd is away"},
		{"nobody listens", func(t *testing.T, api *fakeAPI) *Client { c := api.client(t); api.Close(); return c }, 0, nil, failure.Unreachable, "connection refused"},
		{"another certificate", func(t *testing.T, api *fakeAPI) *Client {
			return load(t, api.kubeconfig(t, otherCA(t), object{"token": "secret-token"}))
		}, 0, nil, failure.Unreachable, "not the API server that the kubeconfig trusts"},
		{"credential plugin that fails", func(t *testing.T, api *fakeAPI) *Client {
			plugin := object{"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}
			return load(t, api.kubeconfig(t, api.ca(), object{"exec": plugin}))
		}, 0, nil, failure.Permission, "credential plugin"},
		{"credential plugin that is not there", func(t *testing.T, api *fakeAPI) *Client {
			plugin := object{"apiVersion": "client.authentication.k8s.io/v1", "command": "/does/not/exist", "interactiveMode": "Never"}
			return load(t, api.kubeconfig(t, api.ca(), object{"exec": plugin}))
		}, 0, nil, failure.Permission, "/does/not/exist"},
	} {
		t.Run(row.name, func(t *testing.T) {
			api := newFakeAPI(t)
			api.answer(reviewsPath, row.code, row.answer)
			client := api.client
			if row.client != nil {
				client = func(t *testing.T) *Client { return row.client(t, api) }
			}
			_, err := client(t).Whoami(soon(t))
			f := failure.Of(err)
			if f == nil || f.Code != row.want || !strings.Contains(f.Text, row.text) {
				t.Fatalf("%+v, want code %d and %q", f, row.want, row.text)
			}
			if strings.Contains(f.Text, "secret-token") || strings.Contains(f.Text, "\n") {
				t.Errorf("text %q", f.Text)
			}
		})
	}
}

func TestPasswordInTheServersAddressIsNotShown(t *testing.T) {
	api := newFakeAPI(t)
	api.URL = strings.Replace(api.URL, "https://", "https://ann:pass-word@", 1)
	if host := api.client(t).Host(); strings.Contains(host, "pass-word") || !strings.Contains(host, "127.0.0.1") {
		t.Errorf("shown as %q", host)
	}
}

func TestPolicy(t *testing.T) {
	named := func(name string) object {
		return object{"apiVersion": "culvert.dev/v1alpha1", "kind": "Policy", "metadata": object{"name": name, "namespace": "culvert"}}
	}
	for _, row := range []struct {
		name  string
		items []any
		found bool
	}{
		{"among others", []any{named("other"), named(v1alpha1.DefaultPolicyName)}, true},
		{"others only", []any{named("other")}, false},
		{"none", nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			api := newFakeAPI(t)
			api.answer("GET "+policiesPath, 200, list("7", row.items...))
			p, err := api.client(t).Policy(soon(t))
			if row.found != (p != nil) || !row.found && failure.Of(err).Code != failure.GatewayState {
				t.Errorf("%v, %v", p, err)
			}
		})
	}
}

func newPeer() *v1alpha1.Peer {
	return &v1alpha1.Peer{
		ObjectMeta: metav1.ObjectMeta{Name: "mine", Namespace: "culvert"},
		Spec:       v1alpha1.PeerSpec{User: "ann", PublicKey: "key of 2"},
	}
}

func TestPutPeerTakesOverALeftOver(t *testing.T) {
	api := newFakeAPI(t)
	left := true
	api.mux.HandleFunc("POST "+peersPath, func(w http.ResponseWriter, r *http.Request) {
		var sent object
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || sent["status"] != nil {
			t.Errorf("sent %v, %v", sent, err)
		}
		if left {
			writeAnswer(w, 409, status(409, "AlreadyExists", "peers \"mine\" already exists", object{"name": "mine"}))
			return
		}
		writeAnswer(w, 201, peerObject("mine", "2", "12"))
	})
	api.mux.HandleFunc("DELETE "+peersPath+"/mine", func(w http.ResponseWriter, _ *http.Request) {
		left = false
		writeAnswer(w, 200, object{"kind": "Status", "apiVersion": "v1", "status": "Success"})
	})
	got, err := api.client(t).PutPeer(soon(t), newPeer())
	if err != nil || got.UID != "2" || got.ResourceVersion != "12" {
		t.Errorf("%+v, %v", got, err)
	}
}

// A Peer of that name may be another user's: everybody can read the names.
func TestPutPeerBesideThatOfAnother(t *testing.T) {
	api := newFakeAPI(t)
	var asked []string
	api.mux.HandleFunc("POST "+peersPath, func(w http.ResponseWriter, r *http.Request) {
		var sent v1alpha1.Peer
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		if asked = append(asked, sent.Name); sent.Name == "mine" {
			writeAnswer(w, 409, status(409, "AlreadyExists", "peers \"mine\" already exists", object{"name": "mine"}))
			return
		}
		writeAnswer(w, 201, peerObject(sent.Name, "2", "12"))
	})
	api.answer("DELETE "+peersPath+"/mine", 403, status(403, "Forbidden", `peers.culvert.dev "mine" is forbidden: ValidatingAdmissionPolicy `+
		`'culvert-peer-owner-culvert' with binding 'culvert-peer-owner-culvert' denied request: this Peer belongs to "eve"`, object{"name": "mine"}))
	peer := newPeer()
	got, err := api.client(t).PutPeer(soon(t), peer)
	if err != nil || len(asked) != 2 || got.Name != asked[1] || peer.Name != got.Name || !strings.HasPrefix(got.Name, "mine-") {
		t.Errorf("asked for %q, got %+v, %v", asked, got, err)
	}
}

// deletes records which objects a client asks to be deleted.
func (api *fakeAPI) deletes(t *testing.T, code int) *[]string {
	t.Helper()
	uids := &[]string{}
	api.mux.HandleFunc("DELETE "+peersPath+"/mine", func(w http.ResponseWriter, r *http.Request) {
		var options metav1.DeleteOptions
		if err := json.NewDecoder(r.Body).Decode(&options); err != nil || options.Preconditions == nil {
			t.Errorf("options %+v, %v", options, err)
			return
		}
		*uids = append(*uids, string(*options.Preconditions.UID))
		writeAnswer(w, code, status(code, map[int]string{404: "NotFound", 409: "Conflict"}[code], "", object{"name": "mine"}))
	})
	return uids
}

func TestDeletePeerOnlyTheVeryOne(t *testing.T) {
	for _, code := range []int{200, 404, 409} { // 409: another one of that name
		api := newFakeAPI(t)
		uids := api.deletes(t, code)
		if err := api.client(t).DeletePeer(soon(t), "mine", "2"); err != nil || len(*uids) != 1 || (*uids)[0] != "2" {
			t.Errorf("answer %d: %v, deleted %v", code, err, *uids)
		}
	}
}

func TestAbandonPeer(t *testing.T) {
	for _, row := range []struct {
		name    string
		code    int
		there   object
		deleted int
	}{
		{"it was created", 200, peerObject("mine", "2", "12"), 1},
		{"it is an older one", 200, peerObject("mine", "1", "3"), 0},
		{"it is not there", 404, status(404, "NotFound", "", object{"name": "mine"}), 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			api := newFakeAPI(t)
			api.answer("GET "+peersPath+"/mine", row.code, row.there)
			uids := api.deletes(t, 200)
			if err := api.client(t).AbandonPeer(soon(t), newPeer()); err != nil || len(*uids) != row.deleted {
				t.Errorf("%v, deleted %v", err, *uids)
			}
		})
	}
}

func TestRights(t *testing.T) {
	const reviews = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
	rule := func(group string, resources, verbs []string) object {
		return object{"apiGroups": []string{group}, "resources": resources, "verbs": verbs}
	}
	answer := func(incomplete bool, rules ...object) object {
		return object{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
			"status": object{"resourceRules": rules, "nonResourceRules": []any{}, "incomplete": incomplete}}
	}
	all := []object{rule("culvert.dev", []string{"peers", "policies"}, []string{"*"}), rule("", []string{"pods/portforward"}, []string{"create"})}
	for _, row := range []struct {
		name    string
		answer  object
		missing string
	}{
		{"all", answer(false, all...), ""},
		{"one missing", answer(false, all[0]), "create pods/portforward"},
		{"the server cannot tell", answer(true), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			api := newFakeAPI(t)
			api.answer(reviews, 201, row.answer)
			err := api.client(t).CheckRights(soon(t))
			if (err == nil) != (row.missing == "") {
				t.Fatal(err)
			}
			if f := failure.Of(err); f != nil && (f.Code != failure.Permission || !strings.HasSuffix(f.Text, ": "+row.missing) || !strings.Contains(f.Hint, "kind: Role")) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestUnreachableIsToldWhenTheContextEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	api := newFakeAPI(t)
	api.URL = "https://" + l.Addr().String()
	ctx, cancel := contextFor(t, quick)
	defer cancel()
	if _, err := api.client(t).Whoami(ctx); failure.Of(err).Code != failure.Unreachable {
		t.Errorf("%+v", failure.Of(err))
	}
}
