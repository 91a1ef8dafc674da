// Command bench measures whole paths on the lab, each beside named baselines of the same run, and
// rewrites the table in docs/benchmarks.md: bare veth (the node reaching a pod of its own), and
// kubectl port-forward. Figures are to be read as ratios: machines are noisy.
//
//	ws ── culvert0 ══ API server ══ gateway ── echo pod        ours
//	ws ── kubectl port-forward ── API server ── echo pod       pf
//	node1 ── veth ── echo pod                                  bare
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

func main() {
	name := flag.String("lab", "", "lab that is up already; by default one is brought up and taken down")
	out := flag.String("o", "docs/benchmarks.md", "file whose table is replaced; - prints it")
	flag.Parse()
	if err := run(*name, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(name, out string) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	l := &labctl.Lab{Name: name, Bin: bin}
	if name == "" {
		l.Name = "bench"
		defer l.Run(2*time.Minute, "down")
		if err := l.Run(30*time.Minute, "up", "--vpn", "none").OK(); err != nil {
			return fmt.Errorf("lab up: %w", err)
		}
	}
	if err := l.Prepare(); err != nil {
		return err
	}
	rows, err := measure(l)
	if err != nil {
		return err
	}
	return write(out, rows)
}
