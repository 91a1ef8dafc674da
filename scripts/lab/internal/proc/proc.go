// Package proc starts, records and ends the lab's processes. A process is
// known by its pid together with its start time, so that a recycled pid is
// never taken for one of ours; records live in the lab's directory, so that any
// later command can end what an earlier one started.
package proc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one recorded process.
type Process struct {
	Name  string   `json:"name"`
	Host  string   `json:"host"`
	PID   int      `json:"pid"`
	Start uint64   `json:"start"` // clock ticks since boot, proc_pid_stat(5) field 22
	Args  []string `json:"args,omitempty"`
	Log   string   `json:"log,omitempty"`
}

// Alive reports whether the very process recorded still runs. A zombie does not.
func (p Process) Alive() bool {
	state, start, err := stat(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// Signal sends sig to the process if it is still the recorded one.
func (p Process) Signal(sig unix.Signal) error {
	if !p.Alive() {
		return nil
	}
	if err := unix.Kill(p.PID, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s (pid %d): %w", p.Name, p.PID, err)
	}
	return nil
}

// Stop ends the process: a polite signal, then after grace a hard one.
func (p Process) Stop(grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	if p.waitGone(grace) {
		return nil
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	if !p.waitGone(5 * time.Second) {
		return fmt.Errorf("%s (pid %d) does not end", p.Name, p.PID)
	}
	return nil
}

func (p Process) waitGone(limit time.Duration) bool {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if !p.Alive() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// StartTime returns the start time of pid in clock ticks since boot.
func StartTime(pid int) (uint64, error) {
	_, start, err := stat(pid)
	return start, err
}

// stat reads state and start time of pid. The command name, field 2, may hold
// blanks and brackets: fields are counted from its last closing bracket.
func stat(pid int) (state byte, start uint64, err error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("pid %d: short stat line", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err
}

// Book is the directory of process records of one lab.
type Book struct{ Dir string }

func (b Book) path(name string) string { return filepath.Join(b.Dir, name+".json") }

// Add records a running process.
func (b Book) Add(p Process) error {
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.path(p.Name), raw, 0o644)
}

// Get returns the record called name; the error matches [os.ErrNotExist] when
// there is none.
func (b Book) Get(name string) (Process, error) {
	var p Process
	raw, err := os.ReadFile(b.path(name))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(raw, &p)
}

// Remove forgets the record called name; a missing one is no error.
func (b Book) Remove(name string) error {
	if err := os.Remove(b.path(name)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// All returns every readable record, sorted by name.
func (b Book) All() []Process {
	paths, _ := filepath.Glob(filepath.Join(b.Dir, "*.json"))
	sort.Strings(paths)
	var all []Process
	for _, path := range paths {
		if p, err := b.Get(strings.TrimSuffix(filepath.Base(path), ".json")); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// StopByName ends and forgets the process called name, if there is one.
func (b Book) StopByName(name string, grace time.Duration) error {
	p, err := b.Get(name)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.Stop(grace); err != nil {
		return err
	}
	return b.Remove(name)
}
