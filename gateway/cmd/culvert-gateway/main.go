// Command culvert-gateway is the cluster's end of the culvert: it serves the Peers of its
// namespace over WireGuard and dials services and pods for them with ordinary sockets.
//
//	API: Peers, Policy ◄──► peers, policystatus, subnets ──► egress
//	                              │                            ▼
//	port-forward ──► carrier ──► wgdev ──► dataplane ──► pods, services
//	                                          └──► dnsforward ──► cluster DNS
//
// `culvert-gateway agent` is the same packet path inside one pod of a workload, where nodes enrol by themselves
// (package agent).
//
// This package only reads the command line and puts the parts together; none of them is decided here.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/internal/version"
)

// Exit codes, as everywhere in Culvert.
const (
	exitDone    = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run is main without the process: it serves until ctx ends and returns the exit code.
func run(ctx context.Context, args []string, env func(string) (string, bool), stdout, stderr io.Writer) int {
	if len(args) == 1 && (args[0] == "version" || args[0] == "--version") {
		fmt.Fprintln(stdout, "culvert-gateway", version.Version)
		return exitDone
	}
	if len(args) > 0 && args[0] == "agent" {
		return runAgent(ctx, args[1:], env, stdout, stderr)
	}
	o, err := parseOptions(args, env)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprint(stdout, usage())
		return exitDone
	}
	if err != nil {
		fmt.Fprintln(stderr, "error:", strings.ReplaceAll(err.Error(), "\n", "\nerror: "))
		fmt.Fprintln(stderr, "hint:  culvert-gateway --help shows what is accepted")
		return exitUsage
	}
	log := o.newLogger(stderr)
	if err := serve(ctx, o, log); err != nil {
		log.Error("the gateway stops", "err", err)
		return exitFailure
	}
	log.Info("the gateway has stopped")
	return exitDone
}
