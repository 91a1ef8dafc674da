// Package image writes container images without any engine: the docker-archive
// form, one layer, from scratch, equal bytes for equal input.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"sort"
	"strings"
	"time"
)

// Image is what one image holds.
type Image struct {
	Name       string            // repository:tag
	Files      map[string]string // path in the image to path on this machine, executables
	Entrypoint []string
	User       string // uid:gid, empty for root
}

// Write writes the archive. Every file must be a static executable: the image
// has no loader and no libraries.
func (m Image) Write(w io.Writer) error {
	layer, err := m.layer()
	if err != nil {
		return fmt.Errorf("image %s: %w", m.Name, err)
	}
	diffID := digest(layer)
	config, err := m.config(diffID)
	if err != nil {
		return err
	}
	configName, layerName := digest(config)+".json", diffID+".tar"
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{m.Name}, "Layers": []string{layerName},
	}})
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	for _, entry := range []struct {
		name string
		data []byte
	}{{configName, config}, {layerName, layer}, {"manifest.json", manifest}} {
		if err := add(out, entry.name, 0o644, entry.data); err != nil {
			return err
		}
	}
	return out.Close()
}

// layer is the image's file system as a tar: parent directories, then files,
// sorted, without times.
func (m Image) layer() ([]byte, error) {
	var paths []string
	for p := range m.Files {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	var buf bytes.Buffer
	out := tar.NewWriter(&buf)
	made := map[string]bool{}
	for _, p := range paths {
		if err := addParents(out, p, made); err != nil {
			return nil, err
		}
		if err := checkStatic(m.Files[p]); err != nil {
			return nil, err
		}
		data, err := os.ReadFile(m.Files[p])
		if err != nil {
			return nil, err
		}
		if err := add(out, strings.TrimPrefix(p, "/"), 0o755, data); err != nil {
			return nil, err
		}
	}
	if err := addTmp(out, made); err != nil {
		return nil, err
	}
	return buf.Bytes(), out.Close()
}

func addParents(out *tar.Writer, file string, made map[string]bool) error {
	dir := strings.TrimPrefix(path.Dir(file), "/")
	if dir == "" || dir == "." || made[dir] {
		return nil
	}
	if err := addParents(out, dir, made); err != nil {
		return err
	}
	made[dir] = true
	return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
}

func addTmp(out *tar.Writer, made map[string]bool) error {
	if made["tmp"] {
		return nil
	}
	return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777, ModTime: time.Unix(0, 0)})
}

func add(out *tar.Writer, name string, mode int64, data []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: time.Unix(0, 0)}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

// checkStatic refuses programs that need a loader.
func checkStatic(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("%s is no Linux program: %w", file, err)
	}
	defer f.Close()
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked and cannot run in an image from scratch: build it with CGO_ENABLED=0", file)
		}
	}
	return nil
}

func (m Image) config(diffID string) ([]byte, error) {
	return json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": m.Entrypoint,
			"User":       m.User,
			"WorkingDir": "/",
			"Env":        []string{"PATH=/"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + diffID}},
	})
}

func digest(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }
