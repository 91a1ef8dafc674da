package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/culvert-dev/culvert/scripts/lab/internal/build"
	"github.com/culvert-dev/culvert/scripts/lab/internal/image"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

// Image names, all under a registry that does not exist: nothing can be pulled.
const (
	pauseImage   = "lab.local/pause:v1"
	corednsImage = "lab.local/coredns:v1.15.0"
	labnetImage  = "lab.local/labnet:v1"
)

// writeImages makes the archives of the lab's own images and returns their
// paths.
func writeImages(l *state.Lab, bin build.Binaries) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	images := []image.Image{
		{Name: pauseImage, Files: map[string]string{"/pause": bin["pause"]}, Entrypoint: []string{"/pause"}, User: "65535:65535"},
		{Name: labnetImage, Files: map[string]string{"/labnet": self}, Entrypoint: []string{"/labnet"}, User: "65532:65532"},
		{Name: corednsImage, Files: map[string]string{"/coredns": bin["coredns"]}, Entrypoint: []string{"/coredns"}},
	}
	var paths []string
	for i, m := range images {
		path := l.Path("images", fmt.Sprintf("%d.tar", i))
		if err := writeImage(path, m); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func writeImage(path string, m image.Image) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := m.Write(file); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// LoadImage imports an image archive (docker-archive or OCI) on every node and
// returns what the import printed.
func LoadImage(ctx context.Context, l *state.Lab, bin build.Binaries, archive string) (string, error) {
	var printed string
	for i := 1; i <= l.Options.Nodes; i++ {
		// ctr speaks to the node's socket; the archive is the machine's file.
		cmd := exec.CommandContext(ctx, bin["ctr"], "--address", Socket(l, topology.Node(i)), "--namespace", "k8s.io",
			"images", "import", archive)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("import %s on %s: %w\n%s", archive, topology.Node(i), err, out)
		}
		printed = string(out)
	}
	return printed, nil
}
