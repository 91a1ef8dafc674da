package vip

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestUnreadableFiles(t *testing.T) {
	const (
		lease7 = "lease 211.55.48.7 10.0.0.7 1764000000 1764000000 \"a.\"\n"
		lease8 = "lease 211.55.48.8 10.0.0.8 1764000000 1764000000\n"
		head   = fileHeader + "\n"
	)
	for _, row := range []struct {
		name, text string
		want       string // the real addresses of .7 and .8
		aside      bool
	}{
		{"whole", head + lease7 + lease8 + "closed\n", "10.0.0.7 10.0.0.8", false},
		{"empty", "", "- -", false},
		{"somebody else's", "# my notes\n" + lease7, "- -", true},
		{"a later version", "culvert-vip 2\n" + lease7, "- -", true},
		{"no end of line", head + lease7 + lease8[:len(lease8)-1], "10.0.0.7 -", true},
		{"zeros after a power loss", head + lease7 + strings.Repeat("\x00", 5000), "10.0.0.7 -", true},
		{"a line without end", head + strings.Repeat("x", 3*maxLineBytes) + "\n" + lease8, "- 10.0.0.8", true},
		{"no address", head + "lease 211.55.48 10.0.0.7 1 1\n" + lease8, "- 10.0.0.8", true},
		{"two families", head + "lease 211.55.48.7 fd00::7 1 1\n" + lease8, "- 10.0.0.8", true},
		{"a zone", head + "lease fe80::1%eth0 fd00::7 1 1\n" + lease8, "- 10.0.0.8", true},
		{"names without quotes", head + "lease 211.55.48.7 10.0.0.7 1 1 a.\n" + lease8, "- 10.0.0.8", true},
		{"a time before time", head + "lease 211.55.48.7 10.0.0.7 1 -1\n" + lease8, "- 10.0.0.8", true},
		{"outside the prefix", head + strings.ReplaceAll(lease7, "211.55.48", "211.56.48") + lease8, "- 10.0.0.8", false},
		{"the first address", head + strings.ReplaceAll(lease7, "48.7", "48.0") + lease8, "- 10.0.0.8", false},
		{"one address twice", head + lease7 + strings.ReplaceAll(lease7, "10.0.0.7", "10.0.0.9"), "10.0.0.9 -", false},
		{"one host twice", head + lease7 + strings.ReplaceAll(lease7, "48.7", "48.8"), "- 10.0.0.7", false},
		{"used in the future", head + strings.ReplaceAll(lease7, "1764000000", "9764000000") + "closed\n", "10.0.0.7 -", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vips")
			if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			cfg := Config{Prefixes: prefixes("211.55.48.0/20"), Path: path, Now: newClock().now, Log: slog.New(slog.NewTextHandler(&log, nil))}
			p := open(t, cfg)
			if got := realsOf(p, "211.55.48.7", "211.55.48.8"); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
			bad, err := os.ReadFile(path + ".bad")
			if row.aside != (err == nil) || row.aside && string(bad) != row.text || row.aside != strings.Contains(log.String(), ".bad") {
				t.Errorf("put aside: %v; log %s", err, &log)
			}
			get(t, p, "10.0.0.77", "new.")
			kill(p)
			log.Reset()
			p = open(t, cfg)
			if got := realsOf(p, "211.55.48.77", "211.55.48.7", "211.55.48.8"); got != "10.0.0.77 "+row.want || log.Len() > 0 {
				t.Errorf("the next time: %s; log %s", got, &log)
			}
		})
	}
}

// realsOf returns what the addresses stand for, "-" for nothing.
func realsOf(p *Pool, vips ...string) string {
	var out []string
	for _, vip := range vips {
		if info, ok := p.Peek(addr(vip)); ok {
			out = append(out, info.Real.String())
		} else {
			out = append(out, "-")
		}
	}
	return strings.Join(out, " ")
}

// A directory in the file's place is put aside as well.
func TestDirectoryInTheWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vips")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/20"), Path: path})
	if s := p.Stats(); s.Error != "" {
		t.Error(s.Error)
	}
}

// Cut anywhere, the file gives the leases of its whole lines.
func TestTruncatedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vips")
	cfg := Config{Prefixes: prefixes("211.55.48.0/20"), Path: path, Now: newClock().now}
	p := open(t, cfg)
	for i := range 20 {
		get(t, p, fmt.Sprintf("10.0.0.%d", 1+i), fmt.Sprintf("\"%d\" \xff.", i))
	}
	kill(p)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		p := open(t, cfg)
		want := max(0, bytes.Count(whole[:n], []byte("\n"))-2) // header and "open"
		if got := p.Stats().Pools[0].Leased; got != want {
			t.Fatalf("%d of %d bytes: %d leases, want %d", n, len(whole), got, want)
		}
		for i := range want {
			if got := realsOf(p, fmt.Sprintf("211.55.48.%d", 1+i)); got != fmt.Sprintf("10.0.0.%d", 1+i) {
				t.Fatalf("%d bytes: lease %d stands for %s", n, i, got)
			}
		}
		get(t, p, "10.0.0.99", "new.")
		kill(p)
		if p = open(t, cfg); p.Stats().Pools[0].Leased != want+1 {
			t.Fatalf("%d bytes: a lease after it was lost", n)
		}
		kill(p)
	}
}

func TestFailedWrite(t *testing.T) {
	c, dir := newClock(), filepath.Join(t.TempDir(), "dir")
	var log bytes.Buffer
	cfg := Config{Prefixes: prefixes("211.55.48.0/20"), Path: filepath.Join(dir, "vips"), Now: c.now, Log: slog.New(slog.NewTextHandler(&log, nil))}
	p := open(t, cfg)
	get(t, p, "10.0.0.1", "a.")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("NOT RUN: A FULL DISK UNDER THE LEASES, FOR WANT OF /dev/full: ", err)
	}
	p.store.file.Close()
	p.store.file = full
	if err := os.RemoveAll(dir); err != nil { // nor can a new file be made
		t.Fatal(err)
	}
	for i := range 5 {
		get(t, p, fmt.Sprintf("10.0.1.%d", i), "b.")
		c.pass(time.Minute)
	}
	if s := p.Stats(); s.Error == "" || strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("error %q; log %s", s.Error, &log)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	get(t, p, "10.0.2.1", "c.")
	if s := p.Stats(); s.Error != "" || strings.Count(log.String(), "again") != 1 {
		t.Errorf("error %q; log %s", s.Error, &log)
	}
	kill(p)
	if got := open(t, cfg).Stats().Pools[0].Leased; got != 7 {
		t.Errorf("%d leases were kept, want all 7", got)
	}
}

func TestNoPlaceForTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/20"), Path: filepath.Join(file, "vips")})
	get(t, p, "10.0.0.1", "a.")
	if s := p.Stats(); s.Error == "" {
		t.Error("no error is told of")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// Renewals and reclaims for days leave a file of bounded size.
func TestFileStaysSmall(t *testing.T) {
	c := newClock()
	cfg := Config{Prefixes: prefixes("211.55.48.0/28"), Path: filepath.Join(t.TempDir(), "vips"), Now: c.now}
	p := open(t, cfg)
	longest := 0
	for i := range 3 * slackLines {
		get(t, p, fmt.Sprintf("10.0.0.%d", 1+i%3), "a.")
		get(t, p, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String(), fmt.Sprint(i))
		c.pass(3 * time.Minute)
		longest = max(longest, p.store.lines)
	}
	if text, err := os.ReadFile(cfg.Path); err != nil || bytes.Count(text, []byte("\n")) != p.store.lines {
		t.Errorf("%d lines, counted %d: %v", bytes.Count(text, []byte("\n")), p.store.lines, err)
	}
	if limit := slackLines + 2*14 + 1; longest > limit || longest < slackLines {
		t.Errorf("%d lines, want up to %d", longest, limit)
	}
	c.pass(-time.Minute) // the wall clock is set back between two connections
	kill(p)
	got := open(t, cfg).Stats().Pools[0]
	if got.Leased != 14 || got.Reclaimable != 0 {
		t.Errorf("%+v", got)
	}
}

// FuzzFile: no file stops a pool or makes it break its rules, and what was read is written and read again the same.
func FuzzFile(f *testing.F) {
	for _, s := range []string{
		"", "x\n", fileHeader + "\nopen\nclosed\n",
		fileHeader + "\nlease 211.55.48.7 10.0.0.7 1764000000 1764000000 \"a.\" \"\\xff\"\nlease fd8a::1 fd00::1 0 1\nclosed\n",
		fileHeader + "\nlease 211.55.48.7 10.0.0.7 1764000000 1764000000\nlease 211.55.48.7 10.0.0.8 1 1\nlease 211.55.48.8 10.0.0.8 1 1",
	} {
		f.Add([]byte(s))
		f.Add([]byte(fileHeader + "\n" + s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := readContents(bytes.NewReader(text))
		again := []byte(fileHeader + "\n")
		for _, r := range c.records {
			again = r.append(again)
		}
		if back := readContents(bytes.NewReader(again)); back.damage != nil || back.foreign || !reflect.DeepEqual(back.records, c.records) {
			t.Fatalf("%+v\nis read again as %+v", c, back)
		}
		checkRestored(t, text)
	})
}

// checkRestored opens a pool with a file of text and checks the leases, one to one.
func checkRestored(t *testing.T, text []byte) {
	path := filepath.Join(t.TempDir(), "vips")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/24", "fd8a::/120"), Path: path, Now: newClock().now})
	for i := range p.families {
		f := p.families[i].Load()
		for _, it := range f.idle.items {
			l := it.lease
			if f.vips.find(l.vip) != l || f.reals.find(l.real) != l || !f.prefix.Contains(l.vip) {
				t.Errorf("%v for %v is not found", l.vip, l.real)
			}
		}
		if f.vips.live != f.idle.len() || f.reals.live != f.idle.len() {
			t.Errorf("%d leases, %d and %d in the tables", f.idle.len(), f.vips.live, f.reals.live)
		}
	}
	get(t, p, "fd00::99", "a.")
}
