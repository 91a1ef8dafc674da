// Package labctl drives the lab (scripts/lab) for scenarios and benchmarks: it runs the lab's program
// and commands on the lab's hosts, and installs the gateway of this build.
package labctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Result is what a command left behind. Code is -1 for one that could not be run or took too long.
type Result struct {
	Out, Err string
	Code     int
	Took     time.Duration
}

// String shows all of it, for the message of a failed test.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d after %s\nstdout:\n%s\nstderr:\n%s", r.Code, r.Took.Round(time.Millisecond), r.Out, r.Err)
}

// OK returns nil if the command succeeded, else all that it said.
func (r Result) OK() error {
	if r.Code != 0 {
		return errors.New(r.String())
	}
	return nil
}

// Run runs a program of this machine with a text on its standard input, for at most timeout.
func Run(timeout time.Duration, input, name string, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	begin := time.Now()
	err := cmd.Run()
	r := Result{Out: out.String(), Err: errs.String(), Took: time.Since(begin)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		r.Code, r.Err = -1, r.Err+err.Error()
	}
	return r
}
