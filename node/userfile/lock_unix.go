//go:build unix

package userfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Lock waits for the lock of path, a file that is made if it is not there and stays, and returns what
// gives it back. It is an advisory one (flock(2)), which ends with the process at the latest.
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil //nolint:errcheck // nothing was written
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
	}
}
