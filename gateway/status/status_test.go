package status

import (
	"context"
	"errors"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/dynamic/fake"
	ktesting "k8s.io/client-go/testing"
)

var things = schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "things"}

func client() *fake.FakeDynamicClient {
	return fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{things: "ThingList"},
		&unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.org/v1", "kind": "Thing",
			"metadata": map[string]any{"name": "sea", "namespace": "ns", "uid": "u1"},
			"spec":     map[string]any{"depth": int64(3)},
			"status":   map[string]any{"old": "yes", "owner": "a"},
		}})
}

func TestWriteReplacesTheStatusAlone(t *testing.T) {
	c, ctx := client(), context.Background()
	api := c.Resource(things).Namespace("ns")
	if _, err := Write(ctx, api, "sea", "u1", map[string]any{"new": "yes"}, Test{"/status/owner", "a"}); err != nil {
		t.Fatal(err)
	}
	if n := len(c.Actions()); n != 1 {
		t.Errorf("%d requests for one write", n)
	}
	if a, ok := c.Actions()[0].(ktesting.PatchAction); !ok || a.GetSubresource() != "status" {
		t.Errorf("not a patch of the status: %v", c.Actions()[0])
	}
	u, err := api.Get(ctx, "sea", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status, _, _ := unstructured.NestedMap(u.Object, "status")
	if len(status) != 1 || status["new"] != "yes" {
		t.Errorf("status is %v", status)
	}
	if depth, _, _ := unstructured.NestedInt64(u.Object, "spec", "depth"); depth != 3 {
		t.Errorf("the spec changed: %v", u.Object)
	}
}

func TestWriteOnAnotherObject(t *testing.T) {
	// What the API server answers to a JSON patch whose test does not hold.
	failed := apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "",
		"testing value /metadata/uid failed: test failed", 0, false)
	for _, row := range []struct {
		name   string
		object string
		answer error
		stale  bool
	}{
		{"gone", "lake", nil, true},
		{"replaced by one of the same name", "sea", failed, true},
		{"refused by the schema", "sea", apierrors.NewInvalid(schema.GroupKind{}, "sea",
			field.ErrorList{field.Required(field.NewPath("status", "owner"), "")}), false},
		{"server down", "sea", errors.New("connection refused"), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := client()
			if row.answer != nil {
				c.PrependReactor("patch", "things", func(ktesting.Action) (bool, runtime.Object, error) { return true, nil, row.answer })
			}
			_, err := Write(context.Background(), c.Resource(things).Namespace("ns"), row.object, "u2", map[string]any{})
			if err == nil || errors.Is(err, ErrStale) != row.stale {
				t.Errorf("error %v, want stale %v", err, row.stale)
			}
		})
	}
}
