// Command bench measures, each beside named baselines of the same run, and rewrites the tables of
// docs/benchmarks.md. Figures are to be read as ratios: machines are noisy.
//
//	paths    whole paths on the lab, beside bare veth (the node reaching a pod of its own) and
//	         kubectl port-forward
//	virtual  by virtual address and natively, in turn, through one connection
//	names    names resolved for the first time, asked of the cluster's resolver and of ours
//	costs    connecting, and memory, with and without virtual addresses
//	parts    the benchmarks beside the code; these need no lab
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
	"slices"
	"strings"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// table is one table of the file.
type table struct {
	name string
	lab  bool // whether make needs one; l is nil otherwise
	make func(l *labctl.Lab) (string, error)
}

var tables = []table{
	{"paths", true, paths},
	{"virtual", true, virtual},
	{"names", true, names},
	{"costs", true, costs},
	{"parts", false, parts},
}

func main() {
	name := flag.String("lab", "", "lab that is up already; by default one is brought up and taken down")
	only := flag.String("only", "", "tables to make, separated by commas; by default all")
	out := flag.String("o", "docs/benchmarks.md", "file whose tables are replaced; - prints them")
	flag.Parse()
	if err := run(*name, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(name, only, out string) error {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	var l *labctl.Lab
	if slices.ContainsFunc(chosen, func(t table) bool { return t.lab }) {
		var done func()
		if l, done, err = openLab(name); err != nil {
			return err
		}
		defer done()
	}
	for _, t := range chosen {
		text, err := t.make(l)
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		if err := write(out, t.name, text); err != nil {
			return err
		}
	}
	return nil
}

// choose returns the tables of a list of names; of an empty one, all.
func choose(only string) ([]table, error) {
	if only == "" {
		return tables, nil
	}
	var chosen []table
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(tables, func(t table) bool { return t.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %s: no such table", name)
		}
		chosen = append(chosen, tables[i])
	}
	return chosen, nil
}

// openLab prepares the lab of that name, or one of its own that done takes down.
func openLab(name string) (l *labctl.Lab, done func(), err error) {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return nil, nil, err
	}
	l, done = &labctl.Lab{Name: name, Bin: bin}, func() {}
	if name == "" {
		l.Name = "bench"
		done = func() { l.Run(2*time.Minute, "down") }
		if err := l.Run(30*time.Minute, "up", "--vpn", "none").OK(); err != nil {
			return nil, nil, fmt.Errorf("lab up: %w", err)
		}
	}
	if err := l.Prepare(); err != nil {
		done()
		return nil, nil, err
	}
	return l, done, nil
}

// progress tells who waits what was found.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
