// Package journal keeps, for each connection, the record of what was changed on the host: written
// before each kind of change, so that whoever finds it after a crash can undo everything with no
// other knowledge.
//
// The record says what is ours, not what to run: undoing goes by marker (route protocol, table, link
// alias, first line of a file), so that it is safe to do twice and never touches another program's
// work. The package only stores; node/helper restores.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/culvert-dev/culvert/dns/hostdns"
)

// version of the file's form. A journal of another version is not guessed at.
const version = 1

// fileName is the journal's name in the directory of its connection.
const fileName = "journal.json"

// Journal is what one connection changed, or is about to change, on the host.
type Journal struct {
	Version int `json:"version"`
	// Name is the connection.
	Name string `json:"name"`
	// BootID is the kernel's (random(4)) when the journal was begun. After another boot nothing of
	// Network is left, while Resolver, a file, still counts.
	BootID string `json:"bootID"`
	// Network is what was changed in the kernel; nil means nothing.
	Network *Network `json:"network,omitempty"`
	// Sockets are paths of Unix sockets to remove.
	Sockets []string `json:"sockets,omitempty"`
	// Resolver is the resolver file as it was; nil means untouched.
	Resolver *hostdns.Record `json:"resolver,omitempty"`
}

// Network names what is ours in the kernel.
type Network struct {
	// Interface is the TUN's name; Index is its number, 0 while it is not known to exist.
	Interface string `json:"interface"`
	Index     int    `json:"index,omitempty"`
	// Table is the routing table of our own, of which the marked routes and rules are ours.
	Table int `json:"table"`
}

// Empty reports whether j has nothing to undo.
func (j *Journal) Empty() bool {
	return j.Network == nil && len(j.Sockets) == 0 && j.Resolver == nil
}

// Store is the directory under which each connection has its own: /var/lib/culvert.
type Store struct{ Dir string }

// path returns the journal of connection name.
func (s Store) path(name string) string { return filepath.Join(s.Dir, name, fileName) }

// Load returns the journal of connection name. A missing one is an error that matches
// [fs.ErrNotExist].
func (s Store) Load(name string) (*Journal, error) {
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		return nil, fmt.Errorf("read the journal of connection %q: %w", name, err)
	}
	if len(data) == 0 { // what a power failure can leave of one that had no need to survive it; see Save
		return nil, fmt.Errorf("the journal %s is empty: %w", s.path(name), fs.ErrNotExist)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var j Journal
	if err := dec.Decode(&j); err != nil {
		return nil, fmt.Errorf("read the journal %s: %w", s.path(name), err)
	}
	if j.Version != version || j.Name != name {
		return nil, fmt.Errorf("the journal %s is of version %d for connection %q; this program reads version %d for %q",
			s.path(name), j.Version, j.Name, version, name)
	}
	return &j, nil
}

// Save writes j, whole or not at all, before it returns. A journal with a Resolver is also flushed to
// disk: files outlive a power failure. Everything else ends with the kernel that it was made in, and
// flushing would make connecting wait for the disk.
func (s Store) Save(j *Journal) error {
	j.Version = version
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("write the journal of connection %q: %w", j.Name, err)
	}
	err = s.write(s.path(j.Name), data, j.Resolver != nil)
	if errors.Is(err, fs.ErrNotExist) { // another connection that ended removed the empty directory
		err = s.write(s.path(j.Name), data, j.Resolver != nil)
	}
	if err != nil {
		return fmt.Errorf("write the journal of connection %q: %w", j.Name, err)
	}
	return nil
}

// write replaces path by renaming a new file over it. Only root reads it: it names files and servers
// of the host.
func (s Store) write(path string, data []byte, flush bool) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if flush {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil || !flush {
		return err
	}
	return syncDir(dir)
}

// Remove removes the journal of connection name and its directory; a missing one is fine.
func (s Store) Remove(name string) error {
	dir := filepath.Dir(s.path(name))
	for _, file := range []string{s.path(name), s.path(name) + ".new"} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the journal of connection %q: %w", name, err)
		}
	}
	_ = os.Remove(dir) // stays while something else is kept there
	_ = os.Remove(s.Dir)
	return nil
}

// Names returns the connections that have a journal, sorted.
func (s Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the journals: %w", err)
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(s.path(e.Name())); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// BootID returns the kernel's identifier of the current boot.
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
