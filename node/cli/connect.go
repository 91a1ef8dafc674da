package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/report"
)

const connectLong = `Connect this workstation to a cluster: its pods, services and names work from every
program until ` + "`culvert quit`" + `. The command returns when the tunnel stands.

Where a network of this host, such as a VPN, already routes addresses of the cluster,
nothing is changed: the overlaps are listed with their owners, and the exit code is 3.
With --on-conflict virtualize the other network keeps them, and the cluster's names
resolve to virtual addresses there; with --proxy-via SUBNET=gateway, or --vnat SUBNET
for short, a part of the cluster is reached by virtual addresses in any case.`

const connectExamples = `  sudo culvert connect
  sudo culvert connect --context staging -n shop
  sudo culvert connect --on-conflict virtualize
  sudo culvert connect --proxy-via all=gateway
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
	flags.BoolVar(&o.request.TrustPolicy, "trust-policy", false, "agree to what the cluster's Policy takes from this host's other networks; remembered")
	flags.BoolVar(&o.foreground, "foreground", false, "stay in the terminal, show the log, disconnect on Ctrl-C")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Second, "give up connecting after this time")
	flags.BoolVar(&o.request.Debug, "debug", false, "log in more detail")
	bindRequest(cmd, &o.request)
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
	status, err := converse(ctx, cmd, launched.Report, o.request)
	if err != nil {
		return o.notConnected(ctx, launched, err)
	}
	if err := renderConnected(cmd.OutOrStdout(), status); err != nil || !o.foreground {
		return err
	}
	return o.stay(ctx, cmd, launched)
}

// notConnected waits until the host is as it was and returns the error to tell.
func (o *connectOptions) notConnected(ctx context.Context, launched *helper.Launched, err error) error {
	if ctx.Err() != nil { // the result may have been under way: then the connection stands
		_ = quit(context.WithoutCancel(ctx), o.request.Name)
	}
	ended := launched.Wait()
	switch {
	case ctx.Err() != nil:
		return failure.Newf(failure.General, "interrupted; nothing remains on this host")
	case errors.Is(err, errNoWord):
		return failure.New(failure.General, fmt.Errorf("%w (%v); the host is as it was", err, firstLine(ended)), "see `culvert logs`")
	}
	return err
}

// firstLine returns the first line of what Launched.Wait says: that about the user half.
func firstLine(err error) string {
	if err == nil {
		return "without an error"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// quitTimeout bounds asking a connection to end.
const quitTimeout = 15 * time.Second

// quit ends a connection; one that does not run is no error.
func quit(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	err := api.NewClient(socketPath(name)).Quit(ctx)
	if errors.Is(err, api.ErrNotRunning) {
		return nil
	}
	return err
}

// complete checks what can be checked before anything is started.
func (o *connectOptions) complete(cmd *cobra.Command) error {
	if err := completeRequest(cmd, &o.request); err != nil {
		return err
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

// errNoWord is matched when the user half ended before it had a result.
var errNoWord = errors.New("the user half ended without a word")

// converse sends the request and follows the user half until it has a result.
func converse(ctx context.Context, cmd *cobra.Command, rw io.ReadWriteCloser, request report.Request) (api.Status, error) {
	channel := report.NewChannel(rw)
	if err := channel.Send(request); err != nil {
		return api.Status{}, fmt.Errorf("%w: %w", errNoWord, err)
	}
	progress := newProgress(cmd.ErrOrStderr())
	defer progress.done()
	for {
		var m report.Message
		if err := channel.Receive(&m); err != nil {
			return api.Status{}, errNoWord
		}
		switch {
		case m.Question != "":
			progress.done()
			yes, err := ask(ctx, cmd.InOrStdin(), cmd.ErrOrStderr(), m.Question)
			if err != nil {
				return api.Status{}, err
			}
			if err := channel.Send(report.Answer{Yes: yes}); err != nil {
				return api.Status{}, errNoWord
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

// ask puts a yes-or-no question; anything but yes is no. A terminal cannot be made to return from a
// read, so when ctx ends the reader is left behind, for the rest of the process.
func ask(ctx context.Context, in io.Reader, out io.Writer, question string) (bool, error) {
	fmt.Fprintf(out, "%s [y/N] ", question) //nolint:errcheck // the terminal is gone
	answer := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			line = ""
		}
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case text := <-answer:
		return text == "y" || text == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(out) //nolint:errcheck // the terminal is gone
		return false, ctx.Err()
	}
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
		return whyEnded(o.request.Name, err)
	case <-ctx.Done():
	}
	if err := quit(context.WithoutCancel(ctx), o.request.Name); err != nil {
		return err
	}
	<-ended
	return nil
}

// whyEnded returns the reason that a connection left behind when it ended by itself; err is what
// became of its processes.
func whyEnded(name string, err error) error {
	if err == nil {
		return nil
	}
	code := failure.General
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		code = failure.Code(exit.ExitCode())
	}
	if last, ok := lastWords(name); ok && last.Reason != "" {
		return failure.Newf(code, "the connection has ended: %s", last.Reason)
	}
	return failure.Newf(code, "the connection has ended (%s); the host is as it was", firstLine(err)).WithHint("see `culvert logs`")
}
