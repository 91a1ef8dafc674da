// Command culvert-deploy installs the gateway in a cluster, upgrades it, removes it and reports on
// it. People run it as `culvert gateway`; it is a program of its own because it links Helm, which
// the processes that keep running must not pay for.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/culvert-dev/culvert/node/failure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(int(code))
}

// streams are where the command reads and writes: results on out, progress and errors on err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) failure.Code {
	root := newRoot(commandName(), s)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return failure.OK
	}
	f := failure.Of(err)
	fmt.Fprintln(s.err, "error:", f.Text)
	if f.Hint != "" {
		fmt.Fprintln(s.err, "hint: ", f.Hint)
	}
	if f.Code == failure.OK {
		return failure.General
	}
	return f.Code
}

// commandName is what the usage text calls this program: the culvert command sets the variable when
// it runs it as its own subcommand.
func commandName() string {
	if name := os.Getenv("CULVERT_COMMAND_NAME"); name != "" {
		return name
	}
	return "culvert-deploy"
}
