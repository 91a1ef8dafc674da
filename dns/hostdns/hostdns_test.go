package hostdns

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var ourServer = netip.MustParseAddr("245.1.2.10")

var ours = Config{Servers: []netip.Addr{ourServer}, Search: []string{"default.svc.cluster.local", "cluster.local"}}

const original = "# by hand\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch corp.example cluster.local.\noptions ndots:2 edns0\nsortlist 10.0.0.0\n"

func TestParse(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want Config
	}{
		"all of it": {original, Config{
			Servers: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			Search:  []string{"corp.example", "cluster.local"}, Options: []string{"ndots:2", "edns0"}}},
		"the last of domain and search counts": {"search a b\ndomain c\n", Config{Search: []string{"c"}}},
		"a zone":                               {"nameserver fe80::1%eth0\n", Config{Servers: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}}},
		"what is not understood":               {"nameserver\nnameserver x\n nameserver 192.0.2.9\n;nameserver 192.0.2.9\nfoo bar\n", Config{}},
		"tabs, no newline at the end":          {"nameserver\t192.0.2.1", Config{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
		"mapped addresses are IPv4":            {"nameserver ::ffff:192.0.2.1\n", Config{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
		"the root as a search domain":          {"search .\n", Config{Search: []string{"."}}},
		"Windows line ends, and a stray":       {"nameserver 192.0.2.1\r\n\x00", Config{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
	} {
		if got := Parse([]byte(row.text)); !got.Equal(row.want) {
			t.Errorf("%s: %+v, want %+v", name, got, row.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(original))
	f.Add(render("a", ours, []byte(original)))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range Parse(data).Servers {
			if !s.IsValid() || s.Is4In6() {
				t.Errorf("server %v", s)
			}
		}
		file := render("lab", ours, data)
		if names := Connections(file); len(names) == 0 || names[0] != "lab" {
			t.Errorf("the marker of %q names %q", file, names)
		}
		if got := Parse(file); !slices.Equal(got.Servers, ours.Servers) {
			t.Errorf("our file has the servers %v", got.Servers)
		}
	})
}

func TestNdots(t *testing.T) {
	for text, want := range map[string]int{
		"":                                 1,
		"options edns0":                    1,
		"options ndots:5":                  5,
		"options ndots:0":                  0,
		"options ndots:99":                 15,
		"options ndots:x":                  1,
		"options ndots:-2":                 1,
		"options ndots:2\noptions ndots:3": 3,
	} {
		if got := Parse([]byte(text)).Ndots(); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestRender(t *testing.T) {
	want := `# culvert connection: lab
# Written by Culvert, which puts the file back when it leaves. Changes made here are lost then.
nameserver 245.1.2.10
search default.svc.cluster.local cluster.local corp.example
options ndots:2 edns0
sortlist 10.0.0.0
`
	if got := string(render("lab", ours, []byte(original))); got != want {
		t.Errorf("rendered\n%s\nwant\n%s", got, want)
	}
}

func TestStubIsSeenThrough(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "uplinks")
	write(t, list, "nameserver 192.0.2.7\n")
	c := Parse([]byte("nameserver 127.0.0.53\nsearch corp.example\n"))
	if got := throughStub(c, list); !slices.Equal(got.Servers, []netip.Addr{netip.MustParseAddr("192.0.2.7")}) || got.Search[0] != "corp.example" {
		t.Errorf("servers %v", got)
	}
	if got := throughStub(c, list+"x"); !got.Equal(c) {
		t.Errorf("without the list: %v", got)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// managerAt returns a manager whose journal is the returned record.
func managerAt(path, name string) (*Manager, **Record) {
	var journaled *Record
	return &Manager{
		Name: name, Path: path, Log: slog.New(slog.DiscardHandler),
		Journal: func(r *Record) error { journaled = r; return nil },
	}, &journaled
}

// look is everything of a file that a restore has to bring back.
func look(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	if err != nil {
		t.Fatal(err)
	}
	link, _ := os.Readlink(path)
	content, _ := os.ReadFile(path)
	uid, gid := owner(info)
	out := strings.Join([]string{info.Mode().String(), link, string(content)}, "|")
	out += info.ModTime().String()
	return out + string(rune('0'+uid%10)) + string(rune('0'+gid%10))
}

// layouts are the ways in which hosts keep the file. Each returns the path that programs open and the
// files that have to be as they were afterwards.
var layouts = map[string]func(t *testing.T, dir string) (path string, watched []string){
	"a plain file": func(t *testing.T, dir string) (string, []string) {
		path := filepath.Join(dir, "resolv.conf")
		write(t, path, original)
		chmodAge(t, path, 0o640)
		return path, []string{path}
	},
	"no file": func(t *testing.T, dir string) (string, []string) {
		path := filepath.Join(dir, "resolv.conf")
		return path, []string{path}
	},
	"an empty file": func(t *testing.T, dir string) (string, []string) {
		path := filepath.Join(dir, "resolv.conf")
		write(t, path, "")
		return path, []string{path}
	},
	"a link to a plain file elsewhere": func(t *testing.T, dir string) (string, []string) {
		target := filepath.Join(dir, "sub", "static.conf")
		if err := os.Mkdir(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, target, original)
		chmodAge(t, target, 0o600)
		return link(t, dir, "sub/static.conf"), []string{filepath.Join(dir, "resolv.conf"), target}
	},
	"a link to another program's file": func(t *testing.T, dir string) (string, []string) {
		target := filepath.Join(dir, "managed", "stub.conf")
		if err := os.Mkdir(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, target, original)
		chmodAge(t, target, 0o644)
		manage(t, filepath.Dir(target))
		return link(t, dir, "managed/stub.conf"), []string{filepath.Join(dir, "resolv.conf"), target}
	},
	"a link to nowhere": func(t *testing.T, dir string) (string, []string) {
		path := link(t, dir, "/nowhere/resolv.conf")
		return path, []string{path}
	},
}

func chmodAge(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	old := time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)
	if err := errors.Join(os.Chmod(path, mode), os.Chtimes(path, old, old)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, dir, target string) string {
	t.Helper()
	path := filepath.Join(dir, "resolv.conf")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// manage makes dir a directory of another program's for the test.
func manage(t *testing.T, dir string) {
	t.Helper()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	before := managed
	managed = append(slices.Clone(managed), real)
	t.Cleanup(func() { managed = before })
}

func TestHookAndRestoreEveryLayout(t *testing.T) {
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, watched := layout(t, dir)
			before := looks(t, watched)
			m, journaled := managerAt(path, "default")
			upstreams, err := m.Upstreams()
			if err != nil {
				t.Fatal(err)
			}
			if before := looks(t, watched); strings.Contains(before, "192.0.2.1") != (len(upstreams.Servers) == 2) {
				t.Errorf("upstreams %v", upstreams)
			}
			if err := m.Set(ours); err != nil {
				t.Fatal(err)
			}
			if got := Parse([]byte(read(t, path))); !slices.Equal(got.Servers, ours.Servers) {
				t.Errorf("hooked file has the servers %v", got.Servers)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o444 != 0o444 {
				t.Errorf("hooked file has mode %v: programs of all users have to read it", info.Mode())
			}
			again := looks(t, watched)
			if err := m.Set(ours); err != nil || looks(t, watched) != again {
				t.Errorf("hooking again changes the file (%v)", err)
			}
			if *journaled == nil {
				t.Fatal("nothing was journaled")
			}
			if err := m.Set(Config{}); err != nil {
				t.Fatal(err)
			}
			if after := looks(t, watched); after != before {
				t.Errorf("restored to\n%s\nwant\n%s", after, before)
			}
			if *journaled != nil {
				t.Error("the journal still has a record")
			}
			noLeftovers(t, dir)
		})
	}
}

func looks(t *testing.T, paths []string) string {
	t.Helper()
	var all []string
	for _, p := range paths {
		all = append(all, look(t, p))
	}
	return strings.Join(all, "\n")
}

func noLeftovers(t *testing.T, dir string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, ".resolv*"))
	if err != nil || len(found) > 0 {
		t.Errorf("left behind: %v %v", found, err)
	}
}

// TestCrashAtAnyInstantRestores stops after the journal was written, and after the scratch file was.
func TestCrashAtAnyInstantRestores(t *testing.T) {
	crash := errors.New("crash")
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, watched := layout(t, dir)
			before := looks(t, watched)
			m, _ := managerAt(path, "default")
			var record *Record
			m.Journal = func(r *Record) error { record = r; return crash }
			if err := m.Set(ours); !errors.Is(err, crash) {
				t.Fatalf("error %v, want the journal's", err)
			}
			if looks(t, watched) != before {
				t.Error("changed although the journal failed")
			}
			write(t, scratch(record.Target, record.Name), "half a fi")
			for range 2 { // restoring twice is harmless
				if _, err := record.Restore(nil); err != nil {
					t.Fatal(err)
				}
				if err := record.RemoveScratch(); err != nil {
					t.Fatal(err)
				}
			}
			if after := looks(t, watched); after != before {
				t.Errorf("restored to\n%s\nwant\n%s", after, before)
			}
			noLeftovers(t, dir)
		})
	}
}

func TestTornWriteInPlaceIsRestored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, "nameserver 192.0.2.1\n")
	m, journaled := managerAt(path, "default")
	if err := m.Set(ours); err != nil {
		t.Fatal(err)
	}
	r := *journaled
	torn := append(bytes.Clone(r.Content), r.Ours[len(r.Content):]...)
	write(t, path, string(torn))
	if restored, err := r.Restore(nil); err != nil || !restored || read(t, path) != string(r.Content) {
		t.Errorf("restored %v to %q, error %v", restored, read(t, path), err)
	}
}

func TestAnotherProgramsFileStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, original)
	m, journaled := managerAt(path, "default")
	if err := m.Set(ours); err != nil {
		t.Fatal(err)
	}
	write(t, path, "nameserver 192.0.2.99\n")
	if err := m.Set(Config{}); err != nil || *journaled != nil {
		t.Fatalf("error %v", err)
	}
	if got := read(t, path); got != "nameserver 192.0.2.99\n" {
		t.Errorf("the other program's file became %q", got)
	}
}

// tick runs checks until the limit of times, returning the first change.
func tick(t *testing.T, m *Manager, now *time.Time, times int) (Config, bool) {
	t.Helper()
	for range times {
		*now = now.Add(500 * time.Millisecond)
		c, changed, err := m.Check(*now)
		if err != nil {
			t.Fatal(err)
		}
		if changed {
			return c, true
		}
	}
	return Config{}, false
}

func TestRewritingIsAdoptedWithALimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, original)
	m, _ := managerAt(path, "default")
	if _, err := m.Upstreams(); err != nil {
		t.Fatal(err)
	}
	if err := m.Set(ours); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	if _, changed := tick(t, m, &now, 5); changed {
		t.Error("a change is reported although nothing happened")
	}
	for i := range rehookBurst {
		text := "nameserver 192.0.2." + string(rune('2'+i)) + "\n"
		write(t, path, text)
		c, changed := tick(t, m, &now, 3)
		if !changed || len(c.Servers) != 1 || c.Servers[0].String() != "192.0.2."+string(rune('2'+i)) {
			t.Fatalf("rewrite %d: changed %v to %v", i, changed, c)
		}
		if !strings.Contains(read(t, path), "245.1.2.10") {
			t.Fatalf("rewrite %d: not hooked again", i)
		}
	}
	write(t, path, "nameserver 192.0.2.77\n")
	if _, changed := tick(t, m, &now, 3); changed || strings.Contains(read(t, path), "245.1.2.10") {
		t.Error("no limit on fighting")
	}
	if _, changed := tick(t, m, &now, 60); !changed || !strings.Contains(read(t, path), "245.1.2.10") {
		t.Error("given up for good")
	}
	if err := m.Set(Config{}); err != nil || read(t, path) != "nameserver 192.0.2.77\n" {
		t.Errorf("restored to %q, want what the other program wrote last; error %v", read(t, path), err)
	}
}

func TestAFileBeingWrittenIsNotAdoptedHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, original)
	m, _ := managerAt(path, "default")
	if err := m.Set(ours); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Upstreams(); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	tick(t, m, &now, 2)
	write(t, path, "")
	if _, changed := tick(t, m, &now, 1); changed || read(t, path) != "" {
		t.Error("acted on the first look")
	}
	write(t, path, "nameserver 192.0.2.5\n")
	if c, changed := tick(t, m, &now, 3); !changed || c.Servers[0].String() != "192.0.2.5" {
		t.Errorf("adopted %v", c)
	}
}

// TestStackedConnections has a above b, and either leaves first.
func TestStackedConnections(t *testing.T) {
	for _, order := range []string{"bottom first", "top first", "bottom crashed"} {
		t.Run(order, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			write(t, path, original)
			chmodAge(t, path, 0o644)
			before := look(t, path)
			records := make(map[string]*Record)
			stacked := func(name string) *Manager {
				m, _ := managerAt(path, name)
				m.Journal = func(r *Record) error { records[name] = r; return nil }
				m.Lookup = func(name string) (*Record, bool) { return records[name], records[name] != nil }
				return m
			}
			bottom, top := stacked("bottom"), stacked("top")
			if err := bottom.Set(ours); err != nil {
				t.Fatal(err)
			}
			if up, err := top.Upstreams(); err != nil || !slices.Equal(up.Servers, ours.Servers) {
				t.Fatalf("the top asks %v, %v; want the bottom", up, err)
			}
			second := Config{Servers: []netip.Addr{netip.MustParseAddr("245.9.9.9")}, Search: []string{"other"}}
			if err := top.Set(second); err != nil {
				t.Fatal(err)
			}
			if names := Connections([]byte(read(t, path))); !slices.Equal(names, []string{"top", "bottom"}) {
				t.Fatalf("marker names %q", names)
			}
			now := time.Unix(1e9, 0)
			tick(t, bottom, &now, 4)
			if names := Connections([]byte(read(t, path))); names[0] != "top" {
				t.Fatalf("the bottom fights the top: %q", names)
			}
			switch order {
			case "top first":
				err := top.Set(Config{})
				if names := Connections([]byte(read(t, path))); err != nil || !slices.Equal(names, []string{"bottom"}) {
					t.Fatalf("marker names %q, error %v", names, err)
				}
				if err := bottom.Set(Config{}); err != nil {
					t.Fatal(err)
				}
			case "bottom first":
				if err := bottom.Set(Config{}); err != nil {
					t.Fatal(err)
				}
				if c, changed := tick(t, top, &now, 2); !changed || c.Servers[0].String() != "192.0.2.1" {
					t.Errorf("after the bottom left, the top asks %v", c)
				}
				if err := top.Set(Config{}); err != nil {
					t.Fatal(err)
				}
			case "bottom crashed":
				record := records["bottom"]
				delete(records, "bottom") // no longer running
				if err := top.Set(Config{}); err != nil {
					t.Fatal(err)
				}
				if _, err := record.Restore(top.Lookup); err != nil {
					t.Fatal(err)
				}
			}
			if after := look(t, path); after != before {
				t.Errorf("restored to\n%s\nwant\n%s", after, before)
			}
		})
	}
}

func TestSetChangesWhatItWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, original)
	m, _ := managerAt(path, "default")
	if err := m.Set(ours); err != nil {
		t.Fatal(err)
	}
	next := ours
	next.Search = []string{"other.svc.cluster.local"}
	if err := m.Set(next); err != nil {
		t.Fatal(err)
	}
	got := read(t, path)
	if !strings.Contains(got, "search other.svc.cluster.local corp.example cluster.local\n") {
		t.Errorf("file is\n%s", got)
	}
	if err := m.Set(Config{}); err != nil || read(t, path) != original {
		t.Errorf("restored to\n%s (%v)", read(t, path), err)
	}
}

// TestFileBehindALinkIsFollowed has the file's owner write it while the link is replaced.
func TestFileBehindALinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	path, watched := layouts["a link to another program's file"](t, dir)
	m, journaled := managerAt(path, "default")
	if _, err := m.Upstreams(); err != nil {
		t.Fatal(err)
	}
	if err := m.Set(ours); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	tick(t, m, &now, 2)
	write(t, watched[1], "nameserver 192.0.2.50\nsearch elsewhere.example\n")
	if c, changed := tick(t, m, &now, 2); !changed || c.Servers[0].String() != "192.0.2.50" {
		t.Errorf("upstreams %v", c)
	}
	if got := read(t, path); !strings.Contains(got, "cluster.local elsewhere.example\n") {
		t.Errorf("file is\n%s", got)
	}
	if err := os.Remove(watched[1]); err != nil {
		t.Fatal(err)
	}
	if c, changed := tick(t, m, &now, 3); changed {
		t.Errorf("a missing file changed the upstreams to %v", c)
	}
	write(t, watched[1], "nameserver 192.0.2.51\n")
	want := looks(t, watched[1:])
	if _, err := (*journaled).Restore(nil); err != nil {
		t.Fatal(err)
	}
	if link, err := os.Readlink(path); err != nil || link != "managed/stub.conf" || looks(t, watched[1:]) != want {
		t.Errorf("link is %q, %v", link, err)
	}
}
