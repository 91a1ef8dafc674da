package kube

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/internal/mirror"
	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// WatchPeer calls changed with the Peer called name whenever the API server shows a new state of it,
// and with nil when it is not there, until ctx ends; then it returns. States that follow each other
// quickly may be left out, but for the last. A broken watch is taken up again for as long as it takes,
// at the latest five seconds after the API server can be reached. changed is called from this
// goroutine.
func (c *Client) WatchPeer(ctx context.Context, name string, changed func(*v1alpha1.Peer)) {
	watch(ctx, c, peers, name, "Peer "+name, changed)
}

// WatchPolicy is WatchPeer for the team's Policy.
func (c *Client) WatchPolicy(ctx context.Context, changed func(*v1alpha1.Policy)) {
	watch(ctx, c, policies, v1alpha1.DefaultPolicyName, "the team's Policy", changed)
}

// seen is one state of an object.
type seen[T any] struct {
	object  *T
	version string
}

func watch[T any](ctx context.Context, c *Client, resource schema.GroupVersionResource, name, what string, changed func(*T)) {
	m := mirror.New(mirror.Source{
		Client: c.dynamic, Resource: resource, Namespace: c.namespace, What: what, Log: c.Log,
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(),
	}, func(u *unstructured.Unstructured) (seen[T], error) {
		object, err := decode[T](u)
		return seen[T]{object, u.GetResourceVersion()}, err
	})
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { m.Run(ctx) })
	last := "never looked"
	for {
		select {
		case <-m.Changes():
		case <-ctx.Done():
			return
		}
		if synced, _ := m.State(); !synced {
			continue
		}
		now := m.Items()[types.NamespacedName{Namespace: c.namespace, Name: name}]
		if now.version != last {
			last = now.version
			changed(now.object)
		}
	}
}
