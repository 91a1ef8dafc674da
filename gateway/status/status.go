// Package status writes what the gateway answers into the status of API objects.
//
// A status is replaced by one JSON patch (RFC 6902) that first tests the object's UID. Compared with
// the alternatives this costs one round trip always: an update may conflict with a change of the
// spec and must then read again, and a server-side apply cannot drop a list entry another version of
// the gateway wrote. The gateway is the only writer of these statuses, so nothing of value is lost.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// ErrStale matches the error of [Write] when the object is gone, was replaced by another of the same
// name, or a [Test] does not hold any more. Writing again cannot help.
var ErrStale = errors.New("the object has changed hands")

// Test is a value that must stand in the object for a write to happen.
type Test struct {
	// Path is a JSON pointer (RFC 6901), such as "/status/gateway/podUID".
	Path  string
	Value any
}

// operation is one step of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Write replaces the status of the object called name if its UID is uid and all tests hold. It
// returns the object's new resourceVersion. The error names the object and may match [ErrStale].
func Write(ctx context.Context, api dynamic.ResourceInterface, name string, uid types.UID, status any, tests ...Test) (resourceVersion string, err error) {
	patch, err := json.Marshal(operations(uid, status, tests))
	if err != nil {
		return "", fmt.Errorf("status of %s: %w", name, err)
	}
	u, err := api.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case err == nil:
		return u.GetResourceVersion(), nil
	case apierrors.IsNotFound(err), testFailed(err):
		return "", fmt.Errorf("status of %s: %w: %w", name, ErrStale, err)
	}
	return "", fmt.Errorf("status of %s: %w", name, err)
}

func operations(uid types.UID, status any, tests []Test) []operation {
	list := []operation{{"test", "/metadata/uid", uid}}
	for _, t := range tests {
		list = append(list, operation{"test", t.Path, t.Value})
	}
	return append(list, operation{"add", "/status", status}) // "add" replaces what is there
}

// testFailed reports whether err is the API server's answer to a patch it could not apply: 422 without
// causes, where a refusal by a schema lists them. Of our operations only a test can fail.
func testFailed(err error) bool {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) || answer.Status().Code != http.StatusUnprocessableEntity {
		return false
	}
	details := answer.Status().Details
	return details == nil || len(details.Causes) == 0
}
