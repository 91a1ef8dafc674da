package proc

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Parent is the control group below which every lab keeps its own.
const Parent = "culvert-lab"

// Cgroup is a control group path, the same in every hierarchy, that holds all
// processes of one lab: Parent/NAME/procs for the lab's own and
// Parent/NAME/NODE for the pods of a node.
type Cgroup struct {
	Name        string
	hierarchies []hierarchy
}

// hierarchy is one mounted cgroup file system.
type hierarchy struct {
	mount       string
	controllers string // v1: comma list as mounted; v2: empty
	v2          bool
}

// OpenCgroup finds the machine's hierarchies; it creates nothing.
func OpenCgroup(name string) (Cgroup, error) {
	raw, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return Cgroup{}, err
	}
	defer raw.Close()
	var found []hierarchy
	for lines := bufio.NewScanner(raw); lines.Scan(); {
		if h, ok := parseHierarchy(lines.Text()); ok {
			found = append(found, h)
		}
	}
	if len(found) == 0 {
		return Cgroup{}, fmt.Errorf("no cgroup file system is mounted: mount one on /sys/fs/cgroup")
	}
	return Cgroup{Name: name, hierarchies: found}, nil
}

// parseHierarchy reads one line of proc_pid_mountinfo(5).
func parseHierarchy(line string) (hierarchy, bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 5 || len(right) < 3 {
		return hierarchy{}, false
	}
	switch right[0] {
	case "cgroup2":
		return hierarchy{mount: left[4], v2: true}, true
	case "cgroup":
		return hierarchy{mount: left[4], controllers: right[2]}, true
	}
	return hierarchy{}, false
}

// Path returns the group of one node as kubelet wants it (--cgroup-root).
func (c Cgroup) Path(node string) string { return "/" + filepath.Join(Parent, c.Name, node) }

// Create makes the group called leaf in every hierarchy.
func (c Cgroup) Create(leaf string) error {
	for _, h := range c.hierarchies {
		dir := h.mount
		for _, part := range []string{Parent, c.Name, leaf} {
			h.delegate(dir)
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			h.inheritCpuset(dir)
		}
	}
	return nil
}

// delegate lets children of a v2 group use its controllers. Controllers the
// machine lacks or keeps are left out; kubelet names those it misses.
func (h hierarchy) delegate(dir string) {
	if !h.v2 {
		return
	}
	raw, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for _, controller := range strings.Fields(string(raw)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}

// inheritCpuset fills a new v1 cpuset, which is born empty and unusable.
func (h hierarchy) inheritCpuset(dir string) {
	if !strings.Contains(h.controllers, "cpuset") {
		return
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || len(strings.TrimSpace(string(own))) > 0 {
			continue
		}
		if parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file)); err == nil {
			_ = os.WriteFile(filepath.Join(dir, file), parent, 0)
		}
	}
}

// tracking is the hierarchy used to follow the lab's own processes: pids where
// mounted, which limits nothing by itself, else the first.
func (c Cgroup) tracking() hierarchy {
	for _, h := range c.hierarchies {
		if strings.Contains(h.controllers, "pids") {
			return h
		}
	}
	return c.hierarchies[0]
}

// Add moves process pid, and so all it starts from then on, into the lab's
// group; pid 0 is the caller.
func (c Cgroup) Add(pid int) error {
	file := filepath.Join(c.tracking().mount, Parent, c.Name, "procs", "cgroup.procs")
	if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("add pid %d to the lab's cgroup: %w", pid, err)
	}
	return nil
}

// PIDs returns every process in the lab's groups of all hierarchies, sorted,
// the caller left out.
func (c Cgroup) PIDs() []int {
	seen := map[int]bool{os.Getpid(): true}
	var pids []int
	for _, h := range c.hierarchies {
		_ = filepath.WalkDir(filepath.Join(h.mount, Parent, c.Name), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			raw, _ := os.ReadFile(path)
			for _, field := range strings.Fields(string(raw)) {
				if pid, err := strconv.Atoi(field); err == nil && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	sort.Ints(pids)
	return pids
}

// Remove deletes the lab's groups, innermost first, and the parent when no
// other lab is left. It returns the first group that stays.
func (c Cgroup) Remove() error {
	var first error
	for _, h := range c.hierarchies {
		root := filepath.Join(h.mount, Parent)
		if err := removeTree(filepath.Join(root, c.Name)); err != nil && first == nil {
			first = err
		}
		_ = unix.Rmdir(root) // fails while another lab is up
	}
	return first
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}
