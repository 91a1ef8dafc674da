package helper

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/hostnet/hosttest"
)

// instant is a host and the files of a connection at one instant: what a crash then would leave.
type instant struct {
	name    string
	host    hosttest.State
	files   map[string]string // contents by path
	sockets []string
}

// photograph takes the files under dir.
func photograph(t *testing.T, dir string) (files map[string]string, sockets []string) {
	t.Helper()
	files = make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
			return err
		case d.Type() == fs.ModeSocket:
			sockets = append(sockets, path)
			return nil
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, sockets
}

// putBack makes the directory what it was at the instant.
func (i instant) putBack(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for path, content := range i.files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range i.sockets {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		_ = l.Close()
	}
}

// camera photographs before and after each change of a host, the files included.
type camera struct {
	t        *testing.T
	host     *hosttest.Host
	dir      string
	instants []instant
}

func (c *camera) around(step string, after bool) error {
	when := "before "
	if after {
		when = "after "
	}
	i := instant{name: when + step, host: c.host.State()}
	i.files, i.sockets = photograph(c.t, c.dir)
	c.instants = append(c.instants, i)
	return nil
}

// TestCrashAtEveryInstantIsRepaired lives a whole connection, open, two states and restore, on a host
// beside other programs, and takes what a crash before and after each single change would leave: with
// the interface, as long as the user half lives on, and without, once all descriptors are closed. The
// repair of each leaves exactly what is not ours. It is itself crashed before and after each of its
// changes, and the next repair has to finish.
func TestCrashAtEveryInstantIsRepaired(t *testing.T) {
	paths := pathsIn(t)
	dir := filepath.Dir(paths.ResolvConf)
	host := hosttest.New(otherPrograms())
	foreign := host.State().String()
	original, err := os.ReadFile(paths.ResolvConf)
	if err != nil {
		t.Fatal(err)
	}
	cam := &camera{t: t, host: host, dir: dir}
	host.Around = cam.around
	liveOnce(t, serveHost(t, host, paths))
	if now := host.State().String(); now != foreign {
		t.Fatalf("without a crash this is left:\n%s\nwant\n%s", now, foreign)
	}
	scene := scene{paths: paths, dir: dir, resolver: string(original), host: foreign}
	crashes, dirty := 0, 0
	check := func(i instant) {
		crashes++
		if i.host.String() != foreign {
			dirty++
		}
		for _, again := range scene.repair(t, i, true) {
			crashes++
			again.name = i.name + ", then of the repair " + again.name
			scene.repair(t, again, false)
		}
	}
	for _, i := range cam.instants {
		check(i)
		i.name += ", all descriptors closed"
		i.host.RemoveLink("culvert0")
		check(i)
	}
	t.Logf("%d crashes, %d of the connection's left something in the kernel", crashes, dirty)
	if len(cam.instants) < 60 || dirty < 120 {
		t.Errorf("%d instants, %d with something left: too few to prove anything", len(cam.instants), dirty)
	}
}

// scene is where everything happens, and how it has to be in the end.
type scene struct {
	paths          Paths
	dir            string
	resolver, host string
}

// repair repairs what a crash at an instant leaves, checks the result, and returns the instants of
// the repair if they are wanted.
func (s scene) repair(t *testing.T, i instant, instants bool) []instant {
	t.Helper()
	i.putBack(t, s.dir)
	host := hosttest.New(i.host)
	cam := &camera{t: t, host: host, dir: s.dir}
	if instants {
		host.Around = cam.around
	}
	if err := Repair(s.paths, DefaultName, host, discard); err != nil {
		t.Fatalf("crash %s: repair: %v", i.name, err)
	}
	if now := host.State().String(); now != s.host {
		t.Fatalf("crash %s: after the repair the host is\n%s\nwant\n%s", i.name, now, s.host)
	}
	files, sockets := photograph(t, s.dir)
	if len(files) != 1 || files[s.paths.ResolvConf] != s.resolver || len(sockets) != 0 {
		t.Fatalf("crash %s: after the repair the files are %q and sockets %q", i.name, files, sockets)
	}
	return cam.instants
}

// liveOnce opens, applies two states and closes.
func liveOnce(t *testing.T, s *served) {
	t.Helper()
	c := s.client(t)
	open, state := fine()
	opened, err := c.Open(t.Context(), open)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if err := c.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	state.Routes, state.Priority.V4, state.MTU = state.Routes[2:], 4000, 1300
	state.Routes[0].Throw = true
	state.SkipMarks = hostnet.SkipMarks{V6: state.SkipMarks.V4} // at the priority that the rule has
	if err := c.Apply(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(t); err != nil {
		t.Fatal(err)
	}
}
