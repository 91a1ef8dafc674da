//go:build !linux

package vip

import (
	"errors"
	"os"
	"runtime"
)

// lockFile cannot lock here: leases are kept in memory only.
func lockFile(string) (*os.File, error) {
	return nil, errors.New("no file locks on " + runtime.GOOS)
}
