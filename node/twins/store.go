package twins

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/culvert-dev/culvert/node/userfile"
	"github.com/culvert-dev/culvert/policy"
)

// Store is the user's memory of virtual addresses. It keeps no file open. Its methods may be called from
// any goroutine.
type Store struct{ dir string }

// Key is whose virtual addresses they are: a connection's to a cluster.
type Key struct {
	// Cluster is the cluster's UID; "" for one that has none that can be read.
	Cluster string
	// Connection is the connection's name.
	Connection string
}

func (k Key) String() string { return k.Cluster + "/" + k.Connection }

// book is the form of the file.
type book struct {
	Version int              `json:"version"`
	Entries map[string]entry `json:"entries"` // by Key
}

// entry is what one connection was given.
type entry struct {
	V4    netip.Prefix  `json:"v4,omitzero"`
	V6    netip.Prefix  `json:"v6,omitzero"`
	Twins []policy.Twin `json:"twins,omitempty"`
	Used  time.Time     `json:"used"`
}

const (
	version    = 1
	fileName   = "virtual.json"
	maxEntries = 64 // connections remembered; those not used for longest go first
)

// Open returns the store of the user whose process this is: in $XDG_STATE_HOME/culvert, which is
// ~/.local/state/culvert unless set (XDG Base Directory Specification). It makes nothing there.
func Open() (*Store, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) { // the specification has relative ones ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("remember virtual addresses: %w", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return At(filepath.Join(base, "culvert")), nil
}

// At returns the store in dir, which is made when something is kept.
func At(dir string) *Store { return &Store{dir: dir} }

// Recall returns what key was given, and what others were: the virtual subnets of other clusters and
// connections. A damaged file is an error, with which nothing is remembered.
func (s *Store) Recall(key Key) (mine policy.Virtual, others []netip.Prefix, err error) {
	b, err := s.read()
	if err != nil {
		return mine, nil, err
	}
	for name, e := range b.Entries {
		if name == key.String() {
			mine = policy.Virtual{V4: e.V4, V6: e.V6, Assigned: e.Twins}
			continue
		}
		for _, p := range []netip.Prefix{e.V4, e.V6} {
			if p.IsValid() {
				others = append(others, p)
			}
		}
	}
	slices.SortFunc(others, comparePrefix)
	return mine, slices.Compact(others), nil
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// ULA returns the unique local prefix for the twins of IPv6 prefixes on a machine: hashed as RFC 4193,
// section 3.2.2 does it, out of the machine's id, so that it is the same for each connection and needs no
// memory. It is used on this machine and its tunnels only.
func ULA(machineID string) netip.Prefix {
	sum := sha256.Sum256([]byte("culvert virtual IPv6 subnet\x00" + machineID)) // machine-id(5) wants it hashed
	var raw [16]byte
	raw[0] = 0xfd
	copy(raw[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(raw), 48)
}

// Keep remembers what key has been given. A file that cannot be understood is set aside, which the error says
// beside what went wrong else.
func (s *Store) Keep(key Key, v policy.Virtual) (err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("remember virtual addresses: %w", err)
	}
	unlock, err := userfile.Lock(filepath.Join(s.dir, fileName+".lock"))
	if err != nil {
		return fmt.Errorf("remember virtual addresses: %w", err)
	}
	defer unlock()
	b, damaged := s.read()
	if damaged != nil {
		damaged = errors.Join(damaged, os.Rename(s.path(), s.path()+".damaged"))
		b = empty()
	}
	b.Entries[key.String()] = entry{V4: v.V4, V6: v.V6, Twins: v.Assigned, Used: time.Now().UTC().Truncate(time.Second)}
	forgotten := b.forget(key.String())
	if err := s.write(b); err != nil {
		return errors.Join(damaged, err)
	}
	for _, name := range forgotten { // the lock beside it stays: a connection may hold it
		_ = os.Remove(s.poolPath(name)) // mostly there is none
	}
	return damaged
}

// forget drops the entries that were not used for longest where there are too many, but for the one named, and
// returns their names.
func (b *book) forget(but string) (forgotten []string) {
	for len(b.Entries) > maxEntries {
		oldest := ""
		for name, e := range b.Entries {
			if name != but && (oldest == "" || e.Used.Before(b.Entries[oldest].Used)) {
				oldest = name
			}
		}
		delete(b.Entries, oldest)
		forgotten = append(forgotten, oldest)
	}
	return forgotten
}

// PoolPath returns the file for the leases of key. Its directory is there once something was kept, and it goes
// when key is forgotten.
func (s *Store) PoolPath(key Key) string { return s.poolPath(key.String()) }

func (s *Store) poolPath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(s.dir, "pool-"+hex.EncodeToString(sum[:8]))
}

func (s *Store) path() string { return filepath.Join(s.dir, fileName) }

func empty() book { return book{Version: version, Entries: map[string]entry{}} }

// read returns the file's content; that of a missing one is empty.
func (s *Store) read() (book, error) {
	data, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return empty(), nil
	}
	if err != nil {
		return empty(), fmt.Errorf("remembered virtual addresses: %w", err)
	}
	b, err := parse(data)
	if err != nil {
		return empty(), fmt.Errorf("remembered virtual addresses in %s: %w", s.path(), err)
	}
	return b, nil
}

// parse reads a file's content and refuses what no version of this program writes.
func parse(data []byte) (book, error) {
	var b book
	if err := json.Unmarshal(data, &b); err != nil {
		return empty(), err
	}
	if b.Version != version {
		return empty(), fmt.Errorf("version %d is not %d", b.Version, version)
	}
	if b.Entries == nil {
		b.Entries = map[string]entry{}
	}
	for name, e := range b.Entries {
		if !strings.Contains(name, "/") {
			return empty(), fmt.Errorf("entry %q names no connection", name)
		}
		for _, t := range e.Twins {
			if !t.Real.IsValid() || !t.Virtual.IsValid() || t.Real.Bits() != t.Virtual.Bits() || t.Real.Addr().Is4() != t.Virtual.Addr().Is4() {
				return empty(), fmt.Errorf("entry %s: %s is no twin of %s", name, t.Virtual, t.Real)
			}
		}
	}
	return b, nil
}

// write puts a new file in place of the old one, whole or not at all.
func (s *Store) write(b book) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("remember virtual addresses: %w", err)
	}
	if err := userfile.Replace(s.path(), append(data, '\n')); err != nil {
		return fmt.Errorf("remember virtual addresses: %w", err)
	}
	return nil
}
