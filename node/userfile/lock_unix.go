//go:build unix

package userfile

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPatience bounds waiting for another process: those who ask have other things to do.
const lockPatience = time.Second

// Lock waits for the lock of path, a file that is made if it is not there and stays, and returns what
// gives it back. It is an advisory one (flock(2)), which ends with the process at the latest. After a second
// it gives up; the error matches [ErrLocked].
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil //nolint:errcheck // nothing was written
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		case time.Now().After(end):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, ErrLocked), f.Close())
		}
	}
}
