package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
)

var (
	// ErrForeign is matched when an interface of the wanted name, or our table, belongs to another program.
	ErrForeign = errors.New("belongs to another program")
	// ErrGone is matched when our interface was removed by somebody else.
	ErrGone = errors.New("the interface is gone")
	// ErrUnsupported is matched where this package has no implementation.
	ErrUnsupported = errors.New("not supported on this platform")
)

// Host is the seam to the kernel. Its methods are for one goroutine at a time.
type Host interface {
	// CreateTUN creates the interface of the scope with our alias, down and without addresses, and
	// returns the descriptor that carries its packets (non-blocking, each with a virtio-net header,
	// as golang.zx2c4.com/wireguard/tun.CreateUnmonitoredTUNFromFD expects) and the interface's
	// number. The interface goes away with the last copy of the descriptor. An interface of that
	// name that is already there is an error matching [ErrForeign].
	CreateTUN(scope Scope) (*os.File, int, error)
	// Read returns what is ours.
	Read(scope Scope) (Actual, error)
	// Watch signals on the returned channel after what is of the scope may have changed, by whomever;
	// several changes can come as one signal. The caller ends it with the returned function, which
	// waits until nothing of it is left. Unlike the other methods it may run beside them.
	Watch(scope Scope) (changed <-chan struct{}, stop func(), err error)
	// DestroySockets ends sockets and returns their number. Their programs are told (ECONNABORTED), and
	// over TCP the other end. Without the kernel's help the error matches [ErrUnsupported].
	DestroySockets(Sockets) (int, error)
	// Do makes one change. Adding what is there and removing what is not succeed.
	Do(Change) error
	// Marked returns everything on the host that carries our marks, one scope per interface name,
	// sorted by it, whether the interface is there or not.
	Marked() ([]Scope, error)
	// HasIPv6 reports whether the kernel has IPv6 at all.
	HasIPv6() bool
}

// Sockets are those that speak from one of Sources to an address in one of Targets: TCP in any state but
// listening, and connected UDP; with Established only TCP that is beyond its handshake.
type Sockets struct {
	Sources     []netip.Addr
	Targets     []netip.Prefix
	Established bool
}

// Set brings the host to the desired state and returns the changes made. It reads what is there and
// makes only the difference, so repeating it is cheap and safe. A failed filter or setting stops
// everything after it; of the other additions one failure does not stop the next, but any failure
// stops the removals. Cancelling ctx stops between two changes.
func Set(ctx context.Context, h Host, scope Scope, desired State) (done []Change, err error) {
	for range rounds {
		actual, err := h.Read(scope)
		if err != nil {
			return done, fmt.Errorf("read the network of %s: %w", scope.Interface, err)
		}
		changes := Plan(scope, desired, actual)
		made, err := apply(ctx, h, changes)
		done = append(done, made...)
		if err != nil || !slices.ContainsFunc(changes, desired.besideRule) {
			return done, err
		}
	}
	return done, nil
}

// rounds bounds how often [Set] looks again whether deleting a rule hit the right one.
const rounds = 4

// besideRule reports whether c deletes a rule of the priority that a wanted one has. The kernel deletes
// the oldest rule that has what is asked for, and one without a mark asks for less than one with
// (rule_find in net/core/fib_rules.c), so the wanted one may have gone instead. Additions come first,
// so that this happens only to what a failure or another program left; the next round finds it.
func (s State) besideRule(c Change) bool {
	priority := s.Priority.V4
	if c.Rule.IPv6 {
		priority = s.Priority.V6
	}
	return c.Kind == DeleteRule && c.Rule.Priority == priority
}

// apply makes the changes in order.
func apply(ctx context.Context, h Host, changes []Change) (done []Change, failed error) {
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return done, errors.Join(failed, err)
		}
		if failed != nil && !c.Kind.adds() {
			break
		}
		err := h.Do(c)
		if err == nil {
			done = append(done, c)
			continue
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", c, err))
		if c.Kind <= SetSetting {
			break
		}
	}
	return done, failed
}

// Remove removes everything of the scope, whatever is there of it. Unlike [Set] it goes on after a
// failure: the more is gone the better.
func Remove(h Host, scope Scope) ([]Change, error) {
	actual, err := h.Read(scope)
	if err != nil {
		return nil, fmt.Errorf("read the network of %s: %w", scope.Interface, err)
	}
	var done []Change
	open := false // the interface is still there, so the filter has to be
	for _, c := range Plan(scope, State{}, actual) {
		if open && c.Kind == DeleteFilter {
			continue
		}
		if e := h.Do(c); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", c, e))
			open = open || c.Kind == DeleteLink
			continue
		}
		done = append(done, c)
	}
	return done, err
}
