package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// processes are the ids of the processes of ours. The lab's hosts share this machine's.
type processes struct{ Node, Helper, Guard, Gateway int }

// findProcesses returns those of the running connection.
func findProcesses(l *labctl.Lab) (processes, error) {
	var status struct{ Processes processes }
	if err := unmarshal(l.WS(10*time.Second, "culvert", "status", "-o", "json"), &status); err != nil {
		return processes{}, err
	}
	var err error
	status.Processes.Gateway, err = findGateway(l)
	return status.Processes, err
}

// findGateway returns the gateway's process: of those of all labs, the one whose cgroup names the pod.
func findGateway(l *labctl.Lab) (int, error) {
	pod := l.Kubectl("-n", "culvert", "get", "pod", "culvert-gateway-0", "-o", "jsonpath={.metadata.uid}")
	if pod.Code != 0 || pod.Out == "" {
		return 0, fmt.Errorf("find the gateway's pod: %s", pod)
	}
	for text := range strings.FieldsSeq(l.Host(10*time.Second, "node1", "pgrep", "-f", "^/culvert-gateway").Out) {
		groups, err := os.ReadFile("/proc/" + text + "/cgroup")
		if err == nil && strings.Contains(string(groups), "pod"+strings.TrimSpace(pod.Out)) {
			return strconv.Atoi(text)
		}
	}
	return 0, errors.New("find the gateway's process: none is in the pod's cgroup")
}

// resident returns the bytes of VmRSS (proc_pid_status(5)).
func resident(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			return float64(kib) * 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of process %d", pid)
}

// processorTime returns what the threads of some processes have run for until now: the first figure of
// /proc/PID/task/TID/schedstat (Linux, Documentation/scheduler/sched-stats). Threads that have ended are not
// in it; Go's seldom do.
func processorTime(pids ...int) (time.Duration, error) {
	var total time.Duration
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(threads) == 0 {
			return 0, fmt.Errorf("processor time of process %d: no threads", pid)
		}
		for _, path := range threads {
			data, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				continue // it has just ended
			}
			if err != nil {
				return 0, err
			}
			run, _, _ := strings.Cut(string(data), " ")
			ns, err := strconv.ParseInt(run, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			total += time.Duration(ns)
		}
	}
	return total, nil
}
