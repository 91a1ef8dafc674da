package helper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// Cleanup repairs what a crash of connection name left, by its journal. One that is running is left
// alone; the error matches [ErrRunning] then. Nothing to do is fine. It needs root.
func Cleanup(paths Paths, name string, log *slog.Logger) error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	if err := CheckName(name); err != nil {
		return err
	}
	host, closeHost, err := hostnet.New()
	if err != nil {
		return err
	}
	defer closeHost()
	_, err = repairLocked(paths, name, host, log)
	return err
}

// repairLocked repairs a connection under its lock, and reports whether there was something to do.
func repairLocked(paths Paths, name string, host hostnet.Host, log *slog.Logger) (bool, error) {
	lock, err := paths.lock(name)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if _, err := paths.journals().Load(name); err != nil && errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return true, Repair(paths, name, host, log)
}

// CleanupAll repairs every connection that is not running, by journal, and then removes whatever
// carries our marks on the host's network and belongs to no running connection. It returns, in words,
// what it repaired. It needs root.
func CleanupAll(ctx context.Context, paths Paths, log *slog.Logger) ([]string, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	host, closeHost, err := hostnet.New()
	if err != nil {
		return nil, err
	}
	defer closeHost()
	done, err := cleanupJournals(ctx, paths, host, log)
	swept, e := sweep(paths, host)
	return append(done, swept...), errors.Join(err, e)
}

// cleanupJournals repairs by journal.
func cleanupJournals(ctx context.Context, paths Paths, host hostnet.Host, log *slog.Logger) (done []string, err error) {
	names, err := paths.journals().Names()
	for _, name := range names {
		if e := ctx.Err(); e != nil {
			return done, errors.Join(err, e)
		}
		if paths.Running(name) {
			continue
		}
		repaired, e := repairLocked(paths, name, host, log)
		switch {
		case e != nil:
			err = errors.Join(err, fmt.Errorf("connection %q: %w", name, e))
		case repaired:
			done = append(done, fmt.Sprintf("repaired connection %q by its journal", name))
		}
	}
	return done, err
}

// sweep removes by marker.
func sweep(paths Paths, host hostnet.Host) (done []string, err error) {
	marked, err := host.Marked()
	if err != nil {
		return nil, err
	}
	inUse, err := interfacesInUse(paths)
	if err != nil {
		return nil, err
	}
	for _, scope := range marked {
		if inUse[scope.Interface] {
			continue
		}
		changes, e := hostnet.Remove(host, scope)
		err = errors.Join(err, e)
		for _, c := range changes {
			done = append(done, c.String())
		}
	}
	return done, err
}

// interfacesInUse returns the interfaces of running connections; they are journaled before they are made.
func interfacesInUse(paths Paths) (map[string]bool, error) {
	names, err := paths.journals().Names()
	if err != nil {
		return nil, err
	}
	inUse := make(map[string]bool)
	for _, name := range names {
		if j, err := paths.journals().Load(name); err == nil && j.Network != nil && paths.Running(name) {
			inUse[j.Network.Interface] = true
		}
	}
	return inUse, nil
}
