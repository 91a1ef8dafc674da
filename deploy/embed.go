package deploy

import (
	"embed"
	"io/fs"
)

//go:embed all:chart/culvert
var chart embed.FS

//go:embed crds/*.yaml
var crds embed.FS

// Chart returns the files of the Helm chart, its Chart.yaml at the root.
func Chart() fs.FS { return subtree(chart, "chart/culvert") }

// CRDs returns the custom resource definitions, one YAML file each. They are not part of the chart:
// Helm would install them once and never bring them up to date.
func CRDs() fs.FS { return subtree(crds, "crds") }

// subtree returns the folder dir of an embedded file system.
func subtree(files embed.FS, dir string) fs.FS {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // only an invalid path, and both are constants
	}
	return sub
}
