package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
)

func (a *app) down() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "take a lab down, whole or half up, and leave nothing",
		Long: `down ends every process of the lab, by the ids recorded when they were started
and by the lab's own cgroup; namespaces, devices and mounts go with them. Safe to
repeat, and after a crash.`,
		Example: `  lab down
  lab down --name second
  lab down --all`,
		Args: needArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if err := requireRoot(); err != nil {
				return err
			}
			names := []string{a.name}
			if all {
				names = state.Names()
			}
			var errs []error
			for _, name := range names {
				errs = append(errs, takeDown(name))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every lab of this machine")
	return cmd
}

func takeDown(name string) error {
	if err := state.CheckName(name); err != nil {
		return usageError{err}
	}
	unlock, err := state.Lock(name, true)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := state.Open(name)
	if errors.Is(err, state.ErrNoLab) {
		// A state file never written or already gone: the group may still be there.
		l = &state.Lab{Name: name}
	} else if err != nil {
		return err
	}
	if err := teardown(l); err != nil {
		return err
	}
	if err := state.RemoveLock(name); err != nil {
		return err
	}
	_ = unix.Rmdir(state.Root) // stays while there is another lab
	return nil
}

// teardown is `lab down` without the lock. It is safe to repeat.
func teardown(l *state.Lab) error {
	group, err := proc.OpenCgroup(l.Name)
	if err != nil {
		return err
	}
	if err := endProcesses(l, group); err != nil {
		return err
	}
	// A group is busy for a moment after its last process.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = group.Remove(); err == nil || time.Now().After(end) {
			break
		}
	}
	return errors.Join(err, os.RemoveAll(l.Dir()), removeMountPoints())
}

// endProcesses kills everything of the lab until nothing is left.
func endProcesses(l *state.Lab, group proc.Cgroup) error {
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pids := remaining(l, group)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v of lab %q do not end", pids, l.Name)
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end pid %d: %w", pid, err)
			}
		}
	}
}

// remaining lists the lab's processes: those recorded, those in its cgroup, and
// those in the network namespaces its holders keep, zombies left out.
func remaining(l *state.Lab, group proc.Cgroup) []int {
	pids := group.PIDs()
	holders := map[uint64]bool{}
	for _, h := range l.Hosts {
		if h.Holder.Alive() { // else its namespace's number may be another's by now
			holders[h.NetNS] = true
		}
	}
	for _, p := range l.Book().All() {
		if p.Alive() {
			pids = append(pids, p.PID)
		}
	}
	if len(holders) > 0 {
		pids = append(pids, inNamespaces(holders)...)
	}
	slices.Sort(pids)
	return slices.DeleteFunc(slices.Compact(pids), func(pid int) bool { return pid == os.Getpid() || isZombie(pid) })
}

func inNamespaces(inodes map[uint64]bool) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && inodes[inode(pid)] {
			pids = append(pids, pid)
		}
	}
	return pids
}

func isZombie(pid int) bool {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(raw[strings.LastIndexByte(string(raw), ')'):]), " ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

// keepLogs copies the logs of a lab that failed to where `lab down` does not
// reach.
func keepLogs(l *state.Lab) {
	dir := filepath.Join(os.TempDir(), "culvert-lab-"+l.Name+"-logs")
	_ = os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(l.Path("logs"))); err == nil {
		progress("logs are kept in %s", dir)
	}
}

// madeList names the directories the lab had to make on the machine to mount
// over them inside hosts.
var madeList = filepath.Join(state.Root, ".made")

// makeMountPoints makes and notes the missing ones.
func makeMountPoints(s host.Setup) error {
	var wanted []string
	for _, t := range s.Tmpfs {
		wanted = append(wanted, t.Path)
	}
	for _, b := range s.Bind {
		wanted = append(wanted, b.To)
	}
	for _, dir := range wanted {
		for _, missing := range missingDirs(dir) {
			if err := makeNoted(missing); err != nil {
				return err
			}
		}
	}
	return nil
}

// missingDirs returns dir and those above it that are not there, the outermost first.
func missingDirs(dir string) []string {
	if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
		return nil
	}
	return append(missingDirs(filepath.Dir(dir)), dir)
}

// makeNoted makes one directory after noting it.
func makeNoted(dir string) error {
	list, err := os.OpenFile(madeList, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(list, dir)
	if err = errors.Join(err, list.Close()); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

// removeMountPoints removes them, and the labs' own directory, once no lab is
// left.
func removeMountPoints() error {
	unlock, err := state.Lock("", true)
	if err != nil {
		return err
	}
	defer unlock()
	if len(state.Names()) > 0 {
		return nil
	}
	raw, err := os.ReadFile(madeList)
	if err == nil {
		for _, dir := range slices.Backward(strings.Fields(string(raw))) {
			_ = unix.Rmdir(dir) // stays if someone has put something in it
		}
		err = os.Remove(madeList)
	}
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return state.RemoveLock("")
}
