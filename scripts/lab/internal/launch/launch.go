// Package launch runs programs inside a lab's hosts: background ones, recorded
// and logged, and short commands.
package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
)

// Spec is one background process.
type Spec struct {
	Name string // of its record and log
	Host string
	Args []string
	Env  []string // added to a small fixed environment
}

// Start starts a background process that outlives the caller.
func Start(l *state.Lab, s Spec) (proc.Process, error) {
	h, err := l.Host(s.Host)
	if err != nil {
		return proc.Process{}, err
	}
	log, err := openLog(l.Log(s.Name))
	if err != nil {
		return proc.Process{}, err
	}
	defer log.Close()
	var cmd *exec.Cmd
	err = host.Do(h.Holder.PID, host.All, func() error {
		cmd = exec.Command(s.Args[0], s.Args[1:]...)
		cmd.Dir = "/"
		cmd.Env = append(environment(), s.Env...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	})
	if err != nil {
		return proc.Process{}, fmt.Errorf("start %s on %s: %w", s.Name, s.Host, err)
	}
	go func() { _ = cmd.Wait() }() // ends with the process or with ours; leaves no zombie
	return Record(l, proc.Process{Name: s.Name, Host: s.Host, PID: cmd.Process.Pid, Args: s.Args, Log: l.Log(s.Name)})
}

// Record puts a process just started into the lab's group and book.
func Record(l *state.Lab, p proc.Process) (proc.Process, error) {
	var err error
	if p.Start, err = proc.StartTime(p.PID); err != nil {
		return p, fmt.Errorf("%s ended at once, see %s", p.Name, p.Log)
	}
	group, err := proc.OpenCgroup(l.Name)
	if err != nil {
		return p, err
	}
	if err := group.Add(p.PID); err != nil {
		return p, err
	}
	return p, l.Book().Add(p)
}

// openLog starts a new log; that of a process of the same name before it is
// kept as NAME.log.1.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return os.Create(path)
}

func environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8",
	}
}

// Output runs a short command inside a host, with stdin if it is not nil, and
// returns what it prints. Its error carries the command's own words.
func Output(ctx context.Context, l *state.Lab, hostName string, stdin io.Reader, args ...string) (string, error) {
	h, err := l.Host(hostName)
	if err != nil {
		return "", err
	}
	var out, errs bytes.Buffer
	err = host.Do(h.Holder.PID, host.All, func() error {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = "/"
		cmd.Env = environment()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
		return cmd.Run()
	})
	if err != nil {
		return out.String(), fmt.Errorf("%s: %s: %w\n%s", hostName, strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// Tail returns the last lines of a log, for the error about its process.
func Tail(path string, lines int) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
