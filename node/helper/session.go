package helper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/journal"
	"github.com/culvert-dev/culvert/node/routefacts"
	"github.com/culvert-dev/culvert/policy"
)

const (
	// watchEvery is how often the resolver file is looked at.
	watchEvery = 500 * time.Millisecond
	// writeTimeout bounds how long a user half that does not read holds the helper up.
	writeTimeout = 5 * time.Second
	// resyncEvery is how often the network is compared with what was asked for, should the kernel not
	// tell of a change: one millisecond of work, also on a host with 100,000 routes.
	resyncEvery = 2 * time.Second
	// settleFor is how long changes that the kernel tells of are collected before a comparison: who
	// removes one rule often removes the next, and our own changes are told of as well.
	settleFor = 20 * time.Millisecond
	// guardPause is the least time between two guards, so that one that cannot start costs little.
	guardPause = time.Second
)

// Options are what [Run] needs.
type Options struct {
	// Name is the connection.
	Name string
	// Conn is the helper's end of the socketpair. Run closes it.
	Conn *net.UnixConn
	// Host is the network to change.
	Host hostnet.Host
	// Paths on the host; the zero value means the defaults.
	Paths Paths
	// StartGuard starts a guard and returns its process id and a channel that is closed when it has
	// ended. It is called again then. Optional: nil means no guard, as in tests.
	StartGuard func() (pid int, done <-chan struct{}, err error)
	// Idle is called when requests were carried out and some time has passed. Optional.
	Idle func()
	Log  *slog.Logger

	// listenDNS replaces the binding of the resolver's sockets, which needs the kernel; for tests.
	listenDNS func(context.Context, *descriptors, []netip.Prefix) error
	// readIPsec and watchIPsec replace the kernel's policies; for tests.
	readIPsec  func(context.Context) ([]policy.IPsecPolicy, []string, error)
	watchIPsec func() (ipsecWatch, error)
}

// Run serves one user half until that ends, asks for it, or ctx is cancelled, and then restores
// everything. It returns what could not be restored; the journal stays in that case.
func Run(ctx context.Context, o Options) error {
	s, err := newSession(o)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// newSession returns a session that has changed nothing yet.
func newSession(o Options) (*session, error) {
	bootID, err := journal.BootID()
	if err != nil {
		return nil, err
	}
	s := &session{
		Options: o,
		store:   o.Paths.journals(),
		journal: &journal.Journal{Name: o.Name, BootID: bootID},
		repairs: newContest(ContestUndone),
		forward: newContest(ContestOvertaken),
	}
	if s.listenDNS == nil {
		s.listenDNS = func(ctx context.Context, d *descriptors, addrs []netip.Prefix) error { return d.listenDNS(ctx, addrs) }
	}
	s.Paths = o.Paths.withDefaults()
	s.dns = &hostdns.Manager{
		Name: o.Name, Path: s.Paths.ResolvConf, Log: o.Log,
		Journal: s.journalResolver, Lookup: s.Paths.hooked,
	}
	if s.readIPsec == nil {
		s.readIPsec = routefacts.ReadIPsec
		s.watchIPsec = func() (ipsecWatch, error) { return routefacts.NewIPsecWatcher() }
	}
	return s, nil
}

// session is one connection on the root side. Its fields belong to the goroutine of run.
type session struct {
	Options
	store    journal.Store
	journal  *journal.Journal
	dns      *hostdns.Manager
	open     hostnet.State // the interface as opened; zero before
	wanted   hostnet.State // what was last asked for and could be made; zero before open
	applied  hostnet.State // the same but for rules that are held back; what the host is kept at
	synced   time.Time     // when the network was last compared with applied
	repairs  contest       // with whoever undoes what is applied
	forward  contest       // with whoever moves in front of our rules
	changed  <-chan struct{}
	unwatch  func() // ends what signals changed; nil while the interface is not open
	ipsec    ipsecTold
	before   []Earlier // what the user half knows
	idle     bool      // nothing was asked for since Idle was called
	guardPID int
}

// errServed ends the reading of requests that nobody serves any more.
var errServed = errors.New("no further request is served")

// run is the loop. One further goroutine reads requests; it ends when the socket is closed, also with a
// request in hand that came too late, and run waits for it.
func (s *session) run(ctx context.Context) error {
	partner, gone := context.WithCancelCause(ctx)
	requests := make(chan request)
	var reader sync.WaitGroup
	reader.Go(func() { gone(s.read(partner, requests)) })
	defer func() {
		gone(errServed)
		_ = s.Conn.Close()
		s.ipsec.stop()
		reader.Wait()
	}()
	reason := s.serve(partner, requests)
	s.Log.Info("restoring the host", "because", reason)
	err := s.restore()
	if err != nil {
		s.Log.Error("the host is not fully restored; culvert cleanup tries again", "err", err)
	}
	var asked closeAsked
	if errors.As(reason, &asked) {
		s.keepLast(asked.last)
		if e := s.reply(response{ID: asked.id, Error: toError(err)}); e != nil {
			s.Log.Warn("the user half does not take the answer to its last request", "err", e)
		}
	}
	return err
}

// keepLast leaves the connection's last status for those who ask why it ended.
func (s *session) keepLast(last json.RawMessage) {
	if last == nil {
		return
	}
	if err := os.WriteFile(s.Paths.LastStatus(s.Name), last, 0o644); err != nil {
		s.Log.Warn("the last status is lost", "err", err)
	}
}

// read hands requests on until the partner is gone, and says why.
func (s *session) read(ctx context.Context, requests chan<- request) error {
	for {
		req, err := readRequest(s.Conn)
		if errors.Is(err, io.EOF) {
			return errPartnerGone
		}
		if err != nil {
			return fmt.Errorf("the user half cannot be followed: %w", err)
		}
		select {
		case requests <- req:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

var errPartnerGone = errors.New("the user half has ended")

// closeAsked is the reason to end that a close request gives.
type closeAsked struct {
	id   uint64
	last json.RawMessage
}

func (closeAsked) Error() string { return "the user half asked for it" }

// serve handles requests, the guard's end and the resolver file's changes, and returns why it ended.
func (s *session) serve(ctx context.Context, requests <-chan request) error {
	guard, started := s.startGuard(), time.Now()
	var again <-chan time.Time   // when to start the next guard
	var settled <-chan time.Time // when to compare the network; nil while the kernel tells of nothing
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-guard:
			s.guardPID, guard = 0, nil
			again = time.After(max(0, guardPause-time.Since(started)))
		case <-again:
			s.Log.Warn("the guard has ended; starting another")
			guard, started = s.startGuard(), time.Now()
		case <-s.ipsec.changes:
			s.noticeIPsec(ctx)
		case <-s.changed:
			if settled == nil && !s.repairs.contested() {
				settled = time.After(settleFor)
			}
		case now := <-settled:
			settled = nil
			if _, err := s.compare(ctx, now); err != nil {
				return err
			}
		case now := <-tick.C:
			s.watch(now)
			if s.open.Interface != "" {
				s.noticeEarlier()
			}
			if err := s.resync(ctx, now); err != nil {
				return err
			}
		case req := <-requests:
			if req.Type == typeClose {
				return closeAsked{req.ID, req.Last}
			}
			if err := s.handle(ctx, req); err != nil {
				return err
			}
		}
	}
}

// startGuard starts a guard and returns the channel of its end; nil when there is to be none.
func (s *session) startGuard() <-chan struct{} {
	if s.StartGuard == nil {
		return nil
	}
	pid, done, err := s.StartGuard()
	if err != nil {
		s.Log.Error("no guard: a crash of the helper would be repaired by the next start only", "err", err)
		ended := make(chan struct{})
		close(ended)
		return ended // tried again after the pause
	}
	s.guardPID = pid
	return done
}

// handle answers one request. An error means that the partner cannot be answered.
func (s *session) handle(ctx context.Context, req request) error {
	s.idle = s.idle && req.Type == typeHello
	resp := response{ID: req.ID}
	var files []*os.File
	var err error
	switch req.Type {
	case typeHello:
		resp.Hello = &Hello{Version: version.Version, Name: s.Name, HelperPID: os.Getpid(), GuardPID: s.guardPID}
	case typeOpen:
		resp.Opened, resp.Files, files, err = s.handleOpen(ctx, *req.Open)
	case typeApply:
		err = s.handleApply(ctx, *req.State, time.Now())
	case typeReset:
		resp.Reset, err = s.handleReset(req.Reset, req.Established)
	case typeIPsec:
		resp.IPsec, err = s.handleIPsec(ctx)
	}
	defer closeAll(files)
	if err != nil {
		s.Log.Warn("request failed", "request", req.Type, "err", err)
		resp.Error = toError(err)
	}
	return s.reply(resp, files...)
}

// reply sends a message, with descriptors.
func (s *session) reply(r response, files ...*os.File) error {
	r.Version = protocolVersion
	return sendResponse(s.Conn, r, files)
}

// restore undoes everything and leaves the session as it began.
func (s *session) restore() error {
	if s.unwatch != nil {
		s.unwatch()
		s.changed, s.unwatch = nil, nil
	}
	s.open, s.wanted, s.applied = hostnet.State{}, hostnet.State{}, hostnet.State{}
	if s.journal.Empty() {
		return nil
	}
	err := undo(s.journal, s.Host, s.Paths, s.Log)
	if err != nil {
		return err
	}
	*s.journal = journal.Journal{Name: s.journal.Name, BootID: s.journal.BootID}
	return nil
}
