package helper

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/hostnet/hosttest"
	"github.com/culvert-dev/culvert/policy"
)

// fakeIPsec is a kernel's security policy database.
type fakeIPsec struct {
	changes chan struct{}

	mu       sync.Mutex // guards the fields below
	policies []policy.IPsecPolicy
	err      error
	running  int
}

func (f *fakeIPsec) set(err error, policies ...policy.IPsecPolicy) {
	f.mu.Lock()
	f.policies, f.err = policies, err
	f.mu.Unlock()
	f.changes <- struct{}{}
}

func (f *fakeIPsec) read(context.Context) ([]policy.IPsecPolicy, []string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policies, nil, f.err
}

func (f *fakeIPsec) Changes() <-chan struct{} { return f.changes }

func (f *fakeIPsec) Run(ctx context.Context) error {
	f.count(1)
	<-ctx.Done()
	f.count(-1)
	return nil
}

func (f *fakeIPsec) count(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running += n
	return f.running
}

func TestIPsecPolicies(t *testing.T) {
	kernel := &fakeIPsec{changes: make(chan struct{})}
	s := serveOptions(t, Options{
		Name: DefaultName, Host: hosttest.New(otherPrograms()), Paths: pathsIn(t), Log: discard,
		readIPsec: kernel.read, watchIPsec: func() (ipsecWatch, error) { return kernel, nil },
	})
	c := s.client(t)
	got, err := c.IPsec(t.Context())
	if err != nil || len(got.Policies) != 0 {
		t.Fatalf("%+v, %v; want none", got, err)
	}
	strongSwan := policy.IPsecPolicy{
		Src: netip.MustParsePrefix("192.168.1.2/32"), Dst: netip.MustParsePrefix("10.0.0.0/8"),
		Action: policy.IPsecProtect, Priority: 371327, Peer: netip.MustParseAddr("198.51.100.7"),
	}
	plain := policy.IPsecPolicy{
		Src: netip.MustParsePrefix("::/0"), Dst: netip.MustParsePrefix("fd00::/8"),
		Action: policy.IPsecDiscard, Mark: policy.Mark{Value: 1, Mask: 0xff}, IfID: 3, Partial: true,
	}
	kernel.set(nil) // nothing new, no event
	kernel.set(errors.New("out of memory"))
	kernel.set(nil, strongSwan, plain)
	select {
	case e := <-c.Events():
		if !e.IPsecChanged {
			t.Errorf("event %+v", e)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
	}
	got, err = c.IPsec(t.Context())
	if want := []policy.IPsecPolicy{strongSwan, plain}; err != nil || !reflect.DeepEqual(got.Policies, want) {
		t.Errorf("%+v, %v\nwant %+v", got.Policies, err, want)
	}
	many := make([]policy.IPsecPolicy, 3*maxPolicies)
	for i := range many {
		many[i] = plain
	}
	kernel.set(nil, many...)
	got, err = c.IPsec(t.Context())
	if err != nil || len(got.Policies) != maxPolicies || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "6144") {
		t.Errorf("%d policies, warnings %q, %v", len(got.Policies), got.Warnings, err)
	}
	c.Disconnect()
	if err := s.wait(t); err != nil || kernel.count(0) != 0 {
		t.Errorf("ended with %v, %d still watch", err, kernel.count(0))
	}
}

// An error is told and keeps the session.
func TestIPsecThatCannotBeRead(t *testing.T) {
	kernel := &fakeIPsec{changes: make(chan struct{}), err: errors.New("permission denied")}
	s := serveOptions(t, Options{
		Name: DefaultName, Host: hosttest.New(otherPrograms()), Paths: pathsIn(t), Log: discard,
		readIPsec: kernel.read, watchIPsec: func() (ipsecWatch, error) { return nil, errors.ErrUnsupported },
	})
	c := s.client(t)
	for range 2 {
		if _, err := c.IPsec(t.Context()); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%v, want the kernel's error", err)
		}
	}
	if _, err := c.Ping(t.Context()); err != nil {
		t.Errorf("the session did not survive: %v", err)
	}
}
