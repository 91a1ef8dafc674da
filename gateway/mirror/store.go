package mirror

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// store is the side of a Mirror that the reflector writes to.
type store[T any] struct{ m *Mirror[T] }

var _ cache.TransformingStore = store[int]{}

// Transformer trims objects before a list is complete.
func (s store[T]) Transformer() cache.TransformFunc {
	if s.m.source.Trim == nil {
		return nil
	}
	return func(obj any) (any, error) {
		if u, ok := obj.(*unstructured.Unstructured); ok {
			s.m.source.Trim(u)
		}
		return obj, nil
	}
}

// Add takes up a new object.
func (s store[T]) Add(obj any) error { return s.Update(obj) }

// Update takes up a changed object; one that cannot be projected any more is left out.
func (s store[T]) Update(obj any) error {
	u, err := object(obj)
	if err != nil {
		return err
	}
	item, ok := s.projected(u)
	s.m.change(func() {
		if ok {
			s.m.items[nameOf(u)] = item
		} else {
			delete(s.m.items, nameOf(u))
		}
	})
	return nil
}

// Delete forgets an object.
func (s store[T]) Delete(obj any) error {
	u, err := object(obj)
	if err != nil {
		return err
	}
	s.m.change(func() { delete(s.m.items, nameOf(u)) })
	return nil
}

// Replace takes list for all there is.
func (s store[T]) Replace(list []any, _ string) error {
	items := make(map[types.NamespacedName]T, len(list))
	for _, obj := range list {
		u, err := object(obj)
		if err != nil {
			return err
		}
		if item, ok := s.projected(u); ok {
			items[nameOf(u)] = item
		}
	}
	s.m.report(nil)
	s.m.change(func() { s.m.items, s.m.synced = items, true })
	return nil
}

// Resync has no meaning here: readers resync from a snapshot on timers of their own.
func (s store[T]) Resync() error { return nil }

// projected runs the projection, and says in the log which object it refused.
func (s store[T]) projected(u *unstructured.Unstructured) (T, bool) {
	item, err := s.m.project(u)
	if err != nil {
		s.m.source.Log.Warn("object ignored", "what", s.m.source.What, "name", u.GetName(), "err", err)
	}
	return item, err == nil
}

func object(obj any) (*unstructured.Unstructured, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("mirror: unexpected object %T", obj)
	}
	return u, nil
}

func nameOf(u *unstructured.Unstructured) types.NamespacedName {
	return types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()}
}
