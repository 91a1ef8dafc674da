package install

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/culvert-dev/culvert/internal/version"
)

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

const (
	// versionAnnotation on a CRD is the version of Culvert that applied it: the cluster shares one
	// definition, and an older installer of another namespace must not take fields away.
	versionAnnotation = "culvert.dev/version"
	// establishTimeout is how long the API server may take to serve a new definition.
	establishTimeout = 30 * time.Second
)

// definitions returns the embedded CRDs as objects, marked with this build's version.
func definitions() ([]*unstructured.Unstructured, error) {
	manifests, err := crdManifests()
	if err != nil {
		return nil, err
	}
	var crds []*unstructured.Unstructured
	for _, manifest := range manifests {
		objects, err := documents(string(manifest))
		if err != nil {
			return nil, err
		}
		for _, crd := range objects {
			crd.SetAnnotations(map[string]string{versionAnnotation: version.Version})
			crds = append(crds, crd)
		}
	}
	return crds, nil
}

// applyCRDs applies the definitions and returns once the API server serves them. Those that a newer
// Culvert applied are left as they are.
func (i *Installer) applyCRDs(ctx context.Context, crds []*unstructured.Unstructured) error {
	defer i.out.waiting("the custom resource definitions to be served")()
	var names []string
	for _, crd := range crds {
		newer, err := i.newerCRD(ctx, crd.GetName())
		if err != nil {
			return err
		}
		if newer != "" {
			i.out.step("definition %s is of the newer version %s and stays", crd.GetName(), newer)
			continue
		}
		_, err = i.dynamic.Resource(crdResource).Apply(ctx, crd.GetName(), crd, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if err != nil {
			return i.explain("apply the custom resource definition "+crd.GetName(), err)
		}
		if err := i.established(ctx, crd.GetName()); err != nil {
			return err
		}
		names = append(names, crd.GetName())
	}
	if len(names) > 0 {
		i.out.step("definitions %s applied", strings.Join(names, ", "))
	}
	return i.forgetDiscovery()
}

// newerCRD returns the version of Culvert that applied the definition if it is newer than this one.
func (i *Installer) newerCRD(ctx context.Context, name string) (string, error) {
	found, err := i.dynamic.Resource(crdResource).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", i.explain("read the custom resource definition "+name, err)
	}
	marked := found.GetAnnotations()[versionAnnotation]
	theirs, errTheirs := utilversion.ParseSemantic(marked)
	ours, errOurs := utilversion.ParseSemantic(version.Version)
	if errTheirs != nil || errOurs != nil || !ours.LessThan(theirs) {
		return "", nil
	}
	return marked, nil
}

// established waits until the API server serves the definition.
func (i *Installer) established(ctx context.Context, name string) error {
	why := "no condition yet"
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, establishTimeout, true, func(ctx context.Context) (bool, error) {
		crd, err := i.dynamic.Resource(crdResource).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		var ok bool
		ok, why = crdServed(crd)
		return ok, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return fmt.Errorf("the API server does not serve %s after %s: %s", name, establishTimeout, why)
	}
	return i.explain("wait for the custom resource definition "+name, err)
}

// crdServed reports whether a definition is established, else what it says of itself.
func crdServed(crd *unstructured.Unstructured) (ok bool, why string) {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	why = "no condition yet"
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		kind, status := fmt.Sprint(condition["type"]), fmt.Sprint(condition["status"])
		if kind == "Established" && status == "True" {
			return true, ""
		}
		if status == "False" {
			why = fmt.Sprintf("%s: %v", kind, condition["message"])
		}
	}
	return false, why
}

// forgetDiscovery makes the clients ask again which resources there are: kubectl's cache on disk may
// be from before the definitions.
func (i *Installer) forgetDiscovery() error {
	cached, err := i.getter.ToDiscoveryClient()
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	cached.Invalidate()
	mapper, err := i.getter.ToRESTMapper()
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	meta.MaybeResetRESTMapper(mapper)
	i.helm.Capabilities = nil
	return nil
}
