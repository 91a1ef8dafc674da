package install

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/storage/driver"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

var (
	peerResource   = schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: v1alpha1.PeerResource}
	policyResource = schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: v1alpha1.PolicyResource}
)

// UninstallOptions say what to remove besides the release.
type UninstallOptions struct {
	// CRDs removes the custom resource definitions, and so every Peer and Policy of the cluster.
	CRDs bool
	// Namespace removes the namespace if Install made it.
	Namespace bool
	// Confirm is asked, with what will be lost, before the CRDs go. Required with CRDs.
	Confirm func(question string) error
}

// Uninstall removes the gateway and says what remains. To repeat it is no error.
func (i *Installer) Uninstall(ctx context.Context, o UninstallOptions) error {
	if _, err := i.serverVersion(ctx); err != nil {
		return err
	}
	if o.CRDs {
		lost, err := i.lostWithCRDs(ctx)
		if err != nil {
			return err
		}
		if err := o.Confirm(lost); err != nil {
			return err
		}
	}
	if err := i.removeRelease(ctx); err != nil {
		return err
	}
	if o.CRDs {
		if err := i.removeCRDs(ctx); err != nil {
			return err
		}
	}
	if o.Namespace {
		if err := i.deleteNamespace(ctx); err != nil {
			return err
		}
	}
	return i.sayWhatRemains(ctx)
}

// removeRelease deletes what the chart made and waits until the gateway's pods have ended.
func (i *Installer) removeRelease(ctx context.Context) error {
	last, err := i.helm.Releases.Last(ReleaseName)
	if errors.Is(err, driver.ErrReleaseNotFound) || errors.Is(err, driver.ErrNoDeployedReleases) {
		i.out.step("no gateway is installed in namespace %s", i.namespace)
		return nil
	}
	if err != nil {
		return i.explain("read the release in namespace "+i.namespace, err)
	}
	if err := i.mayRemove(ctx, last); err != nil {
		return err
	}
	if err := i.restoreCRDs(ctx); err != nil {
		return err
	}
	uninstall := action.NewUninstall(i.helm)
	uninstall.WaitStrategy, uninstall.Timeout = kube.HookOnlyStrategy, deadRelease
	if err := i.runUninstall(uninstall); err != nil {
		return i.explain("uninstall the gateway from namespace "+i.namespace, err)
	}
	return i.gone(ctx, "gateway in namespace "+i.namespace, func(ctx context.Context) error {
		pods, err := i.pods(ctx)
		if err == nil && len(pods) == 0 {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, workload)
		}
		return err
	})
}

// mayRemove checks the rights that removing the release takes: Helm does not say which it lacked.
func (i *Installer) mayRemove(ctx context.Context, last any) error {
	installed, err := asRelease(last)
	if err != nil {
		return err
	}
	objects, err := documents(installed.Manifest)
	if err != nil {
		return err
	}
	return i.checkRights(ctx, rightsFor(objects, i.namespace, "get", "delete"))
}

func (i *Installer) runUninstall(uninstall *action.Uninstall) error {
	defer i.out.waiting("the API server to remove the release")()
	_, err := uninstall.Run(ReleaseName)
	return err
}

// restoreCRDs puts the definitions back if someone deleted them: Helm cannot remove a release with
// objects of a kind that the API server does not know.
func (i *Installer) restoreCRDs(ctx context.Context) error {
	crds, err := definitions()
	if err != nil {
		return err
	}
	for _, crd := range crds {
		_, err := i.dynamic.Resource(crdResource).Get(ctx, crd.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return i.applyCRDs(ctx, crds)
		case err != nil:
			return i.explain("read the custom resource definition "+crd.GetName(), err)
		}
	}
	return nil
}

// removeCRDs deletes the definitions and waits until they, and all objects of theirs, are gone.
func (i *Installer) removeCRDs(ctx context.Context) error {
	crds, err := definitions()
	if err != nil {
		return err
	}
	for _, crd := range crds {
		name := crd.GetName()
		err := i.dynamic.Resource(crdResource).Delete(ctx, name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return i.explain("delete the custom resource definition "+name, err)
		}
		if err := i.gone(ctx, "definition "+name, func(ctx context.Context) error {
			_, err := i.dynamic.Resource(crdResource).Get(ctx, name, metav1.GetOptions{})
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// lostWithCRDs says what goes with the definitions, in all namespaces.
func (i *Installer) lostWithCRDs(ctx context.Context) (string, error) {
	var lost []string
	for _, resource := range []schema.GroupVersionResource{peerResource, policyResource} {
		list, err := i.dynamic.Resource(resource).List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", i.explain("count the "+resource.Resource+" of all namespaces", err)
		}
		namespaces := map[string]bool{}
		for _, item := range list.Items {
			namespaces[item.GetNamespace()] = true
		}
		lost = append(lost, fmt.Sprintf("%d %s in %d namespaces", len(list.Items), resource.Resource, len(namespaces)))
	}
	if len(lost) == 0 {
		return "remove the custom resource definitions (there are none)", nil
	}
	return "remove the custom resource definitions of Culvert and with them " + strings.Join(lost, " and "), nil
}

// sayWhatRemains lists what uninstalling leaves in the cluster and how to remove that too.
func (i *Installer) sayWhatRemains(ctx context.Context) error {
	var remains []string
	crds, err := definitions()
	if err != nil {
		return err
	}
	for _, crd := range crds {
		_, err := i.dynamic.Resource(crdResource).Get(ctx, crd.GetName(), metav1.GetOptions{})
		switch {
		case err == nil:
			remains = append(remains, "definition "+crd.GetName())
		case !apierrors.IsNotFound(err):
			return i.explain("read the custom resource definition "+crd.GetName(), err)
		}
	}
	if peers, err := i.dynamic.Resource(peerResource).Namespace(i.namespace).List(ctx, metav1.ListOptions{}); err == nil && len(peers.Items) > 0 {
		remains = append(remains, fmt.Sprintf("%d peers in namespace %s", len(peers.Items), i.namespace))
	}
	if _, err := i.typed.CoreV1().Namespaces().Get(ctx, i.namespace, metav1.GetOptions{}); err == nil {
		remains = append(remains, "namespace "+i.namespace)
	}
	if len(remains) == 0 {
		i.out.step("nothing of culvert remains in the cluster")
		return nil
	}
	i.out.step("remains: %s\n(uninstall --crds removes the definitions with all peers and policies of the cluster, --all the namespace too)", strings.Join(remains, ", "))
	return nil
}

// NotConfirmed is the failure of a removal that was neither confirmed nor refused.
func NotConfirmed(question string) error {
	return failure.New(failure.Usage, fmt.Errorf("not confirmed: this would %s", question), "confirm it with --yes")
}
