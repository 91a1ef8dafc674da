// Package host makes and enters the lab's hosts. A host is a set of Linux
// namespaces (network, mount, UTS) kept alive by one holder process, so that
// nothing is ever mounted or named outside them: when the holder and everything
// that entered are gone, the kernel takes the host away.
//
// The package knows nothing about addresses or clusters; callers hand it a
// Setup for the file system side and a function or command to run inside.
package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Kind is a set of namespaces to enter.
type Kind int

// Net enters the network namespace alone, so that files stay those of the
// machine. All enters network, mount and UTS namespaces.
const (
	Net Kind = unix.CLONE_NEWNET
	All Kind = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS
)

var namespaces = []struct {
	kind Kind
	file string
}{
	// The mount namespace last: the /proc paths of the others are read before.
	{unix.CLONE_NEWNET, "net"},
	{unix.CLONE_NEWUTS, "uts"},
	{unix.CLONE_NEWNS, "mnt"},
}

// Do runs f on a thread that has entered the namespaces of process pid, and
// returns its error. Processes f starts are born inside. The thread ends with
// the call and is never given back to the Go scheduler.
func Do(pid int, kind Kind, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // ends locked: the runtime discards the thread
		if err := enterThread(pid, kind); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// enterThread moves the calling, locked thread into the namespaces of pid.
func enterThread(pid int, kind Kind) error {
	if kind&unix.CLONE_NEWNS != 0 {
		// setns(2) into a mount namespace wants a file system state of its own.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare CLONE_FS: %w", err)
		}
	}
	for _, ns := range namespaces {
		if kind&ns.kind == 0 {
			continue
		}
		if err := setns(filepath.Join("/proc", strconv.Itoa(pid), "ns", ns.file), ns.kind); err != nil {
			return err
		}
	}
	return nil
}

func setns(path string, kind Kind) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, int(kind)); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}

// User is whom a command runs as. The zero value is root.
type User struct {
	UID, GID int
	Name     string // login name, empty for root
	Home     string // home directory, empty for root's
}

// Exec replaces the calling process by argv inside the namespaces of pid, as
// user and in the same working directory where it exists there. Being the same
// process, it keeps standard streams, terminal, signals and exit code. It
// returns only on error; one matching [exec.ErrNotFound] names a missing
// program.
func Exec(pid int, kind Kind, user User, argv, env []string) error {
	cwd, _ := os.Getwd()
	runtime.LockOSThread()
	if err := enterThread(pid, kind); err != nil {
		return err
	}
	if cwd == "" || unix.Chdir(cwd) != nil {
		if err := unix.Chdir("/"); err != nil {
			return fmt.Errorf("chdir /: %w", err)
		}
	}
	path, err := exec.LookPath(argv[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return err
	}
	if user.UID != 0 {
		if env, err = become(user, env); err != nil {
			return err
		}
	}
	return fmt.Errorf("exec %s: %w", path, unix.Exec(path, argv, env))
}

// become drops the calling thread to user; the exec that follows leaves no
// other thread behind.
func become(user User, env []string) ([]string, error) {
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return nil, fmt.Errorf("setgroups: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGID, uintptr(user.GID), 0, 0); e != 0 {
		return nil, fmt.Errorf("setgid %d: %w", user.GID, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETUID, uintptr(user.UID), 0, 0); e != 0 {
		return nil, fmt.Errorf("setuid %d: %w", user.UID, e)
	}
	return append(env[:len(env):len(env)], "USER="+user.Name, "LOGNAME="+user.Name, "HOME="+user.Home), nil
}
