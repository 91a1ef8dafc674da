package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// program returns a minimal ELF file for machine, with one segment of kind segment.
func program(machine elf.Machine, segment elf.ProgType) []byte {
	var out bytes.Buffer
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	for _, part := range []any{header, elf.Prog64{Type: uint32(segment)}} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return out.Bytes()
}

func static() Options {
	return Options{
		Binary: program(elf.EM_X86_64, elf.PT_LOAD), Path: "/culvert-gateway",
		Tag: "culvert.dev/culvert-gateway:dev", Title: "culvert-gateway", Version: "1.2.3",
	}
}

// files reads a tar into a map and checks that nothing of the building machine is in it.
func files(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.Uname != "" || !header.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: owner %d:%d %q, time %v; want 0:0 and the epoch", header.Name, header.Uid, header.Gid, header.Uname, header.ModTime)
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = data
	}
}

func TestWriteHoldsWhatARuntimeNeeds(t *testing.T) {
	var out bytes.Buffer
	id, err := Write(&out, static())
	if err != nil {
		t.Fatal(err)
	}
	outer := files(t, out.Bytes())
	var manifest []archiveEntry
	if err := json.Unmarshal(outer["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest.json %s: %v", outer["manifest.json"], err)
	}
	configBytes, root := outer[manifest[0].Config], outer[manifest[0].Layers[0]]
	var config imageConfig
	if err := json.Unmarshal(configBytes, &config); err != nil {
		t.Fatal(err)
	}
	inner := files(t, root)
	for what, pair := range map[string][2]string{
		"tag":          {manifest[0].RepoTags[0], "culvert.dev/culvert-gateway:dev"},
		"id":           {id, "sha256:" + digest(configBytes)},
		"layer digest": {config.RootFS.DiffIDs[0], "sha256:" + digest(root)},
		"user":         {config.Config.User, "65532:65532"},
		"entrypoint":   {strings.Join(config.Config.Entrypoint, " "), "/culvert-gateway"},
		"architecture": {config.OS + "/" + config.Architecture, "linux/amd64"},
		"version":      {config.Config.Labels["org.opencontainers.image.version"], "1.2.3"},
		"binary":       {string(inner["culvert-gateway"]), string(static().Binary)},
		"passwd":       {string(inner["etc/passwd"]), passwd},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s = %q, want %q", what, pair[0], pair[1])
		}
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	var first, second, other bytes.Buffer
	changed := static()
	changed.Version = "1.2.4"
	for _, row := range []struct {
		out *bytes.Buffer
		o   Options
	}{{&first, static()}, {&second, static()}, {&other, changed}} {
		if _, err := Write(row.out, row.o); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same options gave different bytes")
	}
	if bytes.Equal(first.Bytes(), other.Bytes()) {
		t.Error("another version gave the same bytes")
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"a binary that needs a loader", func(o *Options) { o.Binary = program(elf.EM_X86_64, elf.PT_INTERP) }, "CGO_ENABLED=0"},
		{"a script", func(o *Options) { o.Binary = []byte("#!/bin/sh\nexit 0\n") }, "not a Linux binary"},
		{"a machine without a name", func(o *Options) { o.Binary = program(elf.EM_VAX, elf.PT_LOAD) }, "architecture"},
		{"no binary", func(o *Options) { o.Binary = nil }, "without a binary"},
		{"a relative path", func(o *Options) { o.Path = "culvert-gateway" }, "path"},
		{"a tag without a version", func(o *Options) { o.Tag = "culvert.dev/culvert-gateway" }, "REPOSITORY:TAG"},
		{"an upper-case repository", func(o *Options) { o.Tag = "Culvert.dev/gateway:1" }, "REPOSITORY:TAG"},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := static()
			row.change(&o)
			_, err := Write(io.Discard, o)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one naming %q", err, row.want)
			}
		})
	}
	o := static()
	o.Binary = program(elf.EM_X86_64, elf.PT_INTERP)
	if _, err := Write(io.Discard, o); !errors.Is(err, ErrNotStatic) {
		t.Errorf("error %v does not match ErrNotStatic", err)
	}
}
