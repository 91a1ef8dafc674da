package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// startPortForward runs the cluster's kubectl on the workstation, forwarding the echo pod's ports to
// the same with a 1 before, and returns when it answers. stop may be called twice.
func startPortForward(l *labctl.Lab) (stop func(), err error) {
	kubectl, err := findKubectl(l)
	if err != nil {
		return nil, err
	}
	argv := l.WSCommand(nil, kubectl, "port-forward", "deployment/echo",
		"17000:7000", "17001:7001", "17010:7010", "17011:7011", "18080:8080")
	cmd := exec.Command(argv[0], argv[1:]...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
	})
	for range 100 {
		if l.Labnet(2*time.Second, "pingpong", "--count", "1", "127.0.0.1:17000").Code == 0 {
			return stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return nil, errors.New("kubectl port-forward does not answer")
}

func findKubectl(l *labctl.Lab) (string, error) {
	r := l.Run(time.Minute, "status", "-o", "json")
	var status struct{ Cache string }
	if err := unmarshal(r, &status); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(status.Cache, "kubernetes-*", "kubectl"))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no kubectl below %s", status.Cache)
	}
	return found[len(found)-1], nil
}
