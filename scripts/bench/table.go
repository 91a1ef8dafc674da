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

// Each table in the file stands between these lines, of which the first has its name.
const (
	beginMark = "<!-- begin: %s, made by scripts/bench -->"
	endMark   = "<!-- end -->"
)

func unmarshal(r labctl.Result, into any) error {
	if err := json.Unmarshal([]byte(r.Out), into); err != nil {
		return fmt.Errorf("%w: %s", err, r)
	}
	return nil
}

// write puts a table into the file, or prints it.
func write(path, name, text string) error {
	if path == "-" {
		_, err := fmt.Print(text)
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin := fmt.Sprintf(beginMark, name)
	before, rest, found := strings.Cut(string(data), begin)
	_, after, foundEnd := strings.Cut(rest, endMark)
	if !found || !foundEnd {
		return fmt.Errorf("%s has no lines %q and %q", path, begin, endMark)
	}
	return os.WriteFile(path, []byte(before+begin+"\n"+text+endMark+after), 0o644)
}

// render makes a table. note follows the date and the machine; a row has one cell for each column.
func render(note string, columns []string, rows [][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %d cores, %s; %s\n\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOARCH, note)
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(columns)
	b.WriteString(strings.Repeat("| --- ", len(columns)) + "|\n")
	for _, r := range rows {
		line(r)
	}
	b.WriteString("\n")
	return b.String()
}

// load says how busy the machine is with other things, before a measurement: the load average of the last
// minute (proc_loadavg(5)); "" where there is none.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	average, _, _ := strings.Cut(string(data), " ")
	return "; load average " + average + " at the beginning"
}
