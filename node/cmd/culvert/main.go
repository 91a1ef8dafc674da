// Command culvert connects a workstation to a Kubernetes cluster over one WireGuard tunnel that gets
// along with the VPN already there. Run `culvert --help`.
package main

import (
	"context"
	"os"

	"github.com/culvert-dev/culvert/node/cli"
)

func main() { os.Exit(cli.Main(context.Background(), os.Args[1:])) }
