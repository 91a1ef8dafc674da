package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"
	"time"
)

// Options describe an image of one binary.
type Options struct {
	// Binary is the whole static ELF program. Required.
	Binary []byte
	// Path is where the program lies in the image and what it is started as, absolute. Required.
	Path string
	// Tag names the image, REPOSITORY:TAG. Required.
	Tag string
	// Version and Title go into the labels of the OCI annotation keys; empty ones are left out.
	Version, Title string
	// Labels are further labels; they win over Version and Title.
	Labels map[string]string
	// Created is the image's date and that of its files; zero means the Unix epoch, so that equal
	// binaries give equal images.
	Created time.Time
}

// tagPattern is a registry host and path, lower case, and a tag (OCI distribution specification).
var tagPattern = regexp.MustCompile(`^[a-z0-9]+([._:/-]+[a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// Write writes the image as a docker-archive to w and returns its ID, "sha256:" and the digest of
// its config, which is what container engines list it by.
func Write(w io.Writer, o Options) (id string, err error) {
	if err := o.check(); err != nil {
		return "", err
	}
	arch, err := architecture(o.Binary)
	if err != nil {
		return "", err
	}
	created := o.Created.UTC().Truncate(time.Second)
	if o.Created.IsZero() {
		created = time.Unix(0, 0).UTC()
	}
	root, err := layer(strings.TrimPrefix(o.Path, "/"), o.Binary, created)
	if err != nil {
		return "", err
	}
	config, err := json.Marshal(o.config(arch, digest(root), created))
	if err != nil {
		return "", fmt.Errorf("encode the image config: %w", err)
	}
	return "sha256:" + digest(config), writeArchive(w, o.Tag, config, root, created)
}

// check reports the first required option that is missing or cannot be used.
func (o Options) check() error {
	switch {
	case len(o.Binary) == 0:
		return errors.New("image without a binary")
	case !strings.HasPrefix(o.Path, "/") || strings.HasSuffix(o.Path, "/"):
		return fmt.Errorf("path %q of the binary is not that of a file from the root", o.Path)
	case !tagPattern.MatchString(o.Tag):
		return fmt.Errorf("tag %q is not of the form REPOSITORY:TAG", o.Tag)
	}
	return nil
}

// The parts of the image config that matter here (OCI image specification, config.md).
type (
	imageConfig struct {
		Created      time.Time `json:"created"`
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		Config       runConfig `json:"config"`
		RootFS       rootFS    `json:"rootfs"`
		History      []history `json:"history"`
	}
	runConfig struct {
		User       string            `json:"User"`
		Entrypoint []string          `json:"Entrypoint"`
		WorkingDir string            `json:"WorkingDir"`
		Labels     map[string]string `json:"Labels,omitempty"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	history struct {
		Created   time.Time `json:"created"`
		CreatedBy string    `json:"created_by"`
	}
	// archiveEntry is one image of manifest.json in a docker-archive.
	archiveEntry struct {
		Config   string   `json:"Config"`
		RepoTags []string `json:"RepoTags"`
		Layers   []string `json:"Layers"`
	}
)

// config returns what a runtime needs to know: the user, the program and the layer.
func (o Options) config(arch, layerDigest string, created time.Time) imageConfig {
	labels := map[string]string{}
	if o.Title != "" {
		labels["org.opencontainers.image.title"] = o.Title
	}
	if o.Version != "" {
		labels["org.opencontainers.image.version"] = o.Version
	}
	maps.Copy(labels, o.Labels)
	return imageConfig{
		Created: created, Architecture: arch, OS: "linux",
		Config: runConfig{
			User: fmt.Sprintf("%d:%d", UserID, GroupID), Entrypoint: []string{o.Path},
			WorkingDir: "/", Labels: labels,
		},
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{"sha256:" + layerDigest}},
		History: []history{{Created: created, CreatedBy: "static binary at " + o.Path}},
	}
}

// writeArchive writes manifest.json, the config and the layer under the names engines expect.
func writeArchive(w io.Writer, tag string, config, root []byte, created time.Time) error {
	configName, layerName := digest(config)+".json", digest(root)+".tar"
	manifest, err := json.Marshal([]archiveEntry{{
		Config: configName, RepoTags: []string{tag}, Layers: []string{layerName},
	}})
	if err != nil {
		return fmt.Errorf("encode the archive's manifest: %w", err)
	}
	archive := tar.NewWriter(w)
	for _, e := range []entry{
		{name: "manifest.json", mode: 0o444, data: manifest},
		{name: configName, mode: 0o444, data: config},
		{name: layerName, mode: 0o444, data: root},
	} {
		if err := addEntry(archive, e, created); err != nil {
			return fmt.Errorf("archive entry %s: %w", e.name, err)
		}
	}
	return archive.Close()
}

// digest returns the SHA-256 of b in hexadecimal.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
