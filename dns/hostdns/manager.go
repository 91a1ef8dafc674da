package hostdns

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/time/rate"
)

// Another program that rewrites the file again and again is met this often at most; in between its
// file stands, and names of the cluster do not resolve.
const (
	rehookEvery = 20 * time.Second
	rehookBurst = 4
)

// Manager keeps the resolver file of the host as one connection wants it. Its methods are for one
// goroutine. Fields are required unless said otherwise and must not change after the first call.
type Manager struct {
	// Name is the connection.
	Name string
	// Path is the resolver file, /etc/resolv.conf.
	Path string
	// Journal is called before every change with the record that undoes it, and with nil once
	// nothing is left to undo. The change is not made if it fails.
	Journal func(*Record) error
	// Lookup returns the journaled record of another connection, nil if that one is not hooked.
	// Optional: nil means there are no others.
	Lookup func(name string) *Record
	Log    *slog.Logger

	want    Config
	record  *Record // nil while not hooked
	seen    state   // of the file at the last Check
	good    state   // of the file when it was last read and found as it should be
	told    Config  // upstreams last returned
	limiter *rate.Limiter
	refused bool // the limiter held a repair back; logged once
}

// state is what a cheap look at the file shows; a write changes it.
type state struct {
	link    string
	size    int64
	modTime time.Time
	id      fileID
}

// Set makes the file say what want says, or restores the original for the zero Config. Setting the
// same again changes nothing.
func (m *Manager) Set(want Config) error {
	m.want = want
	switch {
	case want.IsZero():
		return m.restore()
	case m.record == nil:
		return m.takeAndHook()
	}
	next := *m.record
	next.Ours = render(m.Name, want, next.Content)
	if bytes.Equal(next.Ours, m.record.Ours) {
		return nil
	}
	return m.advance(&next)
}

// Upstreams returns the host's own configuration, whether hooked or not.
func (m *Manager) Upstreams() (Config, error) {
	record := m.record
	if record == nil {
		var err error
		if record, err = Take(m.Path, m.Name, m.Lookup); err != nil {
			return Config{}, err
		}
	}
	m.told = record.Upstreams(m.Lookup)
	return m.told, nil
}

// Check looks whether another program changed the file, hooks it again if so, and reports the
// host's configuration when that has changed. It is meant to be called about twice a second: a
// change is acted on when two looks in a row show the same, so that a file being written is not
// adopted half.
func (m *Manager) Check(now time.Time) (upstreams Config, changed bool, err error) {
	if m.record == nil {
		return Config{}, false, nil
	}
	last := m.seen
	m.seen = m.look()
	switch {
	case m.seen != last || m.seen == m.good:
	case m.intact():
		m.good = m.seen
	default:
		err = m.repair(now)
	}
	err = errors.Join(err, m.follow())
	upstreams = m.record.Upstreams(m.Lookup)
	changed = !upstreams.Equal(m.told)
	m.told = upstreams
	return upstreams, changed, err
}

// follow keeps up with the file behind a link that was replaced: its owner goes on writing it, for
// example when the host moves to another network.
func (m *Manager) follow() error {
	if m.record.Link == "" {
		return nil
	}
	content, err := m.record.behindLink()
	if err != nil || bytes.Equal(content, m.record.Content) {
		return nil // a file that is missing for now says nothing new
	}
	next := *m.record
	next.Content = content
	next.Ours = render(m.Name, m.want, content)
	return m.advance(&next)
}

// advance makes next the record and, if ours is the file that programs read and it differs, writes it.
func (m *Manager) advance(next *Record) error {
	same := bytes.Equal(next.Ours, m.record.Ours)
	if err := m.Journal(next); err != nil {
		return err
	}
	m.record = next
	if same || !m.onTop() {
		return nil // another connection's file stands above ours; ours is in its record's chain
	}
	return m.write()
}

// intact reports whether the file is as it should be: ours, or that of a connection above us.
func (m *Manager) intact() bool {
	content, err := os.ReadFile(m.Path)
	if err != nil {
		return false
	}
	names := Connections(content)
	if len(names) > 0 && names[0] == m.Name {
		return bytes.Equal(content, m.record.Ours)
	}
	for _, n := range names {
		if n == m.Name && m.Lookup != nil && m.Lookup(names[0]) != nil {
			return true
		}
	}
	return false
}

// repair hooks the file again, keeping to the limit.
func (m *Manager) repair(now time.Time) error {
	if m.limiter == nil {
		m.limiter = rate.NewLimiter(rate.Every(rehookEvery), rehookBurst)
	}
	if !m.limiter.AllowN(now, 1) {
		if !m.refused {
			m.Log.Warn("another program keeps rewriting the resolver file; giving way for a while", "file", m.Path)
		}
		m.refused = true
		return nil
	}
	m.refused = false
	m.Log.Info("the resolver file was rewritten by another program; its servers are adopted", "file", m.Path)
	if m.onTop() {
		return m.write() // our own file, changed by hand or outdated
	}
	return m.takeAndHook()
}

// takeAndHook journals what is there and writes ours.
func (m *Manager) takeAndHook() error {
	record, err := Take(m.Path, m.Name, m.Lookup)
	if err != nil {
		return err
	}
	record.Ours = render(m.Name, m.want, record.Content)
	if err := m.Journal(record); err != nil {
		return err
	}
	m.record = record
	return m.write()
}

// write hooks the file by the current record.
func (m *Manager) write() error {
	if err := m.record.hook(); err != nil {
		return fmt.Errorf("hook up the resolver in %s: %w", m.record.Target, err)
	}
	m.seen = m.look()
	return nil
}

// restore puts the original back and forgets the record.
func (m *Manager) restore() error {
	if m.record == nil {
		return nil
	}
	restored, err := m.record.Restore(m.Lookup)
	if err != nil {
		return err
	}
	if !restored {
		m.Log.Info("the resolver file is another program's by now and stays as it is", "file", m.Path)
	}
	m.record = nil
	return m.Journal(nil)
}

// onTop reports whether the file is the one this connection wrote.
func (m *Manager) onTop() bool {
	content, err := os.ReadFile(m.Path)
	if err != nil {
		return false
	}
	names := Connections(content)
	return len(names) > 0 && names[0] == m.Name
}

// look takes the state of the file.
func (m *Manager) look() state {
	var s state
	s.link, _ = os.Readlink(m.Path)
	info, err := os.Stat(m.Path)
	if err != nil {
		return s
	}
	s.size, s.modTime, s.id = info.Size(), info.ModTime(), identify(info)
	return s
}

// fileID tells a file from the one that replaced it.
type fileID struct{ device, inode uint64 }
