package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/culvert-dev/culvert/node/connection"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
	"github.com/culvert-dev/culvert/node/report"
)

// internalCommands are what the program starts itself as.
func internalCommands() []*cobra.Command {
	hidden := func(use string, run func(args []string) int) *cobra.Command {
		return &cobra.Command{
			Use: use, Hidden: true, DisableFlagParsing: true,
			RunE: func(_ *cobra.Command, args []string) error {
				if code := run(args); code != 0 {
					return exitCode(code)
				}
				return nil
			},
		}
	}
	return []*cobra.Command{
		hidden(helper.HelperCommand, helper.Main),
		hidden(helper.GuardCommand, helper.GuardMain),
		hidden(helper.NodeCommand, nodeMain),
	}
}

// nodeMain is the user half. Its log goes to the standard error stream.
func nodeMain([]string) int {
	level := new(slog.LevelVar)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := runNode(log, level); err != nil {
		log.Error("the connection ended", "err", err)
		return int(failure.Of(err).Code)
	}
	return 0
}

func runNode(log *slog.Logger, level *slog.LevelVar) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	client, err := helper.NewClient(ctx, os.NewFile(helper.NodeHelperFD, "helper"))
	if err != nil {
		return err
	}
	command, listener, err := inherited()
	if err != nil {
		return err
	}
	defer command.Close() //nolint:errcheck // the process ends
	channel := report.NewChannel(command)
	var request report.Request
	if err := channel.Receive(&request); err != nil {
		return fmt.Errorf("hear what to do: %w", err)
	}
	if request.Debug {
		level.Set(slog.LevelDebug)
	}
	klog.SetSlogLogger(log.With("from", "client-go"))
	session := connection.NewSession(connection.Options{Request: request, Channel: channel, Helper: client, Log: log})
	return session.Run(ctx, listener)
}

// inherited returns the descriptors that the process was started with.
func inherited() (command net.Conn, listener net.Listener, err error) {
	reportFile := os.NewFile(helper.NodeReportFD, "report")
	apiFile := os.NewFile(helper.NodeAPIFD, "api")
	command, err = net.FileConn(reportFile)
	if err != nil {
		return nil, nil, fmt.Errorf("socket to the command: %w", err)
	}
	listener, err = net.FileListener(apiFile)
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	return command, listener, errors.Join(reportFile.Close(), apiFile.Close())
}
