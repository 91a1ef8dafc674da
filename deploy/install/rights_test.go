package install

import (
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/node/failure"
)

func TestRightsOfTheChart(t *testing.T) {
	manifest, err := Render(t.Context(), "culvert", nil)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := documents(manifest)
	if err != nil {
		t.Fatal(err)
	}
	needed := rightsFor(objects, "culvert", "get", "create", "patch")
	denied := make([]bool, len(needed))
	if err := missingRights(needed, denied); err != nil {
		t.Errorf("nothing is denied, but %v", err)
	}
	for n := range denied {
		denied[n] = needed[n].verb != "get"
	}
	err = missingRights(needed, denied)
	if failure.Of(err).Code != failure.Permission {
		t.Fatalf("error %v, want a missing right", err)
	}
	got := strings.Split(err.Error(), "\n  ")[1:]
	want := []string{
		"create, patch validatingadmissionpolicies.admissionregistration.k8s.io",
		"create, patch validatingadmissionpolicybindings.admissionregistration.k8s.io",
		"create, patch clusterrolebindings.rbac.authorization.k8s.io",
		"create, patch clusterroles.rbac.authorization.k8s.io",
		"list, create, update, delete secrets in namespace culvert",
		"create, patch serviceaccounts in namespace culvert",
		"create, patch services in namespace culvert",
		"create, patch statefulsets.apps in namespace culvert",
		"create, patch policies.culvert.dev in namespace culvert",
		"create, patch rolebindings.rbac.authorization.k8s.io in namespace culvert",
		"create, patch roles.rbac.authorization.k8s.io in namespace culvert",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("missing rights:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPluralOf(t *testing.T) {
	for kind, want := range map[string]string{
		"ValidatingAdmissionPolicy": "validatingadmissionpolicies", "Policy": "policies",
		"StatefulSet": "statefulsets", "NetworkPolicy": "networkpolicies", "ClusterRoleBinding": "clusterrolebindings",
	} {
		if got := pluralOf(kind); got != want {
			t.Errorf("pluralOf(%s) = %s, want %s", kind, got, want)
		}
	}
}
