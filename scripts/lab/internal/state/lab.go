package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
)

// Root is the directory of all labs.
const Root = "/var/lib/culvert-lab"

// ErrNoLab is matched by errors about a lab that is not there.
var ErrNoLab = errors.New("no such lab")

// Lab is one lab, up, half up or half down.
type Lab struct {
	Name     string  `json:"name"`
	Options  Options `json:"options"`
	Hosts    []Host  `json:"hosts"`
	Complete bool    `json:"complete"` // `lab up` ran to its end

	VPN VPN `json:"vpn"`
	// Joins numbers the links of this lab's router to those of other labs, by
	// their names.
	Joins map[string]int `json:"joins,omitempty"`
}

// VPN is the VPN's present state.
type VPN struct {
	Kind      string         `json:"kind"`
	Up        bool           `json:"up"`
	Interface string         `json:"interface,omitempty"` // on ws
	Routes    []netip.Prefix `json:"routes,omitempty"`
}

// Host is one host and the process that holds its namespaces.
type Host struct {
	Name      string       `json:"name"`
	Holder    proc.Process `json:"holder"`
	NetNS     uint64       `json:"netns"` // inode of its network namespace
	Addresses []netip.Addr `json:"addresses"`
}

// Open reads the lab called name; the error matches [ErrNoLab] when there is
// none.
func Open(name string) (*Lab, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	lab := &Lab{Name: name}
	raw, err := os.ReadFile(lab.Path("state.json"))
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("lab %q is not up: %w (see `lab up --help`)", name, ErrNoLab)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, lab); err != nil {
		return nil, fmt.Errorf("read %s: %w", lab.Path("state.json"), err)
	}
	return lab, nil
}

// Save writes the lab's state so that readers see the old or the new, whole.
func (l *Lab) Save() error {
	if err := os.MkdirAll(l.Dir(), 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	tmp := l.Path("state.json.new")
	if err := os.WriteFile(tmp, raw, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, l.Path("state.json"))
}

// Dir is the lab's directory.
func (l *Lab) Dir() string { return filepath.Join(Root, l.Name) }

// Path joins elements to the lab's directory.
func (l *Lab) Path(elements ...string) string {
	return filepath.Join(append([]string{l.Dir()}, elements...)...)
}

// Book is where the lab's processes are recorded.
func (l *Lab) Book() proc.Book { return proc.Book{Dir: l.Path("procs")} }

// Log is the path of the log of the process called name.
func (l *Lab) Log(name string) string { return l.Path("logs", name+".log") }

// Host returns the host called name; the error lists those there are.
func (l *Lab) Host(name string) (Host, error) {
	var names []string
	for _, h := range l.Hosts {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return Host{}, fmt.Errorf("lab %q has no host %q: want one of %v", l.Name, name, names)
}

// Lock keeps other commands from changing the same lab, or with an empty name
// the directory of labs, until unlock is called. With wait unset it fails at
// once when another holds the lock.
func Lock(name string, wait bool) (unlock func(), err error) {
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		if err := os.MkdirAll(Root, 0o755); err != nil {
			return nil, err
		}
		file, err := os.OpenFile(lockPath(name), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
		if errors.Is(err, os.ErrNotExist) {
			continue // the directory went with the last lab
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), how); err != nil {
			file.Close()
			return nil, fmt.Errorf("another command is changing lab %q", name)
		}
		if current(file, name) {
			return func() { file.Close() }, nil
		}
		file.Close()
	}
}

func lockPath(name string) string {
	if name == "" {
		return filepath.Join(Root, ".lock")
	}
	return filepath.Join(Root, "."+name+".lock")
}

// current reports whether file is still the lock's: whoever held it before may
// have removed it with the lab.
func current(file *os.File, name string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(lockPath(name))
	return err == nil && os.SameFile(ours, theirs)
}

// RemoveLock removes the lock of a lab that is gone; the caller holds it.
func RemoveLock(name string) error {
	if err := os.Remove(lockPath(name)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// Names lists the labs there are, sorted.
func Names() []string {
	paths, _ := filepath.Glob(filepath.Join(Root, "*", "state.json"))
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	sort.Strings(names)
	return names
}
