package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/dns/hostdns"
)

func full() *Journal {
	return &Journal{
		Name: "lab", BootID: "7f0c", Sockets: []string{"/run/x.sock"},
		Network:  &Network{Interface: "culvert1", Index: 9, Table: 7831},
		Resolver: &hostdns.Record{Name: "lab", Path: "/etc/resolv.conf", Content: []byte("a\x00b"), Below: &hostdns.Record{Name: "x"}},
	}
}

func TestSaveAndLoad(t *testing.T) {
	store := Store{Dir: filepath.Join(t.TempDir(), "state")}
	for name, j := range map[string]*Journal{
		"all of it":         full(),
		"the network alone": {Name: "lab", BootID: "7f0c", Network: &Network{Interface: "culvert1", Table: 7831}},
	} {
		if err := store.Save(j); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := store.Load("lab")
		if err != nil || !reflect.DeepEqual(got, j) {
			t.Errorf("%s: loaded %+v, %v", name, got, err)
		}
	}
	info, err := os.Stat(filepath.Join(store.Dir, "lab", "journal.json"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if names, err := store.Names(); err != nil || !slices.Equal(names, []string{"lab"}) {
		t.Errorf("names %q, %v", names, err)
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	store := Store{Dir: filepath.Join(t.TempDir(), "state")}
	if err := store.Save(full()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := store.Remove("lab"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(store.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if _, err := store.Load("lab"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load: %v, want not found", err)
	}
	if names, err := store.Names(); err != nil || len(names) != 0 {
		t.Errorf("names %q, %v", names, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"another version":    {`{"version":2,"name":"lab","bootID":""}`, "version 2"},
		"another connection": {`{"version":1,"name":"other","bootID":""}`, `"other"`},
		"an unknown field":   {`{"version":1,"name":"lab","bootID":"","more":1}`, "more"},
		"half a file":        {`{"version":1,"na`, "unexpected EOF"},
		"nothing":            {``, "empty"},
	} {
		store := Store{Dir: t.TempDir()}
		if err := os.Mkdir(filepath.Join(store.Dir, "lab"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(store.path("lab"), []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Load("lab"); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q in it", name, err, row.want)
		}
	}
}

// TestSaveIsAllOrNothing has the writing fail and expects the old journal.
func TestSaveIsAllOrNothing(t *testing.T) {
	store := Store{Dir: t.TempDir()}
	if err := store.Save(full()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(store.path("lab")+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	next := full()
	next.Network.Index = 10
	if err := store.Save(next); err == nil {
		t.Fatal("saved although the new file could not be created")
	}
	if got, err := store.Load("lab"); err != nil || got.Network.Index != 9 {
		t.Errorf("loaded %+v, %v; want the old one", got, err)
	}
}

func TestEmpty(t *testing.T) {
	if j := (&Journal{Name: "lab", BootID: "x"}); !j.Empty() {
		t.Error("a fresh journal is not empty")
	}
	if full().Empty() {
		t.Error("a full journal is empty")
	}
}

func TestBootID(t *testing.T) {
	a, err := BootID()
	if err != nil || len(a) != 36 {
		t.Errorf("boot id %q, %v", a, err)
	}
}
