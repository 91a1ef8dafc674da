// Command lab brings up a real Kubernetes cluster, a workstation, a router and
// a corporate VPN in network namespaces of one Linux machine, and takes them
// down without a trace. README.md shows the topology and the commands.
package main

import (
	"os"
	"path/filepath"

	"github.com/culvert-dev/culvert/scripts/lab/internal/cli"
	"github.com/culvert-dev/culvert/scripts/lab/internal/labnet"
)

func main() {
	// The same static binary is the program inside the lab's workload image.
	if filepath.Base(os.Args[0]) == "labnet" {
		os.Exit(labnet.Main(os.Args[1:]))
	}
	os.Exit(cli.Main(os.Args[1:]))
}
