package install

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/node/failure"
)

// createdBy marks a namespace that this package made, and so may delete.
const (
	createdByLabel = "app.kubernetes.io/managed-by"
	createdBy      = "culvert"
)

// ensureNamespace sees to it that the namespace is there. One that is made here enforces Pod
// Security "restricted"; one that was there keeps its labels, since others may live in it.
func (i *Installer) ensureNamespace(ctx context.Context, create bool) error {
	found, err := i.typed.CoreV1().Namespaces().Get(ctx, i.namespace, metav1.GetOptions{})
	switch {
	case err == nil && found.Status.Phase == corev1.NamespaceTerminating:
		return failure.Newf(failure.General, "namespace %s is being deleted", i.namespace).
			WithHint("wait until it is gone: kubectl wait --for=delete namespace/%s", i.namespace)
	case err == nil:
		return nil
	case !apierrors.IsNotFound(err):
		return i.explain("read the namespace "+i.namespace, err)
	case !create:
		return failure.Newf(failure.General, "there is no namespace %s", i.namespace).
			WithHint("leave out --create-namespace=false, or run: kubectl create namespace %s", i.namespace)
	}
	_, err = i.typed.CoreV1().Namespaces().Create(ctx, newNamespace(i.namespace), metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return i.explain("create the namespace "+i.namespace, err)
	}
	i.out.step("namespace %s created", i.namespace)
	return nil
}

// namespaceMissing reports whether the namespace is known not to be there.
func (i *Installer) namespaceMissing(ctx context.Context) bool {
	_, err := i.typed.CoreV1().Namespaces().Get(ctx, i.namespace, metav1.GetOptions{})
	return apierrors.IsNotFound(err)
}

func newNamespace(name string) *corev1.Namespace {
	return &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			createdByLabel:                       createdBy,
			"pod-security.kubernetes.io/enforce": "restricted",
			"pod-security.kubernetes.io/warn":    "restricted",
		}},
	}
}

// deleteNamespace deletes the namespace if this package made it, and says what happened.
func (i *Installer) deleteNamespace(ctx context.Context) error {
	found, err := i.typed.CoreV1().Namespaces().Get(ctx, i.namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return i.explain("read the namespace "+i.namespace, err)
	case found.Labels[createdByLabel] != createdBy:
		i.out.step("namespace %s stays: it was not made by culvert", i.namespace)
		return nil
	}
	if err := i.typed.CoreV1().Namespaces().Delete(ctx, i.namespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return i.explain("delete the namespace "+i.namespace, err)
	}
	return i.gone(ctx, "namespace "+i.namespace, func(ctx context.Context) error {
		_, err := i.typed.CoreV1().Namespaces().Get(ctx, i.namespace, metav1.GetOptions{})
		return err
	})
}

// gone waits until get says that what it reads is not found.
func (i *Installer) gone(ctx context.Context, what string, get func(context.Context) error) error {
	defer i.out.waiting(what + " to be gone")()
	if err := untilNotFound(ctx, get); err != nil {
		return fmt.Errorf("%s is still there: %w", what, err)
	}
	i.out.step("%s deleted", what)
	return nil
}
