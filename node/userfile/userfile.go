// Package userfile changes the small files that Culvert keeps for its user: whole or not at all, and one
// process at a time. It knows neither what they hold nor where they lie.
package userfile

import (
	"errors"
	"os"
	"path/filepath"
)

// ErrLocked is matched by the error of [Lock] when another process has the lock all the time.
var ErrLocked = errors.New("another process holds it")

// Replace puts a file with this content, for the user alone (mode 0600), in place of the one at path. What
// fails leaves the old one.
func Replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
