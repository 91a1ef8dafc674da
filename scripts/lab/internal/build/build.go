package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ensure builds the parts that are missing, reporting to out, and returns where
// every program is.
func Ensure(ctx context.Context, out io.Writer) (Binaries, error) {
	found, missing, err := Find()
	if err != nil || len(missing) == 0 {
		return found, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "lab: %d parts are built once and kept in %s\n", len(missing), cache)
	for _, p := range missing {
		if err := p.ensure(ctx, cache, out); err != nil {
			return nil, fmt.Errorf("build %s: %w", p.Key(), err)
		}
	}
	found, missing, err = Find()
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%s is still missing from %s", missing[0].Key(), cache)
	}
	return found, err
}

// ensure builds one part into the cache while holding its lock. The result
// appears by rename, so a directory with the final name is whole.
func (p Part) ensure(ctx context.Context, cache string, out io.Writer) error {
	unlock, err := lock(ctx, filepath.Join(cache, p.Key()+".lock"), p.Key(), out)
	if err != nil {
		return err
	}
	defer unlock()
	final := filepath.Join(cache, p.Key())
	if _, err := os.Stat(final); err == nil {
		return nil // another builder was first
	}
	work, err := os.MkdirTemp(cache, p.Key()+".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	bin := filepath.Join(work, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	if err := p.compile(ctx, work, bin, out); err != nil {
		return err
	}
	for _, name := range p.Programs {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return fmt.Errorf("the build left no %s: %w", name, err)
		}
	}
	return os.Rename(bin, final)
}

// lock takes the file lock, telling people when it has to wait.
func lock(ctx context.Context, path, what string, out io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			fmt.Fprintf(out, "lab: %s is being built by another command, waiting\n", what)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// compile runs the go command, module parts in a directory of their own.
func (p Part) compile(ctx context.Context, work, bin string, out io.Writer) error {
	flags := []string{"-v", "-trimpath", "-ldflags", strings.TrimSpace("-s -w " + p.LDFlags)}
	if p.Tags != "" {
		flags = append(flags, "-tags", p.Tags)
	}
	var args []string
	if p.Module != "" {
		if err := p.writeModule(work); err != nil {
			return err
		}
		args = append([]string{"build", "-o", bin + "/"}, flags...)
		args = append(args, p.Packages...)
	} else {
		args = append([]string{"install"}, flags...)
		for _, pkg := range p.Packages {
			args = append(args, pkg+"@"+p.Version)
		}
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOOS=linux", "GOARCH="+runtime.GOARCH, "CGO_ENABLED="+flag(p.CGO))
	if err := runWatched(cmd, p, out); err != nil {
		return err
	}
	return p.renameProgram(bin)
}

// renameProgram gives a program named after its module's major version (etcd's
// is "server") the name asked for.
func (p Part) renameProgram(bin string) error {
	for i, pkg := range p.Packages {
		built := path.Base(pkg)
		if len(built) > 1 && built[0] == 'v' && strings.Trim(built[1:], "0123456789") == "" {
			built = path.Base(path.Dir(pkg))
		}
		if built == p.Programs[i] {
			continue
		}
		if err := os.Rename(filepath.Join(bin, built), filepath.Join(bin, p.Programs[i])); err != nil {
			return err
		}
	}
	return nil
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// writeModule puts the embedded module files into dir under their real names.
// They are embedded under others because go:embed leaves modules out.
func (p Part) writeModule(dir string) error {
	names := map[string]string{".mod": "go.mod", ".sum": "go.sum", ".go.txt": "main.go"}
	for suffix, name := range names {
		raw, err := modules.ReadFile("modules/" + p.Module + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// runWatched runs a go command with -v, whose lines name the packages compiled,
// and shows their number as it grows. Other lines are kept for the error.
func runWatched(cmd *exec.Cmd, p Part, out io.Writer) error {
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	begin := time.Now()
	note := ""
	if p.Hint != "" {
		note = " (first time: " + p.Hint + ")"
	}
	fmt.Fprintf(out, "lab: building %s%s\n", p.Key(), note)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run the go command: %w", err)
	}
	var tail bytes.Buffer
	packages, shown := 0, begin
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		line := lines.Text()
		if strings.ContainsAny(line, " \t#") {
			fmt.Fprintln(&tail, line)
			continue
		}
		packages++
		if now := time.Now(); now.Sub(shown) > 10*time.Second {
			shown = now
			fmt.Fprintf(out, "lab: building %s: %d packages compiled, %s\n", p.Key(), packages, now.Sub(begin).Round(time.Second))
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, tail.Bytes())
	}
	fmt.Fprintf(out, "lab: built %s in %s\n", p.Key(), time.Since(begin).Round(time.Second))
	return nil
}
