package mirror

import (
	"context"
	"errors"
	"maps"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	ktesting "k8s.io/client-go/testing"
)

var things = schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "things"}

func thing(name, colour string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.org/v1", "kind": "Thing",
		"metadata": map[string]any{"name": name, "namespace": "ns"},
		"spec":     map[string]any{"colour": colour},
	}}
}

// colour projects a thing and refuses the colourless.
func colour(u *unstructured.Unstructured) (string, error) {
	c, _, _ := unstructured.NestedString(u.Object, "spec", "colour")
	if c == "" {
		return "", errors.New("no colour")
	}
	return c, nil
}

func client(objects ...runtime.Object) *fake.FakeDynamicClient {
	return fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{things: "ThingList"}, objects...)
}

// run starts a Mirror and returns it; the test's end stops it and waits.
func run(t *testing.T, c dynamic.Interface) *Mirror[string] {
	t.Helper()
	m := New(Source{Client: c, Resource: things, Namespace: "ns", What: "things"}, colour)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		goleak.VerifyNone(t)
	})
	return m
}

// await takes changes until ok holds.
func await(t *testing.T, m *Mirror[string], what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-m.Changes():
		case <-deadline:
			t.Fatalf("never %s; items %v", what, m.Items())
		}
	}
}

func has(m *Mirror[string], want map[string]string) func() bool {
	return func() bool {
		got := map[string]string{}
		for k, v := range m.Items() {
			got[k.Name] = v
		}
		return maps.Equal(got, want)
	}
}

func TestMirrorFollows(t *testing.T) {
	c := client(thing("sea", "blue"), thing("glass", ""))
	m := run(t, c)
	await(t, m, "listed", has(m, map[string]string{"sea": "blue"}))
	if synced, err := m.State(); !synced || err != nil {
		t.Errorf("State() = %v, %v after the list", synced, err)
	}
	api, ctx := c.Resource(things).Namespace("ns"), context.Background()
	for _, step := range []struct {
		name string
		do   func() error
		want map[string]string
	}{
		{"added", func() error { _, err := api.Create(ctx, thing("leaf", "green"), metav1.CreateOptions{}); return err },
			map[string]string{"sea": "blue", "leaf": "green"}},
		{"changed", func() error { _, err := api.Update(ctx, thing("leaf", "red"), metav1.UpdateOptions{}); return err },
			map[string]string{"sea": "blue", "leaf": "red"}},
		{"not projectable any more", func() error { _, err := api.Update(ctx, thing("leaf", ""), metav1.UpdateOptions{}); return err },
			map[string]string{"sea": "blue"}},
		{"deleted", func() error { return api.Delete(ctx, "sea", metav1.DeleteOptions{}) }, map[string]string{}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(step.name, err)
		}
		await(t, m, step.name, has(m, step.want))
	}
}

func TestMirrorReportsAMissingRightAndRecovers(t *testing.T) {
	c := client(thing("sea", "blue"))
	denied := true
	c.PrependReactor("list", "things", func(ktesting.Action) (bool, runtime.Object, error) {
		if denied {
			denied = false
			return true, nil, apierrors.NewForbidden(things.GroupResource(), "", errors.New("no such right"))
		}
		return false, nil, nil
	})
	m := run(t, c)
	await(t, m, "denied", func() bool { _, err := m.State(); return apierrors.IsForbidden(err) })
	await(t, m, "recovered", has(m, map[string]string{"sea": "blue"}))
	if synced, err := m.State(); !synced || err != nil {
		t.Errorf("State() = %v, %v after recovery", synced, err)
	}
}

func TestItemsIsACopy(t *testing.T) {
	m := New(Source{What: "things"}, colour)
	if err := (store[string]{m}).Replace([]any{thing("sea", "blue")}, ""); err != nil {
		t.Fatal(err)
	}
	clear(m.Items())
	if got := m.Items()[types.NamespacedName{Namespace: "ns", Name: "sea"}]; got != "blue" {
		t.Errorf("a reader changed the mirror: %q", got)
	}
	if err := (store[string]{m}).Add("not an object"); err == nil {
		t.Error("an unexpected object was taken up")
	}
}

func TestMirrorReportsAnOutageAndKeepsWhatItHas(t *testing.T) {
	c := client(thing("sea", "blue"))
	var down atomic.Bool
	watches := make(chan *watch.FakeWatcher, 16)
	c.PrependWatchReactor("things", func(ktesting.Action) (bool, watch.Interface, error) {
		if down.Load() {
			return true, nil, syscall.ECONNREFUSED
		}
		w := watch.NewFake()
		watches <- w
		return true, w, nil
	})
	m := run(t, c)
	await(t, m, "listed", has(m, map[string]string{"sea": "blue"}))
	w := <-watches // the watch stands: an outage before it would leave nothing to stop
	down.Store(true)
	w.Stop()
	await(t, m, "told of the outage", func() bool { _, err := m.State(); return errors.Is(err, syscall.ECONNREFUSED) })
	if synced, _ := m.State(); !synced || !has(m, map[string]string{"sea": "blue"})() {
		t.Errorf("after the outage: synced %v, items %v", synced, m.Items())
	}
	down.Store(false)
	await(t, m, "told of the end", func() bool { _, err := m.State(); return err == nil })
}
