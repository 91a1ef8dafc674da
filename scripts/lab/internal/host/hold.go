package host

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// HoldCommand is the hidden first argument under which the lab's own program
// runs [Hold].
const HoldCommand = "__hold"

// Setup is the file system side of a host.
type Setup struct {
	Title    string // argv[0] of the holder, for people reading ps
	Hostname string
	Bind     []Bind            // directories or files laid over others, in order
	Tmpfs    []Tmpfs           // empty private directories
	Files    map[string]string // written under /etc or another private place
	FreshSys bool              // mount /sys anew, so that it shows this network namespace
	Shared   bool              // let mounts propagate to namespaces made below (kubelet, containerd)
}

// Bind lays From (a path of the machine) over To.
type Bind struct{ From, To string }

// Tmpfs lays an empty directory over Path, owned by UID and GID.
type Tmpfs struct {
	Path     string
	Mode     os.FileMode
	UID, GID int
}

// Start makes the namespaces of a host and returns the pid of their holder once
// setup is done.
func Start(setup Setup) (int, error) {
	spec, err := json.Marshal(setup)
	if err != nil {
		return 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", HoldCommand, string(spec))
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
		Setsid:     true,
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, fmt.Errorf("start the holder of %s: %w", setup.Title, err)
	}
	// End of file means the holder reached its final exec; text is its error.
	msg, err := io.ReadAll(r)
	if err == nil && len(msg) == 0 {
		pid := cmd.Process.Pid
		return pid, cmd.Process.Release()
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return 0, fmt.Errorf("set up %s: %s", setup.Title, msg)
}

// Hold is the holder: it sets the host up from the specification in args, tells
// its parent on descriptor 3, and turns into a sleeping process of a megabyte.
func Hold(args []string) int {
	status := os.NewFile(3, "status")
	unix.CloseOnExec(3)
	var setup Setup
	err := json.Unmarshal([]byte(args[0]), &setup)
	if err == nil {
		err = setup.apply()
	}
	if err == nil {
		err = unix.Exec("/bin/sleep", []string{setup.Title, "infinity"}, nil)
		err = fmt.Errorf("exec /bin/sleep: %w", err)
	}
	fmt.Fprint(status, err)
	return 1
}
