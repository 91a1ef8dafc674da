package helper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrRunning is matched by the error of [Launch] for a connection that is running.
var ErrRunning = errors.New("the connection is running")

// lockWait is how long a starting connection waits for one of its name that is just ending.
const lockWait = 2 * time.Second

// lock takes the lock of connection name, which lasts as long as any process has a copy of the
// returned file open. It is an open file description lock (fcntl(2)): unlike others, it goes over to
// children with the descriptor and can be looked at without taking it.
func (p Paths) lock(name string) (*os.File, error) {
	path := p.lockFile(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create the run directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			break
		}
		if pid := p.helperPID(name); alive(pid) {
			err = fmt.Errorf("%w: %q, helper process %d", ErrRunning, name, pid)
			break
		}
		if time.Now().After(end) {
			err = fmt.Errorf("%w: %q is starting or being restored", ErrRunning, name)
			break
		}
	}
	return nil, errors.Join(err, f.Close())
}

// Running reports whether connection name is running, or being restored by its guard. Only root can
// tell; for others it is false.
func (p Paths) Running(name string) bool {
	f, err := os.Open(p.lockFile(name))
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l)
	return err == nil && l.Type != unix.F_UNLCK
}

// helperPID returns the process id in the pid file, 0 when there is none.
func (p Paths) helperPID(name string) int {
	data, err := os.ReadFile(p.pidFile(name))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}

// alive reports whether there is a process with this id.
func alive(pid int) bool { return pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }
