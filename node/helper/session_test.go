package helper

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// fakeHost is a host without a kernel. It counts what is ours and not removed.
type fakeHost struct {
	foreign map[string]bool // interfaces that other programs have

	mu    sync.Mutex // guards the fields below
	left  hostnet.Actual
	names []string // interfaces created
}

// state returns what is left of ours, and the interfaces created.
func (f *fakeHost) state() (hostnet.Actual, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left, strings.Join(f.names, " ")
}

var _ hostnet.Host = (*fakeHost)(nil)

func (f *fakeHost) CreateTUN(s hostnet.Scope) (*os.File, int, error) {
	if f.foreign[s.Interface] {
		return nil, 0, hostnet.ErrForeign
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = append(f.names, s.Interface)
	f.left.Link = &hostnet.Link{}
	file, err := os.Open(os.DevNull)
	return file, 1, err
}

func (f *fakeHost) Read(hostnet.Scope) (hostnet.Actual, error) {
	left, _ := f.state()
	return left, nil
}

func (f *fakeHost) Marked() ([]hostnet.Scope, error) { return nil, nil }
func (f *fakeHost) HasIPv6() bool                    { return true }

func (f *fakeHost) Watch(hostnet.Scope) (<-chan struct{}, func(), error) { return nil, func() {}, nil }

func (f *fakeHost) DestroySockets(hostnet.Sockets) (int, error) { return 0, nil }

func (f *fakeHost) Do(c hostnet.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch c.Kind {
	case hostnet.AddFilter:
		f.left.FilterTable = true
	case hostnet.DeleteFilter:
		f.left.FilterTable = false
	case hostnet.DeleteLink:
		f.left.Link = nil
	}
	return nil
}

// served is a helper that runs as a goroutine, on a fake host and in a directory of its own.
type served struct {
	host  *fakeHost // nil if it is another one
	paths Paths
	end   *net.UnixConn // the user half's
	done  chan error
}

func serve(t *testing.T, name string, host *fakeHost) *served {
	t.Helper()
	s := serveOptions(t, Options{Name: name, Host: host, Paths: pathsIn(t), Log: discard})
	s.host = host
	return s
}

// serveHost serves on a host in memory, without the resolver's sockets.
func serveHost(t *testing.T, host hostnet.Host, paths Paths) *served {
	t.Helper()
	return serveOptions(t, Options{Name: DefaultName, Host: host, Paths: paths, Log: discard, listenDNS: noSockets})
}

// serveOptions runs a helper on a socketpair of its own.
func serveOptions(t *testing.T, o Options) *served {
	t.Helper()
	s := &served{done: make(chan error, 1), paths: o.Paths}
	pair, err := socketPair("helper")
	if err != nil {
		t.Fatal(err)
	}
	s.end = unixConn(t, pair[1])
	o.Conn = unixConn(t, pair[0])
	go func() { s.done <- Run(context.Background(), o) }()
	t.Cleanup(func() {
		_ = s.end.Close()
		if s.done != nil {
			s.wait(t)
		}
	})
	return s
}

// wait waits for the helper's end and returns its error.
func (s *served) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.done:
		s.done = nil
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the helper does not end")
		return nil
	}
}

func unixConn(t *testing.T, f *os.File) *net.UnixConn {
	t.Helper()
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

func (s *served) client(t *testing.T) *Client {
	t.Helper()
	f, err := s.end.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = s.end.Close()
	c, err := NewClient(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Disconnect)
	return c
}

func TestGarbageEndsTheSession(t *testing.T) {
	for name, data := range map[string][]byte{
		"random bytes":      {1, 2, 3, 4, 5, 6, 7, 8},
		"a huge length":     {255, 255, 255, 255},
		"HTTP":              []byte("GET / HTTP/1.1\r\n\r\n"),
		"an unknown type":   frame(`{"version":1,"id":1,"type":"sh"}`),
		"nothing, and gone": nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, DefaultName, &fakeHost{})
			if _, err := s.end.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := s.end.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := s.wait(t); err != nil {
				t.Errorf("helper: %v", err)
			}
			if rest, _ := io.ReadAll(s.end); len(rest) > 0 {
				t.Errorf("the helper answers %q", rest)
			}
		})
	}
}

// TestRequestBehindTheLastOne: the user half may have asked for something beside its goodbye.
func TestRequestBehindTheLastOne(t *testing.T) {
	s := serve(t, DefaultName, &fakeHost{})
	last := append(frame(`{"version":1,"id":1,"type":"close"}`), frame(`{"version":1,"id":2,"type":"hello"}`)...)
	if _, err := s.end.Write(last); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(t); err != nil {
		t.Errorf("helper: %v", err)
	}
}

// TestFailedOpenLeavesNothing opens where the address does not exist, so that binding the resolver's
// sockets fails after everything else went well.
func TestFailedOpenLeavesNothing(t *testing.T) {
	s := serve(t, DefaultName, &fakeHost{})
	open, state := fine()
	c := s.client(t)
	_, err := c.Open(t.Context(), open)
	if err == nil || !strings.Contains(err.Error(), "listen for DNS on 245.1.2.10") {
		t.Fatalf("%v, want the sockets to fail", err)
	}
	if left, _ := s.host.state(); left.Link != nil || left.FilterTable {
		t.Errorf("left %+v", left)
	}
	if _, err := s.paths.journals().Load(DefaultName); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("journal: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.paths.UAPIDir, "*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if err := c.Apply(t.Context(), state); !errors.Is(err, ErrRefused) {
		t.Errorf("apply without an interface: %v, want a refusal", err)
	}
	if err := c.Close(t.Context(), nil); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := s.wait(t); err != nil {
		t.Errorf("helper: %v", err)
	}
}

func TestRefusedRequestsKeepTheSession(t *testing.T) {
	s := serve(t, DefaultName, &fakeHost{})
	c := s.client(t)
	open, state := fine()
	open.Interface = "eth0"
	if _, err := c.Open(t.Context(), open); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, want a refusal", err)
	}
	if err := c.Apply(t.Context(), state); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, want a refusal", err)
	}
	if _, err := c.Reset(t.Context(), []netip.Prefix{netip.MustParsePrefix("10.130.0.0/16")}); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, want a refusal", err)
	}
	hello, err := c.Ping(t.Context())
	if err != nil || hello.HelperPID != os.Getpid() || hello.Name != DefaultName {
		t.Errorf("hello %+v, %v", hello, err)
	}
	if _, created := s.host.state(); created != "" {
		t.Errorf("created %q", created)
	}
}

func TestChoiceOfInterface(t *testing.T) {
	foreign := map[string]bool{"culvert0": true, "culvert1": true, "culvert2": true}
	for name, row := range map[string]struct{ connection, asked, want string }{
		"the default has culvert0 or nothing":       {DefaultName, "", ""},
		"another takes the first free one":          {"lab", "", "culvert3"},
		"what is asked for is not replaced":         {"lab", "culvert2", ""},
		"what is asked for is taken when it's free": {"lab", "culvert9", "culvert9"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, row.connection, &fakeHost{foreign: foreign})
			open, _ := fine()
			open.Interface = row.asked
			_, err := s.client(t).Open(t.Context(), open) // fails at the sockets at the latest
			if _, got := s.host.state(); got != row.want {
				t.Errorf("created %q, want %q", got, row.want)
			}
			if row.want == "" && !errors.Is(err, hostnet.ErrForeign) {
				t.Errorf("%v, want it to be another program's", err)
			}
		})
	}
}

func TestClientWhoseHelperEnds(t *testing.T) {
	pair, err := socketPair("helper")
	if err != nil {
		t.Fatal(err)
	}
	helper := unixConn(t, pair[0])
	answered := make(chan error, 1)
	go func() { // says hello and dies at the next request
		req, err := readRequest(helper)
		if err == nil {
			err = sendResponse(helper, response{ID: req.ID, Version: 1, Hello: &Hello{}}, nil)
		}
		_, _ = readRequest(helper)
		answered <- errors.Join(err, helper.Close())
	}()
	c, err := NewClient(t.Context(), pair[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), OpenRequest{}); !errors.Is(err, ErrHelperGone) {
		t.Errorf("%v, want ErrHelperGone", err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	<-c.Done()
	if _, open := <-c.Events(); open {
		t.Error("an event out of nothing")
	}
	if err := c.Apply(t.Context(), hostnet.State{}); !errors.Is(err, ErrHelperGone) {
		t.Errorf("%v, want ErrHelperGone", err)
	}
	c.Disconnect()
}

func TestRequestWhoseContextEnds(t *testing.T) {
	pair, err := socketPair("helper")
	if err != nil {
		t.Fatal(err)
	}
	helper := unixConn(t, pair[0])
	defer helper.Close()
	go func() {
		req, err := readRequest(helper)
		if err == nil {
			_ = sendResponse(helper, response{ID: req.ID, Version: 1, Hello: &Hello{}}, nil)
		}
	}()
	c, err := NewClient(t.Context(), pair[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Disconnect()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Open(ctx, OpenRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the cancellation", err)
	}
}
