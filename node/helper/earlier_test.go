package helper

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// beside serves connection name on paths that others share, with its lock held as in life, and opens
// culvertN.
func beside(t *testing.T, paths Paths, name string, n int) (*Client, *Opened, hostnet.State) {
	t.Helper()
	lock, err := paths.lock(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	s := serveOptions(t, Options{Name: name, Host: &fakeHost{}, Paths: paths, Log: discard, listenDNS: noSockets})
	c := s.client(t)
	open, state := fine()
	open.Interface = fmt.Sprintf("culvert%d", n)
	state.Interface, state.Table = open.Interface, hostnet.Table(open.Interface)
	state.DNS.Domains = []string{name + ".culvert.internal"}
	opened, err := c.Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	return c, opened, state
}

// told waits until the helper tells of these earlier connections.
func told(t *testing.T, c *Client, names ...string) {
	t.Helper()
	limit := time.After(10 * time.Second)
	var last []Earlier
	for {
		select {
		case e, ok := <-c.Events():
			if !ok {
				t.Fatal("the helper has ended")
			}
			if e.Earlier == nil {
				continue
			}
			last = *e.Earlier
			if slices.EqualFunc(last, names, func(e Earlier, name string) bool { return e.Name == name }) {
				return
			}
		case <-limit:
			t.Fatalf("told of %v, want %q", last, names)
		}
	}
}

// TestEarlierConnections: the first that hooked up its resolver is the first, whoever asked for an
// interface before, and the others learn when it ends.
func TestEarlierConnections(t *testing.T) {
	paths := pathsIn(t)
	apply := func(c *Client, state hostnet.State) {
		t.Helper()
		if err := c.Apply(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
	late, openedLate, stateLate := beside(t, paths, "a", 1)
	first, openedFirst, stateFirst := beside(t, paths, "b", 2)
	if len(openedLate.Earlier)+len(openedFirst.Earlier) > 0 {
		t.Fatalf("told of %v and %v, none of which has a resolver", openedLate.Earlier, openedFirst.Earlier)
	}
	apply(first, stateFirst)
	told(t, late, "b")
	apply(late, stateLate)
	last, openedLast, stateLast := beside(t, paths, "c", 3)
	want := []Earlier{{"b", []string{"b.culvert.internal"}}, {"a", []string{"a.culvert.internal"}}}
	if !slices.EqualFunc(openedLast.Earlier, want, func(x, y Earlier) bool { return x.Name == y.Name && slices.Equal(x.Domains, y.Domains) }) {
		t.Errorf("told of %v, want %v", openedLast.Earlier, want)
	}
	apply(last, stateLast)
	stateFirst.DNS.Search = nil // a change of its wish changes no order
	apply(first, stateFirst)
	if err := first.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	told(t, late)
	told(t, last, "a")
}
