package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// The table in the file stands between these lines.
const (
	beginMark = "<!-- begin: made by scripts/bench -->"
	endMark   = "<!-- end -->"
)

func unmarshal(r labctl.Result, into any) error {
	if err := json.Unmarshal([]byte(r.Out), into); err != nil {
		return fmt.Errorf("%w: %s", err, r)
	}
	return nil
}

// write puts the table into the file, or prints it.
func write(path string, rows []row) error {
	table := render(rows)
	if path == "-" {
		_, err := fmt.Print(table)
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(data), beginMark)
	_, after, foundEnd := strings.Cut(rest, endMark)
	if !found || !foundEnd {
		return fmt.Errorf("%s has no lines %q and %q", path, beginMark, endMark)
	}
	return os.WriteFile(path, []byte(before+beginMark+"\n"+table+endMark+after), 0o644)
}

func render(rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %d cores, %s; median of %d\n\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOARCH, repeats)
	b.WriteString("| | bare veth | kubectl port-forward | culvert, apiserver |\n| --- | --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.what, r.bare, r.pf, r.ours)
	}
	b.WriteString("\n")
	return b.String()
}
