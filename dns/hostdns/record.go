package hostdns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Record is one file as it was before Culvert wrote it, and what Culvert writes. It is plain data to
// be journaled: [Record.Restore] needs nothing else.
type Record struct {
	// Name is the connection that hooks the file, and Began when it did first: together they tell it from
	// another one that had the name before.
	Name  string    `json:"name"`
	Began time.Time `json:"began"`
	// Domains are those of the connection's wish: its resolver has names of the cluster under them.
	Domains []string `json:"domains,omitempty"`
	// Path is the resolver file that programs open, /etc/resolv.conf.
	Path string `json:"path"`
	// Target is the file written: Path, or the file Path links to when that is ours to edit.
	Target string `json:"target"`
	// Link is what Path linked to when the link itself is replaced by a file; else "".
	Link string `json:"link,omitempty"`
	// Missing says that there was no file to read, so that restoring removes ours (or, with Link,
	// puts the dangling link back).
	Missing bool `json:"missing,omitempty"`
	// LinkTime is when the link was made.
	LinkTime time.Time `json:"linkTime"`
	// Content, Mode, UID, GID and ModTime are those of the file replaced, or behind the link.
	Content []byte      `json:"content,omitempty"`
	Mode    fs.FileMode `json:"mode,omitempty"`
	UID     int         `json:"uid,omitempty"`
	GID     int         `json:"gid,omitempty"`
	ModTime time.Time   `json:"modTime"`
	// Ours is the content Culvert writes.
	Ours []byte `json:"ours"`
	// Below is the record of the connection whose file was replaced, or nil.
	Below *Record `json:"below,omitempty"`
}

// managed are directories whose files belong to another program or to the system: a link into them
// is replaced, the file there is left alone.
var managed = []string{"/run", "/usr", "/proc", "/nix", "/gnu"}

// Take records the resolver file at path for connection name. It changes nothing. When the file is
// the work of another connection, running or not, that one's record is below.
func Take(path, name string, lookup Lookup) (*Record, error) {
	r := &Record{Name: name, Path: path, Target: path}
	if err := r.resolveLink(); err != nil {
		return nil, err
	}
	err := r.readOriginal()
	if err != nil {
		return nil, fmt.Errorf("read the host's resolver configuration: %w", err)
	}
	if below := Connections(r.Content); len(below) > 0 && below[0] != name {
		r.Below, _ = lookup.find(below[0])
	}
	return r, nil
}

// resolveLink decides between writing through a link and replacing it.
func (r *Record) resolveLink() error {
	link, err := os.Readlink(r.Path)
	if err != nil {
		return nil //nolint:nilerr // no link, or no file: both mean "write Path itself"
	}
	target, err := filepath.EvalSymlinks(r.Path)
	if err == nil && editable(target) {
		r.Target = target
		return nil
	}
	r.Link = link
	if info, err := os.Lstat(r.Path); err == nil {
		r.LinkTime = info.ModTime()
	}
	return nil
}

// editable reports whether target, a path without links, is a plain file that nobody else manages.
func editable(target string) bool {
	for _, dir := range managed {
		if strings.HasPrefix(target, dir+"/") {
			return false
		}
	}
	info, err := os.Lstat(target)
	return err == nil && info.Mode().IsRegular()
}

// readOriginal fills in content and attributes of what programs read at Path now.
func (r *Record) readOriginal() error {
	info, err := os.Stat(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		r.Missing, r.Mode = true, 0o644
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no plain file (%s)", r.Path, info.Mode().Type())
	}
	r.Mode, r.ModTime = info.Mode().Perm(), info.ModTime()
	r.UID, r.GID = owner(info)
	r.Content, err = os.ReadFile(r.Path)
	return err
}

// behindLink returns what the file behind a replaced link says now.
func (r *Record) behindLink() ([]byte, error) {
	target := r.Link
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(r.Path), target)
	}
	return os.ReadFile(target)
}

// hook writes our file.
func (r *Record) hook() error {
	mode, uid, gid := r.Mode, r.UID, r.GID
	if r.Link != "" {
		mode, uid, gid = 0o644, 0, 0 // the file behind the link keeps its own
		if os.Geteuid() != 0 {
			uid, gid = os.Geteuid(), os.Getegid()
		}
	}
	return replace(r.Target, r.Name, r.Ours, attributes{mode: mode | 0o444, uid: uid, gid: gid})
}

// Restore puts the original back, exactly, when the file still is what connection r.Name wrote, and
// reports whether it did. What another program wrote in the meantime stays. lookup tells which other
// connections still are hooked; nil means none. Restoring twice is harmless.
func (r *Record) Restore(lookup Lookup) (bool, error) {
	content, err := os.ReadFile(r.Target)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("restore %s: %w", r.Path, err)
	}
	if names := Connections(content); !(len(names) > 0 && names[0] == r.Name) && !r.torn(content) {
		return false, nil
	}
	if err := r.standing(lookup).putBack(); err != nil {
		return false, fmt.Errorf("restore %s: %w", r.Path, err)
	}
	return true, nil
}

// torn reports whether content is what a crash leaves between the write and the truncation of a
// restore in place: the original, followed by the tail of our longer file.
func (r *Record) torn(content []byte) bool {
	return len(r.Content) < len(r.Ours) && len(content) == len(r.Ours) &&
		bytes.HasPrefix(content, r.Content) && bytes.Equal(content[len(r.Content):], r.Ours[len(r.Content):])
}

// putBack writes the original over whatever is there.
func (r *Record) putBack() error {
	switch {
	case r.Link != "":
		return replaceByLink(r.Path, r.Name, r.Link, r.LinkTime)
	case r.Missing:
		return remove(r.Target)
	}
	return replace(r.Target, r.Name, r.Content,
		attributes{mode: r.Mode, uid: r.UID, gid: r.GID, modTime: r.ModTime})
}

// Upstreams returns what the host had without this connection: its own configuration or, where another
// connection runs below, that one's.
func (r *Record) Upstreams(lookup Lookup) Config {
	c := throughStub(Parse(r.standing(lookup).Content), uplinks)
	ours := Parse(r.Ours).Servers
	c.Servers = without(c.Servers, ours)
	return c
}
