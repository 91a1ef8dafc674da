package helper

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// DefaultName is the connection's name when none is given.
const DefaultName = "default"

// ErrNotRoot is matched when a step needs root.
var ErrNotRoot = errors.New("root is needed to change the host's network: run it with sudo")

// LaunchOptions say what to start.
type LaunchOptions struct {
	// Name is the connection; "" means [DefaultName].
	Name string
	// NodeArgs follow the hidden subcommand [NodeCommand].
	NodeArgs []string
	// User is whom the user half runs as; see [InvokingUser].
	User User
	// Env is the user half's environment; nil means this process's. HOME, USER and LOGNAME become the
	// user's and sudo's variables are left out.
	Env []string
	// Dir is the user half's working directory; "" means this process's.
	Dir string
	// Paths on the host; the zero value means the defaults.
	Paths Paths
	// Log is where repairs of an earlier crash are told; nil means nowhere.
	Log *slog.Logger
}

// Launched is a connection that was started.
type Launched struct {
	// Report is the socket to the user half's [NodeReportFD]. The caller closes it.
	Report net.Conn
	// HelperPID and NodePID are process ids.
	HelperPID, NodePID int

	helper, node *exec.Cmd
}

// Wait waits until both processes have ended, for a command that stays in the foreground, and returns
// the user half's error (an [exec.ExitError] for one that failed), else the helper's.
func (l *Launched) Wait() error { return errors.Join(l.node.Wait(), l.helper.Wait()) }

// Launch repairs what an earlier crash left, and starts helper and user half in sessions of their own,
// so that they outlive the terminal. It needs root. If a connection of that name is running, the error
// matches [ErrRunning].
func Launch(o LaunchOptions) (*Launched, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := CheckName(o.Name); err != nil {
		return nil, err
	}
	lock, err := o.Paths.lock(o.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the helper keeps its copy
	if err := repairDead(o.Paths, o.Name, o.Log); err != nil {
		return nil, err
	}
	return o.start(lock)
}

// repairDead repairs connection name, whose lock the caller holds, and all others that have a journal
// and do not run.
func repairDead(paths Paths, name string, log *slog.Logger) error {
	host, closeHost, err := hostnet.New()
	if err != nil {
		return err
	}
	defer closeHost()
	if err := Repair(paths, name, host, log); err != nil {
		return err
	}
	names, err := paths.journals().Names()
	for _, other := range names {
		if other == name || paths.Running(other) {
			continue
		}
		if _, e := repairLocked(paths, other, host, log); e != nil {
			log.Warn("another connection's crash is not repaired", "connection", other, "err", e)
		}
	}
	return err
}

// start makes files and sockets and starts both processes.
func (o LaunchOptions) start(lock *os.File) (l *Launched, err error) {
	var c closers
	defer func() { err = errors.Join(err, c.close()) }()

	_ = os.Remove(o.Paths.LastStatus(o.Name))
	api, err := o.listenAPI()
	if err != nil {
		return nil, err
	}
	c.add(api)
	helperLog, err := createLog(o.Paths.HelperLog(o.Name), os.Geteuid(), int(o.User.GID))
	if err != nil {
		return nil, err
	}
	c.add(helperLog)
	nodeLog, err := createLog(o.Paths.NodeLog(o.Name), int(o.User.UID), int(o.User.GID))
	if err != nil {
		return nil, err
	}
	c.add(nodeLog)
	partners, err := socketPair("helper")
	if err != nil {
		return nil, err
	}
	c.add(partners[0], partners[1])
	reports, err := socketPair("report")
	if err != nil {
		return nil, err
	}
	c.add(reports[0], reports[1])

	l = &Launched{}
	if l.Report, err = net.FileConn(reports[0]); err != nil {
		return nil, fmt.Errorf("the socket to the user half: %w", err)
	}
	if err := l.startHelper(o, helperLog, partners[0], lock); err != nil {
		return nil, errors.Join(err, l.Report.Close())
	}
	if err := l.startNode(o, nodeLog, partners[1], reports[1], api); err != nil {
		// The helper sees its partner's socket close and ends.
		return nil, errors.Join(err, l.Report.Close())
	}
	return l, nil
}

// startHelper starts the helper.
func (l *Launched) startHelper(o LaunchOptions, log, partner, lock *os.File) error {
	args, err := arguments(HelperCommand, o.Name, o.Paths)
	if err != nil {
		return err
	}
	l.helper = detached(args, log)
	l.helper.Env = rootEnv()
	l.helper.Dir = "/"
	l.helper.ExtraFiles = []*os.File{fdPartner - 3: partner, fdLock - 3: lock}
	if err := l.helper.Start(); err != nil {
		return fmt.Errorf("start the helper: %w", err)
	}
	l.HelperPID = l.helper.Process.Pid
	return nil
}

// startNode starts the user half, without any privilege.
func (l *Launched) startNode(o LaunchOptions, log, partner, report, api *os.File) error {
	l.node = detached(append([]string{NodeCommand}, o.NodeArgs...), log)
	env := o.Env
	if env == nil {
		env = os.Environ()
	}
	l.node.Env = o.User.environ(env)
	l.node.Dir = o.Dir
	l.node.SysProcAttr.Credential = o.User.credential()
	l.node.ExtraFiles = []*os.File{NodeHelperFD - 3: partner, NodeReportFD - 3: report, NodeAPIFD - 3: api}
	if err := l.node.Start(); err != nil {
		return fmt.Errorf("start the user half as user %s: %w", o.User.Name, err)
	}
	l.NodePID = l.node.Process.Pid
	return nil
}

// detached returns a command of this program in a session of its own, logging to log.
func detached(args []string, log *os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "culvert"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// listenAPI makes the control socket. Everyone may connect; the user half looks at who it is.
func (o LaunchOptions) listenAPI() (*os.File, error) {
	path := o.Paths.APISocket(o.Name)
	if err := removeSocket(path); err != nil {
		return nil, fmt.Errorf("replace the control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err := errors.Join(err, os.Chmod(path, 0o666), l.Close()); err != nil {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	return f, nil
}

// createLog begins a log, keeping the one before as NAME.old. The user's group can read it.
func createLog(path string, uid, gid int) (*os.File, error) {
	_ = os.Rename(path, path+".old")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("create the log: %w", err)
	}
	if err := f.Chown(uid, gid); err != nil {
		return nil, errors.Join(fmt.Errorf("create the log: %w", err), f.Close())
	}
	return f, nil
}

// socketPair returns two connected Unix stream sockets that children do not inherit by accident.
func socketPair(name string) ([2]*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return [2]*os.File{}, fmt.Errorf("make the %s socketpair: %w", name, err)
	}
	return [2]*os.File{os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)}, nil
}

// closers closes what a function opened.
type closers []io.Closer

func (c *closers) add(what ...*os.File) {
	for _, w := range what {
		*c = append(*c, w)
	}
}

func (c *closers) close() error {
	var err error
	for _, w := range *c {
		err = errors.Join(err, w.Close())
	}
	return err
}
