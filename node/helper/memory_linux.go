package helper

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is a part of this process's memory, from smaps (proc(5)).
type mapping struct {
	start, end uintptr
	file       bool // maps a file, and this process cannot write to it
	dirty      bool // holds something that the file does not
}

// slim gives memory back that a waiting process does not need: what the garbage collector has freed, and
// its view of the program file, of which starting up touched most. The pages stay in the page cache and
// come back when used. Only pages equal to the file's are let go. Failing costs nothing but memory.
func slim() {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range parseMappings(f) {
		if m.file && !m.dirty {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
		}
	}
}

// parseMappings reads smaps.
func parseMappings(r io.Reader) []mapping {
	var out []mapping
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		var m mapping
		if n, _ := fmt.Sscanf(fields[0], "%x-%x", &m.start, &m.end); n == 2 {
			m.file = len(fields) >= 6 && strings.HasPrefix(fields[5], "/") && strings.HasPrefix(fields[1], "r-")
			out = append(out, m)
			continue
		}
		switch fields[0] {
		case "Anonymous:", "Swap:": // a private copy; the rest is the page cache's
			if len(out) > 0 && fields[1] != "0" {
				out[len(out)-1].dirty = true
			}
		}
	}
	return out
}
