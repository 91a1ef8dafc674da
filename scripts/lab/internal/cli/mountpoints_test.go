package cli

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMissingDirs(t *testing.T) {
	base := t.TempDir()
	if err := os.Mkdir(filepath.Join(base, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(base, name) }
	for dir, want := range map[string][]string{
		in("a"):     nil,
		in("a/b/c"): {in("a/b"), in("a/b/c")},
		"/":         nil,
	} {
		if got := missingDirs(dir); !slices.Equal(got, want) {
			t.Errorf("missingDirs(%s) = %v, want %v", dir, got, want)
		}
	}
}
