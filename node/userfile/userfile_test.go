package userfile

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"first", "second, longer", ""} {
		if err := Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(data) != text || info.Mode().Perm() != 0o600 {
			t.Errorf("%q, %v, %v, %v", data, info, err, statErr)
		}
	}
	if err := Replace(filepath.Join(path, "below"), nil); err == nil {
		t.Error("a file below a file")
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

// TestLock counts in a file from many goroutines; without the lock increments would be lost.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "count")
	var work sync.WaitGroup
	for range 50 {
		work.Go(func() {
			unlock, err := Lock(path + ".lock")
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			data, _ := os.ReadFile(path)
			n, _ := strconv.Atoi(string(data))
			if err := Replace(path, []byte(strconv.Itoa(n+1))); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	if data, err := os.ReadFile(path); err != nil || string(data) != "50" {
		t.Errorf("%q, %v", data, err)
	}
}

// TestLockGivesUp: a process that sits on the lock keeps nobody waiting for good.
func TestLockGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if unlock, err = Lock(path); err != nil {
		t.Fatalf("given back: %v", err)
	}
	unlock()
}
