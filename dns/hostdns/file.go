package hostdns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// attributes are what a file has besides its content. A zero modTime means now.
type attributes struct {
	mode     fs.FileMode
	uid, gid int
	modTime  time.Time
}

// scratch is the name of the file that is renamed over path. It is fixed, so that the leftover of a
// crash is found by the next writer and by [RemoveScratch].
func scratch(path, name string) string {
	return filepath.Join(filepath.Dir(path), ".resolv.conf.culvert-"+name)
}

// RemoveScratch removes what a crash between writing and renaming left beside the resolver file.
func (r *Record) RemoveScratch() error {
	return errors.Join(remove(scratch(r.Path, r.Name)), remove(scratch(r.Target, r.Name)))
}

// replace makes path a file with this content and these attributes: by renaming a new file over it,
// or in place where path is a mount point, as in containers and under "ip netns exec".
func replace(path, name string, content []byte, a attributes) error {
	tmp := scratch(path, name)
	if err := writeNew(tmp, content, a); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", tmp, err), remove(tmp))
	}
	copyLabel(path, tmp)
	err := os.Rename(tmp, path)
	if err == nil {
		return nil // if a power failure undoes the renaming, the file that was there is there again
	}
	if errors.Is(err, syscall.EBUSY) {
		err = writeInPlace(path, content, a)
	}
	return errors.Join(err, remove(tmp))
}

// writeNew creates path, which must not exist but as our own leftover, and flushes it to disk.
func writeNew(path string, content []byte, a attributes) error {
	if err := remove(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, a.apply(f), f.Sync(), f.Close(), a.touch(path))
}

// writeInPlace overwrites path. The content goes first and the truncation after it, so that at any
// instant the file begins with a whole content and, if ours, with the marker.
func writeInPlace(path string, content []byte, a attributes) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Truncate(int64(len(content)))
	}
	return errors.Join(err, a.apply(f), f.Sync(), f.Close(), a.touch(path))
}

// apply sets owner and mode.
func (a attributes) apply(f *os.File) error {
	return errors.Join(f.Chown(a.uid, a.gid), f.Chmod(a.mode))
}

// touch sets the modification time.
func (a attributes) touch(path string) error {
	if a.modTime.IsZero() {
		return nil
	}
	return os.Chtimes(path, a.modTime, a.modTime)
}

// replaceByLink makes path a symbolic link to target, made at that time.
func replaceByLink(path, name, target string, at time.Time) error {
	tmp := scratch(path, name)
	if err := remove(tmp); err != nil {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	touchLink(tmp, at)
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, remove(tmp))
	}
	return nil
}

// remove removes a file; a missing one is fine.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// without returns the addresses of a that are not in b.
func without(a, b []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(a), func(x netip.Addr) bool { return slices.Contains(b, x) })
}
