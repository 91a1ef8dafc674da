package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/culvert-dev/culvert/gateway/agent"
	"github.com/culvert-dev/culvert/internal/version"
)

const agentHeader = `culvert-gateway agent lets workstations reach what this pod reaches, as this pod.

It runs beside a workload's own containers, as an ephemeral container that ` + "`culvert connect --proxy-via`" + `
adds or as a container of the pod's template. It listens on the pod's loopback alone, which those
reach who may forward ports of the pod; workstations enrol there and say which prefixes they want,
127.0.0.0/8 and ::1 included. It needs no credentials and no configuration, and writes no file.

Usage:
  culvert-gateway agent [flags]

Examples:
  # as a workstation starts it
  culvert-gateway agent

  # in a pod's template, there to stay, beside a program that has the usual ports
  culvert-gateway agent --idle 0 --carrier-port 9841 --control-port 9842

Flags:
`

const agentFooter = `
Environment by the downward API: POD_UID, which workstations compare. GOMEMLIMIT defaults to nine tenths
of the container's memory limit, or of 128 MiB where it has none; the agent leaves at twice that.

Exit codes: 0 it was told to stop or nobody needed it, 1 failure, 2 usage. The reason is the container's
termination message.
`

// terminationLog is the file of which Kubernetes makes the container's termination message.
const terminationLog = "/dev/termination-log"

// agentMemory is what an agent takes for its container's limit where there is none, in bytes: an ephemeral
// container cannot have one.
const agentMemory = 128 << 20

// forever is what --idle 0 means.
const forever = time.Duration(math.MaxInt64)

// agentOptions are the command line of an agent, checked.
type agentOptions struct {
	agent.Config
	logging
	servers []string
}

func (o *agentOptions) flagSet() *pflag.FlagSet {
	f := pflag.NewFlagSet("culvert-gateway agent", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SortFlags = false
	f.Usage = func() {}
	f.Uint16Var(&o.CarrierPort, "carrier-port", agent.CarrierPort, "`port` on the pod's loopback for the packets of workstations")
	f.Uint16Var(&o.ControlPort, "control-port", agent.ControlPort, "`port` on the pod's loopback where workstations enrol")
	f.DurationVar(&o.Idle, "idle", agent.Idle, "`time` without a word of any workstation after which the agent ends; 0 means never")
	f.IntVar(&o.MTU, "mtu", 1420, "largest inner IP packet in `bytes`, 1280 to 9000")
	f.StringSliceVar(&o.servers, "nameservers", nil, "`addresses` that are asked for names, with a port unless it is 53 (default from the pod's resolv.conf)")
	f.StringVar(&o.ResolvConf, "resolv-conf", "/etc/resolv.conf", "the pod's resolv.conf, a `file`")
	o.logging.flags(f)
	return f
}

func agentUsage() string {
	return agentHeader + new(agentOptions).flagSet().FlagUsagesWrapped(100) + agentFooter
}

// parseAgentOptions reads args, and the pod's UID from the environment.
func parseAgentOptions(args []string, env func(string) (string, bool)) (o agentOptions, err error) {
	f := o.flagSet()
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	o.PodUID, _ = env("POD_UID")
	var servers error
	o.Nameservers, servers = parseNameservers(o.servers)
	err = errors.Join(o.checkPorts(), o.checkIdle(), checkMTU(o.MTU), servers, o.logging.check())
	return o, err
}

func (o *agentOptions) checkPorts() error {
	if o.CarrierPort == 0 || o.ControlPort == 0 || o.CarrierPort == o.ControlPort {
		return fmt.Errorf("--carrier-port %d, --control-port %d: accepted are two different ports, 1 to 65535", o.CarrierPort, o.ControlPort)
	}
	return nil
}

// checkIdle bounds --idle from below: a workstation that changes networks needs a moment to come back.
func (o *agentOptions) checkIdle() error {
	switch {
	case o.Idle == 0:
		o.Idle, o.Check = forever, 10*time.Second
	case o.Idle < time.Minute:
		return fmt.Errorf("--idle %v: accepted are 0 (never) and a minute or more", o.Idle)
	}
	return nil
}

// runAgent serves until ctx ends or nobody needs the agent, and returns the exit code.
func runAgent(ctx context.Context, args []string, env func(string) (string, bool), stdout, stderr io.Writer) int {
	o, err := parseAgentOptions(args, env)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprint(stdout, agentUsage())
		return exitDone
	}
	if err != nil {
		fmt.Fprintln(stderr, "error:", strings.ReplaceAll(err.Error(), "\n", "\nerror: "))
		fmt.Fprintln(stderr, "hint:  culvert-gateway agent --help shows what is accepted")
		terminate(err.Error())
		return exitUsage
	}
	o.Log = o.newLogger(stderr)
	limitMemory(o.Log, agentMemory)
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64/2 {
		o.MaxMemory = 2 * uint64(limit)
	}
	switch err := serveAgent(ctx, o.Config); {
	case errors.Is(err, agent.ErrIdle):
		o.Log.Info("the agent leaves", "reason", err)
		terminate(err.Error())
	case err != nil:
		o.Log.Error("the agent stops", "err", err)
		terminate(err.Error())
		return exitFailure
	default:
		o.Log.Info("the agent has stopped")
		terminate("told to stop")
	}
	return exitDone
}

// serveAgent runs an agent.
func serveAgent(ctx context.Context, cfg agent.Config) error {
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// terminate leaves a line for those who ask what became of the container. Outside of one there is no such file.
func terminate(reason string) { leaveWord(terminationLog, reason) }

// leaveWord writes reason to the file, if it is there. Nothing is left to do about an error.
func leaveWord(file, reason string) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "culvert agent %s: %s\n", version.Version, strings.ReplaceAll(reason, "\n", "; "))
}
