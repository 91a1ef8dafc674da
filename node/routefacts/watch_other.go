//go:build !linux

package routefacts

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/culvert-dev/culvert/policy"
)

// Watcher is not written for this platform yet; there is none.
type Watcher struct{}

// NewWatcher returns an error that matches [errors.ErrUnsupported].
func NewWatcher(policy.Own) (*Watcher, error) {
	return nil, fmt.Errorf("watch the routes of this host: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}

// NewIPsecWatcher returns an error that matches [errors.ErrUnsupported].
func NewIPsecWatcher() (*Watcher, error) { return NewWatcher(policy.Own{}) }

// Changes never has a token.
func (*Watcher) Changes() <-chan struct{} { return nil }

// Run waits for the end of ctx.
func (*Watcher) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Close does nothing.
func (*Watcher) Close() {}
