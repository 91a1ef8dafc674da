package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

var (
	groupVersion = schema.GroupVersion{Group: v1alpha1.Group, Version: v1alpha1.Version}
	peers        = groupVersion.WithResource(v1alpha1.PeerResource)
	policies     = groupVersion.WithResource(v1alpha1.PolicyResource)
	pods         = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	selfReviews  = schema.GroupVersionResource{Group: "authentication.k8s.io", Version: "v1", Resource: "selfsubjectreviews"}
)

// Whoami returns the name under which the API server knows the user (SelfSubjectReview).
func (c *Client) Whoami(ctx context.Context) (string, error) {
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview",
	}}
	got, err := c.dynamic.Resource(selfReviews).Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return "", c.explain("ask the API server who you are", err)
	}
	name, _, _ := unstructured.NestedString(got.Object, "status", "userInfo", "username")
	if name == "" {
		return "", fmt.Errorf("the API server %s does not say who you are: empty userInfo in SelfSubjectReview", c.Host())
	}
	return name, nil
}

// Policy returns the team's Policy. A cluster without one is a gateway that is not installed.
func (c *Client) Policy(ctx context.Context) (*v1alpha1.Policy, error) {
	const doing = "read the team's Policy"
	list, err := c.dynamic.Resource(policies).Namespace(c.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, c.explain(doing, err)
	}
	for i := range list.Items {
		if list.Items[i].GetName() == v1alpha1.DefaultPolicyName {
			return decode[v1alpha1.Policy](&list.Items[i])
		}
	}
	return nil, c.notInstalled(doing)
}

// PutPeer creates the Peer, or takes over the user's own one of that name, left by a connection that
// ended without saying so. If the name is another user's, who can read it and thus keep it, peer gets a
// name of its own.
func (c *Client) PutPeer(ctx context.Context, peer *v1alpha1.Peer) (*v1alpha1.Peer, error) {
	const doing = "create the Peer of this connection"
	object, err := encode(peer)
	if err != nil {
		return nil, err
	}
	resource := c.dynamic.Resource(peers).Namespace(c.namespace)
	got, err := resource.Create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		got, err = c.replacePeer(ctx, object)
	}
	if apierrors.IsForbidden(err) && refusedByAdmission(err) {
		peer.Name = fmt.Sprintf("%s-%08x", peer.Name, rand.Uint32())
		object.SetName(peer.Name)
		got, err = resource.Create(ctx, object, metav1.CreateOptions{})
	}
	if err != nil {
		return nil, c.explain(doing, err)
	}
	return decode[v1alpha1.Peer](got)
}

// replacePeer deletes the left-over and creates the Peer anew, so that its status and age begin anew.
func (c *Client) replacePeer(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	resource := c.dynamic.Resource(peers).Namespace(c.namespace)
	err := resource.Delete(ctx, object.GetName(), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	return resource.Create(ctx, object, metav1.CreateOptions{})
}

// DeletePeer removes the Peer; that it is gone already is no error. A non-empty uid deletes only
// that very object.
func (c *Client) DeletePeer(ctx context.Context, name, uid string) error {
	var options metav1.DeleteOptions
	if uid != "" {
		options = *metav1.NewPreconditionDeleteOptions(uid)
	}
	err := c.dynamic.Resource(peers).Namespace(c.namespace).Delete(ctx, name, options)
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return c.explain("delete the Peer of this connection", err)
}

// SetTwins makes twins those of the Peer, if it still is the one with that uid, and returns it as it is
// then.
func (c *Client) SetTwins(ctx context.Context, name, uid string, twins []v1alpha1.Twin) (*v1alpha1.Peer, error) {
	const doing = "change the virtual prefixes in the Peer of this connection"
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": uid}, // another object of that name is a conflict
		"spec":     map[string]any{"twins": twins},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	got, err := c.dynamic.Resource(peers).Namespace(c.namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return nil, c.explain(doing, err)
	}
	return decode[v1alpha1.Peer](got)
}

// AbandonPeer deletes the Peer that PutPeer was asked for and gave no answer about, if it is there:
// the public key tells whether it is that one.
func (c *Client) AbandonPeer(ctx context.Context, wanted *v1alpha1.Peer) error {
	object, err := c.dynamic.Resource(peers).Namespace(c.namespace).Get(ctx, wanted.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return c.explain("look for the Peer of this connection", err)
	}
	got, err := decode[v1alpha1.Peer](object)
	if err != nil || got.Spec.PublicKey != wanted.Spec.PublicKey {
		return err
	}
	return c.DeletePeer(ctx, got.Name, string(got.UID))
}

func decode[T any](u *unstructured.Unstructured) (*T, error) {
	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("read %s %s from the API server: %w", u.GetKind(), u.GetName(), err)
	}
	return out, nil
}

func encode(peer *v1alpha1.Peer) (*unstructured.Unstructured, error) {
	peer.APIVersion, peer.Kind = groupVersion.String(), v1alpha1.PeerKind
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(peer)
	if err != nil {
		return nil, fmt.Errorf("encode Peer %s: %w", peer.Name, err)
	}
	delete(object, "status")
	return &unstructured.Unstructured{Object: object}, nil
}
