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
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/internal/version"
	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/journal"
)

const (
	// watchEvery is how often the resolver file is looked at.
	watchEvery = 500 * time.Millisecond
	// writeTimeout bounds how long a user half that does not read holds the helper up.
	writeTimeout = 5 * time.Second
	// resyncEvery is how often the network is compared with what was asked for: one millisecond of
	// work, also on a host with 100,000 routes.
	resyncEvery = 2 * time.Second
	// What other programs undo is put back this often at most.
	putBackEvery = 10 * time.Second
	putBackBurst = 6
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
}

// Run serves one user half until that ends, asks for it, or ctx is cancelled, and then restores
// everything. It returns what could not be restored; the journal stays in that case.
func Run(ctx context.Context, o Options) error {
	bootID, err := journal.BootID()
	if err != nil {
		return err
	}
	s := &session{
		Options: o,
		store:   o.Paths.journals(),
		journal: &journal.Journal{Name: o.Name, BootID: bootID},
		putBack: rate.NewLimiter(rate.Every(putBackEvery), putBackBurst),
	}
	s.Paths = o.Paths.withDefaults()
	s.dns = &hostdns.Manager{
		Name: o.Name, Path: s.Paths.ResolvConf, Log: o.Log,
		Journal: s.journalResolver, Lookup: s.Paths.hooked,
	}
	return s.run(ctx)
}

// session is one connection on the root side. Its fields belong to the goroutine of run.
type session struct {
	Options
	store    journal.Store
	journal  *journal.Journal
	dns      *hostdns.Manager
	open     hostnet.State // the interface as opened; zero before
	applied  hostnet.State // what was last asked for and reached; zero before open
	synced   time.Time     // when the network was last compared with applied
	putBack  *rate.Limiter
	idle     bool // nothing was asked for since Idle was called
	guardPID int
}

// run is the loop. One further goroutine reads requests; it ends when the socket is closed, and run
// waits for it.
func (s *session) run(ctx context.Context) error {
	partner, gone := context.WithCancelCause(ctx)
	requests := make(chan request)
	var reader sync.WaitGroup
	reader.Go(func() { gone(s.read(partner, requests)) })
	defer func() {
		_ = s.Conn.Close()
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
	var again <-chan time.Time // when to start the next guard
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
		case now := <-tick.C:
			s.watch(now)
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
		err = s.handleApply(ctx, *req.State)
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

// handleOpen creates the interface and everything that comes over as a descriptor. On failure
// everything is undone.
func (s *session) handleOpen(ctx context.Context, r OpenRequest) (*opened, []fileRole, []*os.File, error) {
	if s.open.Interface != "" {
		return nil, nil, nil, refuse("the interface %s is open already", s.open.Interface)
	}
	if err := checkOpen(r); err != nil {
		return nil, nil, nil, err
	}
	host, err := s.dns.Upstreams()
	if err != nil {
		return nil, nil, nil, err
	}
	var d descriptors
	if err := s.openInterface(ctx, r, &d); err != nil {
		closeAll(d.files)
		return nil, nil, nil, errors.Join(err, s.restore())
	}
	return &opened{Interface: s.open.Interface, Addresses: s.open.Addresses, Host: host}, d.roles, d.files, nil
}

// openInterface makes interface and sockets, each journaled before it is made.
func (s *session) openInterface(ctx context.Context, r OpenRequest, d *descriptors) error {
	addrs := r.Addresses
	if !s.Host.HasIPv6() {
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(p netip.Prefix) bool { return p.Addr().Is6() })
		s.Log.Warn("this kernel has no IPv6; the tunnel has none either")
	}
	tun, err := s.createTUN(r.Interface)
	if err != nil {
		return err
	}
	d.add(roleTUN, tun)
	state := hostnet.State{Interface: s.journal.Network.Interface, MTU: r.MTU, Addresses: addrs}
	if err := s.set(ctx, state); err != nil {
		return err
	}
	s.open, s.applied = state, state
	uapi := s.Paths.uapiSocket(state.Interface)
	s.journal.Sockets = []string{uapi}
	if err := s.store.Save(s.journal); err != nil {
		return err
	}
	if err := d.listenUAPI(uapi); err != nil {
		return err
	}
	return d.listenDNS(ctx, addrs)
}

// createTUN creates the interface of that name, or chooses one.
func (s *session) createTUN(name string) (*os.File, error) {
	var err error
	for _, candidate := range candidates(s.Name, name) {
		var tun *os.File
		if tun, err = s.tryTUN(candidate); !errors.Is(err, hostnet.ErrForeign) {
			return tun, err
		}
	}
	return nil, err
}

// candidates returns the interface names to try. The connection "default" has culvert0 or nothing.
func candidates(connection, name string) []string {
	switch {
	case name != "":
		return []string{name}
	case connection == DefaultName:
		return []string{"culvert0"}
	}
	var out []string
	for n := 1; hostnet.InterfaceOfTable(hostnet.Table("culvert0")+n) != ""; n++ {
		out = append(out, fmt.Sprintf("culvert%d", n))
	}
	return out
}

// tryTUN creates one interface, journaled before and, with its number, after.
func (s *session) tryTUN(name string) (*os.File, error) {
	s.journal.Network = &journal.Network{Interface: name, Table: hostnet.Table(name)}
	if err := s.store.Save(s.journal); err != nil {
		return nil, err
	}
	tun, index, err := s.Host.CreateTUN(s.scope())
	if err != nil {
		s.journal.Network = nil // nothing was made, and what is there is not ours
		return nil, errors.Join(err, s.store.Remove(s.Name))
	}
	s.journal.Network.Index = index
	if err := s.store.Save(s.journal); err != nil {
		_ = tun.Close()
		return nil, err
	}
	return tun, nil
}

// scope names what is ours.
func (s *session) scope() hostnet.Scope {
	n := s.journal.Network
	return hostnet.Scope{Name: s.Name, Interface: n.Interface, Index: n.Index}
}

// set brings the network to a state and logs what was done.
func (s *session) set(ctx context.Context, state hostnet.State) error {
	changes, err := hostnet.Set(ctx, s.Host, s.scope(), state)
	for _, c := range changes {
		s.Log.Debug("changed", "command", c.String())
	}
	if len(changes) > 0 {
		s.Log.Info("network set", "changes", len(changes), "interface", state.Interface, "routes", len(state.Routes))
	}
	return err
}

// handleApply brings network and resolver to a state. The resolver is hooked up last and only if the
// rest is there, and let go first.
func (s *session) handleApply(ctx context.Context, state hostnet.State) error {
	if s.open.Interface == "" {
		return refuse("no interface is open")
	}
	limits, err := LoadLimits(s.Paths.Limits)
	if err != nil {
		return err
	}
	if err := limits.checkState(state, s.open); err != nil {
		return err
	}
	if !s.Host.HasIPv6() {
		state = withoutIPv6(state)
	}
	if state.DNS.IsZero() {
		if err := s.dns.Set(state.DNS); err != nil {
			return err
		}
	}
	if err := s.set(ctx, state); err != nil {
		return err
	}
	s.applied = state
	return s.dns.Set(state.DNS)
}

// resync puts back what other programs undid: systemd-networkd removes rules that are not its own, a
// firewall that reloads flushes all tables. It gives way for a while to one that does so again and
// again. An interface that was removed is not made again; the error ends the session.
func (s *session) resync(ctx context.Context, now time.Time) error {
	if s.applied.Interface == "" || now.Sub(s.synced) < resyncEvery {
		return nil
	}
	s.synced = now
	actual, err := s.Host.Read(s.scope())
	if err != nil {
		s.Log.Warn("the network cannot be compared with what it should be", "err", err)
		return nil
	}
	changes := hostnet.Plan(s.scope(), s.applied, actual)
	if len(changes) == 0 {
		if !s.idle && s.Idle != nil {
			s.idle = true
			s.Idle()
		}
		return nil
	}
	if !s.putBack.AllowN(now, 1) {
		return nil
	}
	if actual.Link == nil {
		return fmt.Errorf("%s: %w", s.applied.Interface, hostnet.ErrGone)
	}
	s.Log.Warn("another program changed the tunnel's network; putting it back", "changes", len(changes), "first", changes[0].String())
	if err := s.set(ctx, s.applied); err != nil {
		s.Log.Warn("not all of it could be put back", "err", err)
	}
	return nil
}

// withoutIPv6 returns what a kernel without IPv6 can do of a state.
func withoutIPv6(s hostnet.State) hostnet.State {
	s.Priority.V6 = 0
	s.Routes = slices.DeleteFunc(slices.Clone(s.Routes), func(r hostnet.Route) bool { return r.Prefix.Addr().Is6() })
	return s
}

// watch looks at the resolver file and tells the user half about changed upstreams.
func (s *session) watch(now time.Time) {
	host, changed, err := s.dns.Check(now)
	if err != nil {
		s.Log.Warn("the resolver file cannot be hooked up again", "err", err)
	}
	if changed {
		s.Log.Info("the host's resolvers have changed", "servers", host.Servers)
		if err := s.reply(response{Event: &Event{Host: &host}}); err != nil {
			s.Log.Warn("the user half does not take events", "err", err)
		}
	}
}

// journalResolver records the resolver file before it is changed.
func (s *session) journalResolver(r *hostdns.Record) error {
	s.journal.Resolver = r
	return s.store.Save(s.journal)
}

// restore undoes everything and leaves the session as it began.
func (s *session) restore() error {
	s.open, s.applied = hostnet.State{}, hostnet.State{}
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
