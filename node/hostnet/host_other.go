//go:build !linux

package hostnet

import (
	"fmt"
	"runtime"
)

// New reports that this platform's network is not ours to change yet.
func New() (Host, func(), error) {
	return nil, nil, fmt.Errorf("change the network of %s: %w", runtime.GOOS, ErrUnsupported)
}
