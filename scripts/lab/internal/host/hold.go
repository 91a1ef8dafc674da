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

// Start makes the namespaces of a host and sets it up. recorded is called with
// the holder's pid, and the holder lives on only once it has returned nil: a
// caller killed before leaves nothing behind.
func Start(setup Setup, recorded func(pid int) error) error {
	spec, err := json.Marshal(setup)
	if err != nil {
		return err
	}
	status, statusEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer status.Close()
	cmd := exec.Command("/proc/self/exe", HoldCommand, string(spec))
	cmd.ExtraFiles = []*os.File{statusEnd}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
		Setsid:     true,
	}
	consent, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	statusEnd.Close()
	if err != nil {
		return fmt.Errorf("start the holder of %s: %w", setup.Title, err)
	}
	if err := shake(status, consent, func() error { return recorded(cmd.Process.Pid) }); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("set up %s: %w", setup.Title, err)
	}
	return cmd.Process.Release()
}

// ready is what a holder says once it is set up.
const ready = "ready\n"

// shake is the caller's side of the handshake with a holder: it says ready, or
// why not; we record it and consent; end of file then means that it sleeps.
func shake(status io.Reader, consent io.WriteCloser, recorded func() error) error {
	defer consent.Close()
	word := make([]byte, len(ready))
	if n, err := io.ReadFull(status, word); err != nil || string(word) != ready {
		rest, _ := io.ReadAll(status)
		return fmt.Errorf("%s%s", word[:n], rest)
	}
	if err := recorded(); err != nil {
		return err
	}
	if _, err := consent.Write([]byte{1}); err != nil {
		return err
	}
	if message, err := io.ReadAll(status); err != nil || len(message) > 0 {
		return fmt.Errorf("%s (%w)", message, err)
	}
	return nil
}

// Hold is the holder: it sets the host up from the specification in args, says
// so on descriptor 3, waits for consent on standard input, and turns into a
// sleeping process of a megabyte.
func Hold(args []string) int {
	status := os.NewFile(3, "status")
	unix.CloseOnExec(3)
	var setup Setup
	err := json.Unmarshal([]byte(args[0]), &setup)
	if err == nil {
		err = setup.apply()
	}
	if err == nil {
		fmt.Fprint(status, ready)
		if n, _ := os.Stdin.Read(make([]byte, 1)); n != 1 {
			return 1 // the caller is gone
		}
		err = unix.Exec("/bin/sleep", []string{setup.Title, "infinity"}, nil)
		err = fmt.Errorf("exec /bin/sleep: %w", err)
	}
	fmt.Fprint(status, err)
	return 1
}
