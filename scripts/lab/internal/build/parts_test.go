package build

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPartsAreWhole(t *testing.T) {
	programs := map[string]bool{}
	for _, p := range Parts() {
		if len(p.Programs) != len(p.Packages) || p.Version == "" {
			t.Errorf("%s: %d programs of %d packages, version %q", p.Name, len(p.Programs), len(p.Packages), p.Version)
		}
		for _, name := range p.Programs {
			if programs[name] {
				t.Errorf("%s is built twice", name)
			}
			programs[name] = true
		}
		if p.Module == "" {
			continue
		}
		dir := t.TempDir()
		if err := p.writeModule(dir); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if p.Name != "pause" && !strings.Contains(string(mod), " "+p.Version+"\n") {
			t.Errorf("the go.mod of %s does not require %s", p.Name, p.Version)
		}
	}
}

// A part is built once: the second time its directory is there. The smallest
// part stands for all.
func TestEnsureBuildsOnce(t *testing.T) {
	cache := t.TempDir()
	pause := Parts()[0]
	var out bytes.Buffer
	if err := pause.ensure(context.Background(), cache, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "built pause-v1") {
		t.Errorf("progress is %q", out.String())
	}
	if info, err := os.Stat(filepath.Join(cache, "pause-v1", "pause")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the program: %v, %v", info, err)
	}
	out.Reset()
	if err := pause.ensure(context.Background(), cache, &out); err != nil || out.Len() > 0 {
		t.Errorf("the second time: %v, %q", err, out.String())
	}
	left, _ := filepath.Glob(filepath.Join(cache, "*.tmp-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestEnsureSaysWhatFailed(t *testing.T) {
	bad := Part{Name: "bad", Version: "v1", Module: "pause", Programs: []string{"x"}, Packages: []string{"lab.local/nothing"}}
	cache := t.TempDir()
	err := bad.ensure(context.Background(), cache, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "lab.local/nothing") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(filepath.Join(cache, "bad-v1")); err == nil {
		t.Error("a failed build is in the cache")
	}
}

func TestLockWaitsForTheOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(context.Background(), path, "x", &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	if _, err := lock(ctx, path, "x", &out); err == nil || !strings.Contains(out.String(), "another command") {
		t.Errorf("a second lock: %v, %q", err, out.String())
	}
	unlock()
	unlock, err = lock(context.Background(), path, "x", &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
