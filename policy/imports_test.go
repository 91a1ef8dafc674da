package policy

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// forbidden are the standard packages that would make a decision depend on more than its input.
var forbidden = map[string]string{
	"net":          "addresses are netip values; net dials, resolves and reads interfaces",
	"os":           "files and environment are read by the caller, who also knows their names",
	"os/exec":      "deciding starts no program",
	"os/user":      "who the user is, is the caller's fact",
	"io/ioutil":    "deciding does no I/O",
	"log":          "a plan carries its reasons; the caller logs them",
	"log/slog":     "a plan carries its reasons; the caller logs them",
	"math/rand":    "randomness is passed in, so that a proposal can be repeated",
	"math/rand/v2": "randomness is passed in, so that a proposal can be repeated",
	"crypto/rand":  "randomness is passed in, so that a proposal can be repeated",
	"runtime":      "the host's system is the caller's fact; decisions are tested on every system",
	"sync":         "no state, hence no lock",
	"sync/atomic":  "no state, hence nothing shared",
	"context":      "nothing here waits, so nothing can be cancelled",
	"syscall":      "no system call; the package builds on every system",
	"unsafe":       "no layout of any kernel is known here",
	"C":            "the package builds on every system",
}

// allowed are the only modules beyond the standard library, with what they are for.
var allowed = map[string]string{
	"go4.org/netipx":      "sets of addresses",
	"go.yaml.in/yaml/v3":  "YAML nodes with their lines",
	"k8s.io/apimachinery": "meta/v1, for the API types",
	"github.com/culvert-dev/culvert/policy/v1alpha1": "the API types",
}

// allowedPackages narrows a module down.
var allowedPackages = map[string]bool{"k8s.io/apimachinery/pkg/apis/meta/v1": true}

func TestImports(t *testing.T) {
	for _, dir := range []string{".", "v1alpha1"} {
		pkg, err := build.ImportDir(dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(pkg.IgnoredGoFiles) > 0 {
			t.Errorf("%s: %v build on some systems only; decisions are the same everywhere", dir, pkg.IgnoredGoFiles)
		}
		for _, path := range pkg.Imports {
			checkImport(t, dir, path)
		}
	}
}

func checkImport(t *testing.T, dir, path string) {
	if reason, bad := forbidden[path]; bad {
		t.Errorf("%s imports %s: %s", dir, path, reason)
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return // the rest of the standard library
	}
	for module := range allowed {
		if path == module || strings.HasPrefix(path, module+"/") && (module != "k8s.io/apimachinery" || allowedPackages[path]) {
			return
		}
	}
	t.Errorf("%s imports %s: no client, no netlink, nothing of node, gateway or dns; effects depend on decisions, never the reverse", dir, path)
}

// TestNoClock: durations are fine, the time of day and goroutines are not.
func TestNoClock(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	clock := map[string]bool{"Now": true, "Since": true, "Until": true, "After": true, "Sleep": true, "NewTimer": true, "NewTicker": true, "Tick": true, "AfterFunc": true}
	set := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine: nothing here waits, so nothing runs beside", set.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && clock[n.Sel.Name] {
					t.Errorf("%s: time.%s: the time is passed in, so that every moment can be tested", set.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}
