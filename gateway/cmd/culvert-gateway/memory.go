package main

import (
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitFiles are where a container finds its memory limit, of control groups version 2 and 1.
var limitFiles = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}

// limitMemory makes the garbage collector work harder before the container's limit is reached, unless
// GOMEMLIMIT says otherwise. A tenth is left to what the collector does not see.
func limitMemory(log *slog.Logger) {
	if _, set := os.LookupEnv("GOMEMLIMIT"); set {
		return
	}
	for _, file := range limitFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, ok := memoryLimit(string(text)); ok {
			debug.SetMemoryLimit(limit / 10 * 9)
			log.Debug("memory limit", "bytes", limit, "from", file)
		}
		return
	}
}

// memoryLimit reads a control group's limit in bytes; "max" and version 1's enormous number mean none.
func memoryLimit(text string) (int64, bool) {
	limit, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return limit, err == nil && limit > 0 && limit < math.MaxInt64/2
}
