package hostdns

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
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
// goroutine. Fields are required and must not change after the first call, unless said otherwise.
type Manager struct {
	// Name is the connection.
	Name string
	// Path is the resolver file, /etc/resolv.conf.
	Path string
	// Journal is called before every change with the record that undoes it, and with nil once
	// nothing is left to undo. The change is not made if it fails.
	Journal func(*Record) error
	// Lookup finds other connections. Optional: nil means there are none.
	Lookup Lookup
	// Began is when the connection hooked up its resolver; see [Record.Began]. It is set before the first
	// wish and not changed after.
	Began time.Time
	Log   *slog.Logger

	want    Config
	record  *Record // nil while not hooked
	seen    state   // of the file at the last Check
	good    state   // of the file when it was last read and found as it should be
	above   string  // the connection whose file that was, "" for this one
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
	return m.renew()
}

// Upstreams returns what the host has without this connection, whether hooked or not.
func (m *Manager) Upstreams() (Config, error) {
	record := m.record
	if record == nil {
		var err error
		if record, err = m.take(); err != nil {
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
	err = m.renew()
	switch {
	case m.seen != last || m.seen == m.good && (m.above == "" || m.Lookup.alive(m.above)):
	case m.intact():
		m.good = m.seen
	default:
		err = errors.Join(err, m.repair(now))
	}
	upstreams = m.record.Upstreams(m.Lookup)
	changed = !upstreams.Equal(m.told)
	m.told = upstreams
	return upstreams, changed, err
}

// renew keeps up with what is below: a connection there that has another file now, or has left, and
// the file behind a link that was replaced, whose owner goes on writing it, for example when the host
// moves to another network.
func (m *Manager) renew() error {
	next := m.record.renewed(m.want, m.Lookup)
	if next.Link != "" {
		if content, err := next.behindLink(); err == nil { // a file that is missing for now says nothing new
			next.Content = content
			next.wish(m.want)
		}
	}
	if next.equal(m.record) {
		return nil
	}
	return m.advance(next)
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
		m.above = ""
		return bytes.Equal(content, m.record.Ours)
	}
	if !slices.Contains(names, m.Name) || !m.Lookup.alive(names[0]) {
		return false
	}
	m.above = names[0]
	return true
}

// repair hooks the file again, keeping to the limit where another program has written it.
func (m *Manager) repair(now time.Time) error {
	names := m.connections()
	if slices.Contains(names, m.Name) && names[0] != m.Name && !m.Lookup.alive(names[0]) {
		m.Log.Info("the connection above has ended without leaving the resolver file", "file", m.Path, "above", names[0])
		return m.write()
	}
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

// take records what is there for this connection.
func (m *Manager) take() (*Record, error) {
	record, err := Take(m.Path, m.Name, m.Lookup)
	if err != nil {
		return nil, err
	}
	record.Began = m.Began
	return record, nil
}

// takeAndHook journals what is there and writes ours.
func (m *Manager) takeAndHook() error {
	taken, err := m.take()
	if err != nil {
		return err
	}
	record := taken.renewed(m.want, m.Lookup) // what is there may be of a connection that is gone
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
	names := m.connections()
	return len(names) > 0 && names[0] == m.Name
}

// connections returns those that the file names, the top one first.
func (m *Manager) connections() []string {
	content, err := os.ReadFile(m.Path)
	if err != nil {
		return nil
	}
	return Connections(content)
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
