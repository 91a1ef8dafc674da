package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// Watch says what to do with what is seen of one object. Both functions are called from one goroutine
// and are required.
type Watch[T any] struct {
	// Changed is told every state of the object, and nil when it is gone.
	Changed func(*T)
	// Trouble is told why the API server cannot be watched, once for each new reason, and nil when it
	// can be again. Watching goes on.
	Trouble func(error)
}

// WatchPeer follows a Peer from the state that the API server answered with, until ctx ends.
func (c *Client) WatchPeer(ctx context.Context, from *v1alpha1.Peer, w Watch[v1alpha1.Peer]) {
	resource := c.dynamic.Resource(peers).Namespace(c.namespace)
	(&follower[v1alpha1.Peer]{Watch: w, client: c, resource: resource, what: "this connection's Peer", name: from.Name, version: from.ResourceVersion, explain: c.explain}).run(ctx)
}

// WatchPolicy is WatchPeer for the team's Policy.
func (c *Client) WatchPolicy(ctx context.Context, from *v1alpha1.Policy, w Watch[v1alpha1.Policy]) {
	resource := c.dynamic.Resource(policies).Namespace(c.namespace)
	(&follower[v1alpha1.Policy]{Watch: w, client: c, resource: resource, what: "the team's Policy", name: from.Name, version: from.ResourceVersion, explain: c.explain}).run(ctx)
}

// Intervals of a watch that does not work: from short to long, so that what happened meanwhile is
// seen soon after the path is back, and what a server refuses is not asked for all the time.
const (
	minPause     = 100 * time.Millisecond
	maxPause     = 3 * time.Second
	refusedPause = 30 * time.Second
	// watchLength is how long the server is asked to keep one watch, so that one that silently does not
	// work any more does not last.
	watchLength = 10 * time.Minute
)

// follower watches one object. client-go's informers would do the same for any number of objects,
// with a pause of up to a minute after an outage that nothing can cut short.
type follower[T any] struct {
	Watch[T]
	client   *Client
	resource dynamic.ResourceInterface
	what     string // for errors
	name     string
	version  string // what has been seen; "" asks for the object anew
	explain  func(doing string, err error) error

	failures int    // in a row
	told     string // the trouble that was told
}

// run watches until ctx ends.
func (f *follower[T]) run(ctx context.Context) {
	for ctx.Err() == nil {
		epoch := f.client.epoch.current()
		attempt, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(epoch, cancel)
		begin := time.Now()
		err := f.once(attempt)
		stop()
		cancel()
		if ctx.Err() != nil {
			return
		}
		if epoch.Err() != nil { // the path is another one now: what failed says nothing about it
			f.failures = 0
			continue
		}
		if err == nil && time.Since(begin) > maxPause {
			continue
		}
		f.failures++
		if err != nil {
			f.trouble(f.explain("watch "+f.what, err))
		}
		select {
		case <-ctx.Done():
		case <-epoch.Done():
		case <-time.After(f.pause(err)):
		}
	}
}

func (f *follower[T]) pause(err error) time.Duration {
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return refusedPause
	}
	pause := min(minPause<<min(f.failures-1, 10), maxPause)
	return pause/2 + rand.N(pause/2+1)
}

// once reads the object if that is needed and watches it. It returns nil when the server ended the
// watch in good order.
func (f *follower[T]) once(ctx context.Context) error {
	if f.version == "" {
		if err := f.read(ctx); err != nil {
			return err
		}
	}
	seconds := int64(watchLength.Seconds())
	options := f.options()
	options.ResourceVersion, options.AllowWatchBookmarks, options.TimeoutSeconds = f.version, true, &seconds
	watch, err := f.resource.Watch(ctx, options)
	if err != nil {
		return f.forget(err)
	}
	defer watch.Stop()
	f.trouble(nil)
	for event := range watch.ResultChan() {
		if err := f.take(event); err != nil {
			return f.forget(err)
		}
	}
	return nil
}

func (f *follower[T]) options() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", f.name).String()}
}

// read shows the object as it is now, or that it is gone.
func (f *follower[T]) read(ctx context.Context) error {
	list, err := f.resource.List(ctx, f.options())
	if err != nil {
		return err
	}
	if len(list.Items) == 0 {
		f.Changed(nil)
	}
	for i := range list.Items {
		if err := f.show(&list.Items[i]); err != nil {
			return err
		}
	}
	f.version = list.GetResourceVersion()
	return nil
}

// take handles one event of a watch.
func (f *follower[T]) take(event apiwatch.Event) error {
	if event.Type == apiwatch.Error {
		return watchError(apierrors.FromObject(event.Object))
	}
	object, ok := event.Object.(*unstructured.Unstructured)
	if !ok {
		return errors.New("the API server sends something else than an object")
	}
	f.failures = 0
	f.version = object.GetResourceVersion()
	switch event.Type {
	case apiwatch.Added, apiwatch.Modified:
		return f.show(object)
	case apiwatch.Deleted:
		f.Changed(nil)
	}
	return nil
}

// watchError returns err, or what was lost if the API server did not say it: client-go makes a status
// of its own for a broken connection.
func watchError(err error) error {
	if cause, ok := apierrors.StatusCause(err, "ClientWatchDecoding"); ok {
		return fmt.Errorf("the connection was lost: %s", cause.Message)
	}
	return err
}

func (f *follower[T]) show(object *unstructured.Unstructured) error {
	out, err := decode[T](object)
	if err == nil {
		f.Changed(out)
	}
	return err
}

// forget makes the next attempt read the object anew where the server does not remember what came
// after the version seen (HTTP 410), as it does when the definition of the resource was updated. That is
// the good order of things: only other errors are returned.
func (f *follower[T]) forget(err error) error {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		f.version = ""
		return nil
	}
	return err
}

// trouble tells a reason that was not told yet.
func (f *follower[T]) trouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != f.told {
		f.told = text
		f.Trouble(err)
	}
}
