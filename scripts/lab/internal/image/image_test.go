package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// staticProgram compiles the smallest static program there is.
func staticProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "prog"), src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "prog")
}

func TestWrite(t *testing.T) {
	prog := staticProgram(t)
	m := Image{Name: "lab.local/x:v1", Files: map[string]string{"/usr/bin/x": prog}, Entrypoint: []string{"/usr/bin/x"}, User: "1:1"}
	var one, two bytes.Buffer
	if err := errors.Join(m.Write(&one), m.Write(&two)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two archives of the same image differ")
	}
	files := untar(t, one.Bytes())
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest[0].RepoTags[0] != m.Name {
		t.Errorf("the image is tagged %v", manifest[0].RepoTags)
	}
	layer := files[manifest[0].Layers[0]]
	var config struct {
		Config struct {
			Entrypoint []string
			User       string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(files[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	if config.RootFS.DiffIDs[0] != "sha256:"+digest(layer) || config.Config.User != "1:1" || config.Config.Entrypoint[0] != "/usr/bin/x" {
		t.Errorf("config is %+v", config)
	}
	want, err := os.ReadFile(prog)
	if err != nil {
		t.Fatal(err)
	}
	inside := untar(t, layer)
	if !bytes.Equal(inside["usr/bin/x"], want) {
		t.Error("the program in the layer differs")
	}
	for _, dir := range []string{"usr/", "usr/bin/", "tmp/"} {
		if _, ok := inside[dir]; !ok {
			t.Errorf("the layer has no %s", dir)
		}
	}
}

func untar(t *testing.T, raw []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for in := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := in.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteRefusesWhatCannotRun(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{script: "no Linux program", "/bin/sh": "CGO_ENABLED=0"}
	for file, want := range tests {
		err := Image{Name: "x", Files: map[string]string{"/x": file}}.Write(io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("image of %s: %v, want an error with %q", file, err, want)
		}
	}
}
