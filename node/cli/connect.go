package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/config"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/report"
)

const connectLong = `Connect this workstation to a cluster: its pods, services and names work from every
program until ` + "`culvert quit`" + `. The command returns when the tunnel stands.

Where a network of this host, such as a VPN, already routes addresses of the cluster,
nothing is changed: the overlaps are listed with their owners, and the exit code is 3.`

const connectExamples = `  sudo culvert connect
  sudo culvert connect --context staging -n shop
  sudo culvert connect --allow-conflicting-subnets 10.130.0.0/16,10.132.0.0/16
  sudo culvert connect -f culvert.yaml --foreground`

type connectOptions struct {
	request    report.Request
	timeout    time.Duration
	foreground bool
}

func newConnect() *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:     "connect",
		Short:   "Connect this workstation to a cluster",
		Long:    connectLong,
		Example: connectExamples,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	flags := cmd.Flags()
	bindName(cmd, &o.request.Name)
	flags.StringVarP(&o.request.ConfigFile, "config", "f", "", "file with settings; see config.example.yaml")
	flags.BoolVar(&o.request.TrustPolicy, "trust-policy", false, "agree to what the cluster's Policy takes from this host's other networks; remembered")
	flags.BoolVar(&o.foreground, "foreground", false, "stay in the terminal, show the log, disconnect on Ctrl-C")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Second, "give up connecting after this time")
	flags.BoolVar(&o.request.Debug, "debug", false, "log in more detail")
	config.BindFlags(flags)
	o.request.Kube.BindFlags(flags)
	return cmd
}

func (o *connectOptions) run(cmd *cobra.Command) error {
	if err := o.complete(cmd); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	user, err := helper.InvokingUser(os.Getenv)
	if err != nil {
		return err
	}
	launched, err := helper.Launch(helper.LaunchOptions{
		Name: o.request.Name,
		User: user,
		Log:  slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)),
	})
	if err != nil {
		return launchFailure(o.request.Name, err)
	}
	defer launched.Report.Close() //nolint:errcheck // the conversation is over
	// Ctrl-C closes the conversation; the user half then gives up and takes everything back.
	defer context.AfterFunc(ctx, func() { launched.Report.Close() })() //nolint:errcheck // see above
	status, err := converse(cmd, launched.Report, o.request)
	if err != nil {
		waitErr := launched.Wait() // the host is restored before the command returns
		if ctx.Err() != nil {
			return failure.Newf(failure.General, "interrupted; nothing remains on this host")
		}
		var exit interface{ ExitCode() int }
		if errors.Is(err, io.EOF) && !errors.As(waitErr, &exit) {
			err = errors.Join(err, waitErr)
		}
		return err
	}
	if err := renderConnected(cmd.OutOrStdout(), status); err != nil || !o.foreground {
		return err
	}
	return o.stay(ctx, cmd, launched)
}

// complete checks what can be checked before anything is started.
func (o *connectOptions) complete(cmd *cobra.Command) (err error) {
	if err := checkName(o.request.Name); err != nil {
		return err
	}
	o.request.Flags, o.request.Environment, err = config.FromCommand(cmd.Flags())
	if err != nil {
		return failure.New(failure.Usage, err, "")
	}
	o.request.Foreground = o.foreground
	o.request.TimeoutSeconds = int(o.timeout.Seconds())
	if o.request.TimeoutSeconds < 1 {
		return failure.Newf(failure.Usage, "--timeout %s: give at least one second", o.timeout)
	}
	o.request.Interactive = term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd()))
	return nil
}

func launchFailure(name string, err error) error {
	switch {
	case errors.Is(err, helper.ErrNotRoot):
		return failure.New(failure.Permission, errors.New("connect needs root to make the interface, routes and resolver entry"),
			"run `sudo culvert connect`; your kubeconfig and its plugins are still used as you, not as root")
	case errors.Is(err, helper.ErrRunning):
		return failure.Newf(failure.General, "connection %s is running already", name).
			WithHint("see `culvert status`; end it with `culvert quit`, or give this one another --name")
	}
	return err
}

// converse sends the request and follows the user half until it has a result.
func converse(cmd *cobra.Command, rw io.ReadWriteCloser, request report.Request) (api.Status, error) {
	channel := report.NewChannel(rw)
	if err := channel.Send(request); err != nil {
		return api.Status{}, fmt.Errorf("speak to the user half: %w", err)
	}
	progress := newProgress(cmd.ErrOrStderr())
	defer progress.done()
	for {
		var m report.Message
		if err := channel.Receive(&m); err != nil {
			return api.Status{}, failure.New(failure.General, fmt.Errorf("the user half ended without a word: %w", err), "see `culvert logs`")
		}
		switch {
		case m.Question != "":
			progress.done()
			if err := channel.Send(report.Answer{Yes: ask(cmd, m.Question)}); err != nil {
				return api.Status{}, fmt.Errorf("speak to the user half: %w", err)
			}
		case m.Result != nil && m.Result.Failure != nil:
			return api.Status{}, m.Result.Failure
		case m.Result != nil && m.Result.Status != nil:
			return *m.Result.Status, nil
		default:
			progress.show(m.Progress)
		}
	}
}

// ask puts a yes-or-no question; anything but yes is no.
func ask(cmd *cobra.Command, question string) bool {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question) //nolint:errcheck // the terminal is gone
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return err == nil && (answer == "y" || answer == "yes")
}

// stay keeps the terminal until the connection ends, and ends it on Ctrl-C.
func (o *connectOptions) stay(ctx context.Context, cmd *cobra.Command, launched *helper.Launched) error {
	ended := make(chan error, 1)
	go func() { ended <- launched.Wait() }() // ends with the two processes, which the code below waits for
	follow, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()
	logged := make(chan error, 1)
	go func() { logged <- followFile(follow, nodeLog(o.request.Name), cmd.ErrOrStderr()) }() // ends with stopFollowing
	defer func() { stopFollowing(); <-logged }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	quit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if err := api.NewClient(socketPath(o.request.Name)).Quit(quit); err != nil && !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	<-ended
	return nil
}
