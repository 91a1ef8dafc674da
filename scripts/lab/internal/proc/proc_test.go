package proc

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestAliveTellsARecycledPID(t *testing.T) {
	start, err := StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p := Process{Name: "self", PID: os.Getpid(), Start: start}
	if !p.Alive() {
		t.Error("this process is not alive")
	}
	p.Start++
	if p.Alive() {
		t.Error("a process that started at another time is taken for ours")
	}
	if err := p.Signal(9); err != nil {
		t.Errorf("signalling it: %v", err) // and this test lives on
	}
}

func TestStopByName(t *testing.T) {
	// A child that ignores the polite signal.
	cmd := exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	start, err := StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	book := Book{Dir: t.TempDir()}
	if err := book.Add(Process{Name: "child", PID: cmd.Process.Pid, Start: start}); err != nil {
		t.Fatal(err)
	}
	if err := book.StopByName("child", 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	<-ended
	if all := book.All(); len(all) != 0 {
		t.Errorf("still recorded: %v", all)
	}
	if err := book.StopByName("child", time.Second); err != nil {
		t.Errorf("stopping it again: %v", err)
	}
}

func TestParseHierarchy(t *testing.T) {
	tests := []struct {
		line string
		want hierarchy
		ok   bool
	}{
		{"36 25 0:30 / /sys/fs/cgroup/pids rw,relatime shared:15 - cgroup cgroup rw,pids", hierarchy{mount: "/sys/fs/cgroup/pids", controllers: "rw,pids"}, true},
		{"25 20 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", hierarchy{mount: "/sys/fs/cgroup", v2: true}, true},
		{"22 1 8:1 / / rw - ext4 /dev/sda1 rw", hierarchy{}, false},
		{"garbage", hierarchy{}, false},
	}
	for _, tt := range tests {
		got, ok := parseHierarchy(tt.line)
		if got != tt.want || ok != tt.ok {
			t.Errorf("parseHierarchy(%q) = %+v, %v", tt.line, got, ok)
		}
	}
}
