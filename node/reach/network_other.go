//go:build !linux

package reach

import (
	"errors"
	"fmt"
	"runtime"
)

// openNetwork is not written for this platform yet: every result is Unproven. The error matches
// [errors.ErrUnsupported].
func openNetwork() (network, error) {
	return nil, fmt.Errorf("probe the cluster's prefixes: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}
