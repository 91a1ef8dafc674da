package helper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// Hidden subcommands that [Launch] and the helper start the program with.
const (
	HelperCommand = "__helper"
	GuardCommand  = "__guard"
	NodeCommand   = "__node"
)

// Descriptors that helper, guard and user half are started with.
const (
	fdPartner = 3 // helper: its end of the socketpair
	fdPipe    = 3 // guard: the pipe that closes with the helper
	fdLock    = 4 // helper and guard: the connection's lock

	// NodeHelperFD is the user half's end of the socketpair, for [NewClient].
	NodeHelperFD = 3
	// NodeReportFD is a socket to the command that started the user half.
	NodeReportFD = 4
	// NodeAPIFD is the listener of the control socket.
	NodeAPIFD = 5
)

// arguments returns the arguments for the hidden subcommands helper and guard.
func arguments(command, name string, paths Paths) ([]string, error) {
	text, err := json.Marshal(paths)
	if err != nil {
		return nil, fmt.Errorf("encode the paths: %w", err)
	}
	args := []string{command, name}
	if paths != (Paths{}) {
		args = append(args, string(text))
	}
	return args, nil
}

// parseArguments is the inverse of [arguments], without the command.
func parseArguments(args []string) (name string, paths Paths, err error) {
	if len(args) < 1 || len(args) > 2 {
		return "", Paths{}, errors.New("this command is for Culvert's own use; see culvert connect")
	}
	if len(args) == 2 {
		if err := decodeStrict([]byte(args[1]), &paths); err != nil {
			return "", Paths{}, fmt.Errorf("paths: %w", err)
		}
	}
	return args[0], paths, CheckName(args[0])
}

// Main is the hidden subcommand [HelperCommand], given its arguments. It returns an exit code. Its
// log goes to the standard error stream.
func Main(args []string) int {
	return runHidden("culvert-helper", args, func(name string, paths Paths, log *slog.Logger) error {
		conn, lock, err := inherited()
		if err != nil {
			return err
		}
		defer lock.Close()
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		host, closeHost, err := hostnet.New()
		if err != nil {
			return err
		}
		defer closeHost()
		if err := os.WriteFile(paths.pidFile(name), fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
			return fmt.Errorf("write the pid file: %w", err)
		}
		g := &guards{name: name, paths: paths, lock: lock, log: log}
		defer g.stop()
		log.Info("helper started", "connection", name, "pid", os.Getpid())
		defer removeRunFiles(paths, name)
		return Run(ctx, Options{Name: name, Conn: conn, Host: host, Paths: paths, StartGuard: g.start, Idle: slim, Log: log})
	})
}

// removeRunFiles removes what says that the connection runs. Logs stay.
func removeRunFiles(paths Paths, name string) {
	_ = os.Remove(paths.APISocket(name))
	_ = os.Remove(paths.pidFile(name))
}

// runHidden is what helper and guard have in common around their work.
func runHidden(title string, args []string, work func(string, Paths, *slog.Logger) error) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", title)
	name, paths, err := parseArguments(args)
	if err != nil {
		log.Error("cannot start", "err", err)
		return 2
	}
	signal.Ignore(unix.SIGHUP)
	_ = os.WriteFile("/proc/self/comm", []byte(title), 0) // what ps and top show
	_ = os.Chdir("/")
	unix.Umask(0o022)
	if err := work(name, paths, log); err != nil {
		log.Error("failed", "err", err)
		return 1
	}
	log.Info("ended", "connection", name)
	return 0
}

// inherited takes over the helper's descriptors and keeps them from its children.
func inherited() (*net.UnixConn, *os.File, error) {
	lock := inheritedFile(fdLock, "lock")
	f := inheritedFile(fdPartner, "user half")
	conn, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, nil, fmt.Errorf("the socket to the user half: %w", err)
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("the socket to the user half is no Unix socket")
	}
	return uc, lock, nil
}

// inheritedFile wraps a descriptor this process was started with.
func inheritedFile(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// guards starts the helper's guards, one at a time.
type guards struct {
	name  string
	paths Paths
	lock  *os.File
	log   *slog.Logger

	pipe *os.File      // closing it is the guard's signal
	done chan struct{} // closed when the guard has ended
}

// start starts a guard in a session of its own.
func (g *guards) start() (int, <-chan struct{}, error) {
	g.stop()
	args, err := arguments(GuardCommand, g.name, g.paths)
	if err != nil {
		return 0, nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, nil, fmt.Errorf("start the guard: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "culvert"
	cmd.Env = append(rootEnv(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{fdPipe - 3: r, fdLock - 3: g.lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	if err := errors.Join(err, r.Close()); err != nil {
		return 0, nil, errors.Join(fmt.Errorf("start the guard: %w", err), w.Close())
	}
	done := make(chan struct{})
	go func() { // ends with the guard, for which stop waits
		defer close(done)
		_ = cmd.Wait()
	}()
	g.pipe, g.done = w, done
	return cmd.Process.Pid, done, nil
}

// stop ends the guard, if there is one, and waits for it. With the journal gone it has nothing to do.
func (g *guards) stop() {
	if g.pipe == nil {
		return
	}
	_ = g.pipe.Close()
	<-g.done
	g.pipe = nil
}

// rootEnv is the environment of the root processes: nothing of the invoking user's.
func rootEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// Tries of a guard whose restoring fails, for example because the system is short of memory.
const (
	guardTries = 20
	guardRetry = 250 * time.Millisecond
)

// GuardMain is the hidden subcommand [GuardCommand]: it waits until the helper has ended and repairs
// what its journal says. Signals that would end it are ignored; it always ends right after the helper.
func GuardMain(args []string) int {
	return runHidden("culvert-guard", args, func(name string, paths Paths, log *slog.Logger) error {
		signal.Ignore(unix.SIGTERM, unix.SIGINT)
		lock := inheritedFile(fdLock, "lock")
		defer lock.Close()
		pipe := inheritedFile(fdPipe, "pipe from the helper")
		defer pipe.Close()
		slim()
		if _, err := io.Copy(io.Discard, pipe); err != nil {
			log.Warn("the pipe from the helper cannot be read; taking that for its end", "err", err)
		}
		defer removeRunFiles(paths, name)
		var err error
		for try := range guardTries {
			if try > 0 {
				log.Warn("restoring failed, trying again", "err", err)
				time.Sleep(guardRetry)
			}
			if err = repairOnce(paths, name, log); err == nil {
				return nil
			}
		}
		return err
	})
}

// repairOnce repairs on the host's network.
func repairOnce(paths Paths, name string, log *slog.Logger) error {
	host, closeHost, err := hostnet.New()
	if err != nil {
		return err
	}
	defer closeHost()
	return Repair(paths, name, host, log)
}
