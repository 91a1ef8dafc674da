package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// WatchPeer calls changed with every state of the Peer called name that the API server shows, and
// with nil when it is gone, until ctx ends; then it returns. A broken watch is taken up again for
// as long as it takes. changed is called from one goroutine at a time.
func (c *Client) WatchPeer(ctx context.Context, name string, changed func(*v1alpha1.Peer)) error {
	return watch(ctx, c, peers, name, changed)
}

// WatchPolicy is WatchPeer for the team's Policy.
func (c *Client) WatchPolicy(ctx context.Context, changed func(*v1alpha1.Policy)) error {
	return watch(ctx, c, policies, v1alpha1.DefaultPolicyName, changed)
}

func watch[T any](ctx context.Context, c *Client, resource schema.GroupVersionResource, name string, changed func(*T)) error {
	informer := dynamicinformer.NewFilteredDynamicInformer(c.dynamic, resource, c.namespace, 0, cache.Indexers{}, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
	}).Informer()
	show := func(object any) {
		if u, ok := object.(*unstructured.Unstructured); ok {
			if out, err := decode[T](u); err == nil {
				changed(out)
			}
		}
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    show,
		UpdateFunc: func(_, object any) { show(object) },
		DeleteFunc: func(any) { changed(nil) },
	})
	if err != nil {
		return err
	}
	defer informer.RemoveEventHandler(registration) //nolint:errcheck // the informer ends with ctx
	informer.RunWithContext(ctx)
	return nil
}
