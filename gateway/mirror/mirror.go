// Package mirror keeps what the gateway needs of some API objects in memory, up to date by list and
// watch.
//
// It stands where an informer usually does, and is smaller: only a projection of each object is kept,
// a reader takes a snapshot instead of registering handlers, and a failure (a missing right, an API
// the server does not serve) is a value the reader decides on. A Mirror owns its map; readers get
// copies. Projections are shared between snapshots and must not be changed.
package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// Source says which objects to mirror.
type Source struct {
	// Client, Resource and Namespace list and watch them; "" is all namespaces, or none for what has
	// no namespace. Client and Resource are required.
	Client    dynamic.Interface
	Resource  schema.GroupVersionResource
	Namespace string
	// What names them in messages, such as "peers in namespace culvert". Required.
	What string
	// FieldSelector narrows the list; "" means all.
	FieldSelector string
	// Trim, if set, removes what Project does not read from an object as soon as it is decoded, so
	// that a long list is never held whole. It must keep metadata's name, namespace, uid and
	// resourceVersion.
	Trim func(*unstructured.Unstructured)
	// Log is where changes of health are reported; nil discards them.
	Log *slog.Logger
}

// Mirror holds a projection T of every object of one Source. Use [New].
type Mirror[T any] struct {
	source  Source
	project func(*unstructured.Unstructured) (T, error)
	changes chan struct{}

	mu     sync.Mutex // guards the fields below
	items  map[types.NamespacedName]T
	synced bool
	err    error
}

// New returns a Mirror of s. An object that project refuses with an error is logged and left out.
func New[T any](s Source, project func(*unstructured.Unstructured) (T, error)) *Mirror[T] {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	return &Mirror[T]{source: s, project: project, changes: make(chan struct{}, 1),
		items: map[types.NamespacedName]T{}}
}

// Changes yields a value after the items or the state may have changed. Changes that nobody has
// taken yet are merged into one.
func (m *Mirror[T]) Changes() <-chan struct{} { return m.changes }

// Items returns the projections by name.
func (m *Mirror[T]) Items() map[types.NamespacedName]T {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.items)
}

// State reports whether the items were complete once, and the error of the latest attempt to list or
// watch; the error is nil while all is well and before the first answer.
func (m *Mirror[T]) State() (synced bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced, m.err
}

// The pause after a failed list or watch doubles from the first to the longest, so that a gateway is
// current again soon after the API server returns. What only a person can end (a missing right, a
// resource that is not served) is asked for more rarely.
const (
	firstPause  = 250 * time.Millisecond
	longPause   = 5 * time.Second
	deniedPause = 30 * time.Second
)

// Run lists and watches until ctx ends.
func (m *Mirror[T]) Run(ctx context.Context) {
	reflector := cache.NewReflectorWithOptions(m.listWatch(), &unstructured.Unstructured{}, store[T]{m},
		cache.ReflectorOptions{Name: m.source.What, Backoff: &wait.Backoff{
			Duration: firstPause, Cap: longPause, Steps: 10, Factor: 2, Jitter: 0.2}})
	pause := firstPause
	for {
		err := reflector.ListAndWatchWithContext(ctx)
		m.report(err)
		if err == nil {
			pause = firstPause
		}
		if !sleep(ctx, jitter(pause)) {
			return
		}
		pause = min(2*pause, longest(err))
	}
}

// longest returns the longest pause after err.
func longest(err error) time.Duration {
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return deniedPause
	}
	return longPause
}

// jitter spreads d by a fifth.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/5+1) }

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// listWatch binds the source's client and selector.
func (m *Mirror[T]) listWatch() cache.ListerWatcher {
	api := m.source.Client.Resource(m.source.Resource).Namespace(m.source.Namespace)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = m.source.FieldSelector
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = m.source.FieldSelector
			w, err := api.Watch(ctx, o)
			// The reflector keeps quiet about what it tries again. A watch that is to send the list
			// too may be refused by older servers; the list that follows tells what matters.
			if list := o.SendInitialEvents != nil && *o.SendInitialEvents; !list && ctx.Err() == nil {
				m.report(err)
			}
			return w, err
		},
	}
	return cache.ToListWatcherWithWatchListSemantics(lw, m.source.Client)
}

// report records the outcome of an attempt and logs it when it differs from the one before.
func (m *Mirror[T]) report(err error) {
	if err != nil {
		err = fmt.Errorf("watch %s: %w", m.source.What, err)
	}
	var before error
	m.change(func() { before, m.err = m.err, err })
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		m.source.Log.Warn("cannot watch, trying again", "err", err)
	case err == nil && before != nil:
		m.source.Log.Info("watching again", "what", m.source.What)
	}
}

// change applies fn under the lock and tells the reader.
func (m *Mirror[T]) change(fn func()) {
	m.mu.Lock()
	fn()
	m.mu.Unlock()
	select {
	case m.changes <- struct{}{}:
	default:
	}
}
