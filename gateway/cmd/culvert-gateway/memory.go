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
// GOMEMLIMIT says otherwise. A tenth is left to what the collector does not see. Where the container has no
// limit, otherwise is taken for one, in bytes; 0 means none.
func limitMemory(log *slog.Logger, otherwise int64) {
	if _, set := os.LookupEnv("GOMEMLIMIT"); set {
		return
	}
	limit, from := containerLimit()
	if limit == 0 {
		limit, from = otherwise, "default"
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit / 10 * 9)
		log.Debug("memory limit", "bytes", limit, "from", from)
	}
}

// containerLimit returns the container's memory limit in bytes and where it was found; 0 is none.
func containerLimit() (limit int64, from string) {
	for _, file := range limitFiles {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, ok := memoryLimit(string(text)); ok {
			return limit, file
		}
		break
	}
	return 0, ""
}

// memoryLimit reads a control group's limit in bytes; "max" and version 1's enormous number mean none.
func memoryLimit(text string) (int64, bool) {
	limit, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return limit, err == nil && limit > 0 && limit < math.MaxInt64/2
}
