package vip

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

const (
	retryAfter = 30 // seconds until a file that could not be written is tried again
	slackLines = 4096
)

// store is the file of a pool. It only appends, and is replaced as a whole when it has grown.
type store struct {
	path  string
	lock  *os.File
	file  *os.File // for appending; nil while the file must be written anew first
	lines int
	retry int32 // second of the pool's clock before which the file is not written anew
	err   error // of the last attempt to write
	log   *slog.Logger
}

// openStore takes the lock of the file at path. Only that another process has it is an error; if there can be no
// lock, nothing is ever written.
func openStore(path string, log *slog.Logger) (*store, error) {
	s := &store{path: path, log: log}
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		s.lock, err = lockFile(path + ".lock")
	}
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("virtual addresses in %s: %w", path, err)
	}
	s.report(err)
	return s, nil
}

// report remembers whether the file is written, and tells once when that changes.
func (s *store) report(err error) {
	switch {
	case err != nil && s.err == nil:
		s.log.Warn("virtual addresses are not kept: they may change with the next connection", "file", s.path, "error", err)
	case err == nil && s.err != nil:
		s.log.Info("virtual addresses are kept again", "file", s.path)
	}
	s.err = err
}

// read returns what the file holds. A file that is damaged or not ours is put aside as path.bad.
func (s *store) read() contents {
	f, err := os.Open(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return contents{}
	}
	if err != nil {
		s.aside(err)
		return contents{}
	}
	defer f.Close()
	c := readContents(f)
	switch {
	case c.foreign:
		s.aside(errors.New("not a file of virtual addresses, or of another version"))
	case c.damage != nil:
		s.aside(c.damage)
	}
	return c
}

func (s *store) aside(why error) {
	bad := s.path + ".bad"
	err := os.Rename(s.path, bad)
	s.log.Warn("file of virtual addresses put aside; what was readable is kept", "file", s.path, "aside", bad, "reason", why, "renamed", err == nil)
}

// appendLine adds to the file.
func (s *store) appendLine(line []byte) error {
	_, err := s.file.Write(line)
	s.lines++
	return err
}

// give lets go of the file for writing: after a failed write it may end within a line.
func (s *store) give() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// rewrite replaces the file by what write writes, which returns its number of lines. An error leaves the file as it was.
func (s *store) rewrite(write func(io.Writer) (int, error)) error {
	if s.lock == nil {
		return s.err
	}
	fresh := s.path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(f, 64<<10)
	lines, err := write(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = os.Rename(fresh, s.path)
	}
	if err != nil {
		f.Close()
		os.Remove(fresh)
		return err
	}
	s.give()
	s.file, s.lines = f, lines
	return nil
}

// restore reads the leases of the file as retired ones, and reports whether the file was closed.
func (p *Pool) restore() (clean bool) {
	c := p.store.read()
	wall := p.cfg.Now().Unix()
	for _, r := range c.records {
		l := &lease{vip: r.vip, real: r.real, since: r.since, names: r.names}
		if c.clean {
			l.used.Store(int32(max(min(r.used-wall, 0), -maxAge)))
		}
		l.noted = l.used.Load()
		i := familyOf(r.vip)
		p.retired[i] = append(p.retired[i], l)
	}
	p.store.lines = c.lines
	return c.clean || c.lines == 0
}

const maxAge = int64(20 * 365 * 24 * time.Hour / time.Second)

// startFileLocked makes the file ready: written anew if anything in it is not as it should be, else opened for more.
func (p *Pool) startFileLocked(clean bool) {
	s := p.store
	if s == nil || s.lock == nil {
		return
	}
	if clean && s.lines > 0 {
		f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			s.file = f
			err = s.appendLine([]byte(lineOpen + "\n"))
		}
		if err == nil {
			return
		}
		s.give()
	}
	s.report(p.rewriteLocked(p.now(), lineOpen))
}

// noteLocked writes the lease, which is among those of its family, to the file.
func (p *Pool) noteLocked(l *lease, now int32) {
	l.noted = now
	s := p.store
	if s == nil {
		return
	}
	if grown := s.lines > 2*p.keptLocked()+slackLines; (s.file == nil || grown) && now >= s.retry {
		err := p.rewriteLocked(now, lineOpen)
		if err == nil || s.file == nil {
			s.report(err)
		}
		if err == nil {
			return
		}
		s.retry = now + retryAfter
	}
	if s.file == nil {
		return
	}
	if err := s.appendLine(p.recordLocked(l, now).append(nil)); err != nil {
		s.give()
		s.report(err)
		s.retry = now + retryAfter
	}
}

// keptLocked returns the number of leases that a file written anew has.
func (p *Pool) keptLocked() (n int) {
	for i := range p.families {
		n += len(p.retired[i])
		if f := p.families[i].Load(); f != nil {
			n += f.idle.len()
		}
	}
	return n
}

func (p *Pool) recordLocked(l *lease, now int32) record {
	return record{vip: l.vip, real: l.real, since: l.since, used: p.unixLocked(l.used.Load(), now), names: l.names}
}

// rewriteLocked replaces the file by the present leases, the retired ones in front, and the line last.
func (p *Pool) rewriteLocked(now int32, last string) error {
	return p.store.rewrite(func(w io.Writer) (lines int, err error) {
		_, err = io.WriteString(w, fileHeader+"\n")
		var line []byte
		put := func(l *lease) {
			if err == nil {
				line = p.recordLocked(l, now).append(line[:0])
				_, err = w.Write(line)
				lines++
			}
		}
		for i := range p.families {
			for _, l := range p.retired[i] {
				put(l)
			}
			if f := p.families[i].Load(); f != nil {
				for _, it := range f.idle.items {
					put(it.lease)
				}
			}
		}
		if err == nil {
			_, err = io.WriteString(w, last+"\n")
		}
		return lines + 2, err
	})
}

// closeFileLocked writes the last uses and gives the file to others.
func (p *Pool) closeFileLocked() error {
	s := p.store
	if s == nil || s.lock == nil {
		return nil
	}
	err := p.rewriteLocked(p.now(), lineClosed)
	s.give()
	s.lock.Close()
	if err != nil {
		return fmt.Errorf("virtual addresses in %s: %w", s.path, err)
	}
	return nil
}
