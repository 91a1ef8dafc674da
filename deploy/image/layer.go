package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"time"
)

// The user and group the binary runs as: the number distroless images call "nonroot", so that Pod
// Security's runAsNonRoot can be checked from the number alone.
const (
	UserID  = 65532
	GroupID = 65532
)

// passwd and group give the numbers a name for programs that look themselves up.
const (
	passwd = "root:x:0:0:root:/:/nonexistent\nculvert:x:65532:65532:culvert:/:/nonexistent\n"
	group  = "root:x:0:\nculvert:x:65532:\n"
)

// entry is one file or directory of the layer; owned by root, so that the program cannot change it.
type entry struct {
	name string
	mode int64
	data []byte // nil for a directory
}

// layer returns an uncompressed tar of the root file system: the binary at path and the two files
// that name its user. Entries are sorted and carry modTime, nothing of the machine that built it.
func layer(path string, binary []byte, modTime time.Time) ([]byte, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, e := range []entry{
		{name: path, mode: 0o555, data: binary},
		{name: "etc/", mode: 0o755},
		{name: "etc/group", mode: 0o444, data: []byte(group)},
		{name: "etc/passwd", mode: 0o444, data: []byte(passwd)},
	} {
		if err := addEntry(archive, e, modTime); err != nil {
			return nil, fmt.Errorf("layer entry %s: %w", e.name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("finish the layer: %w", err)
	}
	return out.Bytes(), nil
}

// addEntry writes one entry in the USTAR form, which holds no access or change times.
func addEntry(archive *tar.Writer, e entry, modTime time.Time) error {
	header := &tar.Header{
		Name: e.name, Mode: e.mode, Size: int64(len(e.data)),
		ModTime: modTime, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
	}
	if e.data == nil {
		header.Typeflag = tar.TypeDir
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(e.data)
	return err
}
