package helper

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/journal"
)

// Repair undoes what the journal of connection name says and removes the journal. A connection
// without one needs nothing. The caller holds the connection's lock.
func Repair(paths Paths, name string, h hostnet.Host, log *slog.Logger) error {
	paths = paths.withDefaults()
	j, err := paths.journals().Load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	log.Info("repairing what a crash left", "connection", name)
	return undo(j, h, paths, log)
}

// undo restores by marker what j names, names first, and removes the journal if all of it went well.
// Doing it twice, or after a part was undone, is harmless.
func undo(j *journal.Journal, h hostnet.Host, paths Paths, log *slog.Logger) error {
	bootID, err := journal.BootID()
	if err != nil {
		return err
	}
	err = undoResolver(j.Resolver, paths, log)
	if j.BootID == bootID && j.Network != nil {
		n := j.Network
		changes, e := hostnet.Remove(h, hostnet.Scope{Name: j.Name, Interface: n.Interface, Index: n.Index})
		for _, c := range changes {
			log.Debug("removed", "command", c.String())
		}
		err = errors.Join(err, e)
	}
	for _, path := range j.Sockets {
		err = errors.Join(err, removeSocket(path))
	}
	if err != nil {
		return fmt.Errorf("restore the host: %w", err)
	}
	return paths.journals().Remove(j.Name)
}

// undoResolver restores the resolver file.
func undoResolver(r *hostdns.Record, paths Paths, log *slog.Logger) error {
	if r == nil {
		return nil
	}
	restored, err := r.Restore(paths.hooked)
	if err == nil && !restored {
		log.Info("the resolver file is another program's by now and stays as it is", "file", r.Path)
	}
	return errors.Join(err, r.RemoveScratch())
}

// hooked returns the resolver record of a connection, nil if there is none, and whether the connection is
// running. It is a [hostdns.Lookup].
func (p Paths) hooked(name string) (*hostdns.Record, bool) {
	if CheckName(name) != nil {
		return nil, false
	}
	j, err := p.journals().Load(name)
	if err != nil {
		return nil, false
	}
	return j.Resolver, p.Running(name)
}

// removeSocket removes a Unix socket; anything else of that name stays.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
