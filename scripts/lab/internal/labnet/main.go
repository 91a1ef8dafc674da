// Package labnet is the lab's network program: the echo server that runs in the
// cluster's pods, and clients that load it and print figures as JSON. It is
// `lab labnet` on the machine and /labnet inside the workload image.
package labnet

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// command is one subcommand. run gets its parsed flags' remaining arguments.
type command struct {
	name, args, about string
	setup             func(f *flag.FlagSet) func(ctx context.Context, args []string) (any, error)
}

var commands = []command{
	{"server", "", "serve everything the clients below use, until stopped", setupServer},
	{"up", "HOST:PORT", "TCP throughput towards a discard port (7010)", setupUp},
	{"down", "HOST:PORT", "TCP throughput from a source port (7011)", setupDown},
	{"udp", "HOST:PORT", "UDP echo (7000): loss and round trips", setupUDP},
	{"connections", "HOST:PORT", "many TCP connections at once, each echoing (7000)", setupConnections},
	{"short", "HOST:PORT", "short TCP connections in a row, closed by client (7000) or server (7001)", setupShort},
	{"pingpong", "HOST:PORT", "TCP round trips of small messages on one connection (7000)", setupPingPong},
	{"http", "URL", "GETs, each on a new connection", setupHTTP},
	{"put", "URL", "PUTs of random bodies that must come back byte-identical (/upload)", setupPut},
	{"reached", "PATTERN:PORT", "reach names that differ in a number, or an address (7002): does the right one answer?", setupReached},
	{"session", "HOST:PORT", "one TCP connection echoing at an interval (7000): does it live through a gap?", setupSession},
	{"hold", "HOST:PORT", "idle and busy TCP connections (7000) kept until each is ended by others", setupHold},
	{"stall", "HOST:PORT", "open connections to a source port (7011) and never read", setupStall},
}

// Main runs labnet with args and returns its exit code: 0 success, 1 something
// failed (the figures are printed all the same), 2 wrong usage.
func Main(args []string) int {
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		usage(os.Stdout)
		return 0
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.main(args[1:])
		}
	}
	fmt.Fprintf(os.Stderr, "labnet: no command %q\n\n", args[0])
	usage(os.Stderr)
	return 2
}

func usage(out io.Writer) {
	fmt.Fprint(out, "labnet serves and measures network connections. Clients print one JSON object;\n"+
		"durations are milliseconds, rates are bits or operations per second. Exit code 0:\n"+
		"all succeeded; 1: some did not.\n\nusage: labnet COMMAND [FLAGS] [TARGET]   (labnet COMMAND --help shows its flags)\n\n")
	for _, c := range commands {
		fmt.Fprintf(out, "  %-28s %s\n", strings.TrimSpace(c.name+" "+c.args), c.about)
	}
	_, _ = io.WriteString(out, `
examples:
  labnet up --duration 5s echo.default:7010
  labnet connections --count 1000 echo.default:7000
  labnet short --count 20000 --close server echo.default:7001
  labnet udp --size 9000 --count 100 echo.default:7000
  labnet reached --count 100 --first 10.132.128.0 e%d.many.default.svc.cluster.local:7002
  labnet put --size 20971520 --count 13 --parallel 13 http://echo.default/upload

The server's ports: 8080 HTTP (/ /ip /bytes?n=N /upload /sha /slow?ms=N /close /healthz),
7000 TCP and UDP echo, 7001 writes a line and closes, 7002 (TCP and UDP) tells the
address it was reached at, 7010 discards, 7011 sends without end, and 9999 on the
loopback alone answers a fixed text.
`)
}

func (c command) main(args []string) int {
	f := flag.NewFlagSet("labnet "+c.name, flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "usage: labnet %s [FLAGS] %s\n%s\n\n", c.name, c.args, c.about)
		f.PrintDefaults()
	}
	run := c.setup(f)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	wanted := 0
	if c.args != "" {
		wanted = 1
	}
	if f.NArg() != wanted {
		f.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := run(ctx, f.Args())
	if result != nil {
		raw, _ := json.Marshal(result)
		fmt.Println(string(raw))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "labnet %s: %v\n", c.name, err)
		return 1
	}
	return 0
}
