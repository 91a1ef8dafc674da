package helper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/culvert-dev/culvert/dns/hostdns"
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

// repairLocked repairs a connection under its lock, and reports whether there was something to do. What says
// that the connection runs goes in any case.
func repairLocked(paths Paths, name string, host hostnet.Host, log *slog.Logger) (bool, error) {
	lock, err := paths.lock(name)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	defer removeRunFiles(paths, name)
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
	return append(done, swept...), errors.Join(err, e, orphan(paths), removeStale(paths, host, log))
}

// removeStale removes the control sockets of connections that run no more.
func removeStale(paths Paths, host hostnet.Host, log *slog.Logger) (err error) {
	sockets, _ := filepath.Glob(paths.APISocket("*"))
	for _, socket := range sockets {
		if name := filepath.Base(filepath.Dir(socket)); CheckName(name) == nil && !paths.Running(name) {
			_, e := repairLocked(paths, name, host, log)
			err = errors.Join(err, e)
		}
	}
	return err
}

// orphan returns an error if the resolver file is one of ours that nothing can put back: its journal
// is gone.
func orphan(paths Paths) error {
	paths = paths.withDefaults()
	content, err := os.ReadFile(paths.ResolvConf)
	if err != nil {
		return nil
	}
	names := hostdns.Connections(content)
	if len(names) == 0 || CheckName(names[0]) != nil || paths.Running(names[0]) {
		return nil
	}
	return fmt.Errorf("%s was written by connection %q, whose journal is gone: what it said before is not known; "+
		"have your network manager write it again, or write nameserver lines yourself", paths.ResolvConf, names[0])
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
	sockets, _ := filepath.Glob(paths.uapiSocket("culvert*"))
	for _, path := range sockets {
		iface := strings.TrimSuffix(filepath.Base(path), ".sock")
		if _, ours := hostnet.Number(iface); ours && !inUse[iface] {
			err = errors.Join(err, removeSocket(path))
			done = append(done, "rm "+path)
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
