//go:build !linux

package routefacts

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/culvert-dev/culvert/policy"
)

// Read is not written for this platform yet. The error matches [errors.ErrUnsupported].
func Read(context.Context) (policy.Facts, error) {
	return policy.Facts{}, fmt.Errorf("read the routes of this host: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}

// ReadIPsec is not written for this platform yet. The error matches [errors.ErrUnsupported].
func ReadIPsec(context.Context) ([]policy.IPsecPolicy, []string, error) {
	return nil, nil, fmt.Errorf("read the IPsec policies of this host: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}
