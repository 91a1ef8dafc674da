package routefacts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// routeGroups are the multicast groups of rtnetlink(7) that tell of what [Read] reads. The kernel
// leaves out groups that it does not know, such as that of next hop objects before 5.3.
const routeGroups = 1<<(unix.RTNLGRP_LINK-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1) |
	1<<(unix.RTNLGRP_NEXTHOP-1)

// Watcher reports that something which may steer packets has changed: when a burst of changes is
// over, at the latest a quarter of a second after its first, and every 30 s without any. What has
// changed only a new reading tells.
type Watcher struct {
	socket  *os.File
	steers  func(kind uint16, m []byte) bool
	changes chan struct{}
}

// NewWatcher watches what [Read] reads, without privilege, in the network namespace of the calling
// thread. What is told of own is no news: routes and rules that appear with our mark, in our table.
// That one disappears always is, whoever did it. The zero value of own is good for a process that
// has none. The watch begins at once, so that a reading made after it misses nothing; the caller
// then calls Run, or Close.
func NewWatcher(own policy.Own) (*Watcher, error) {
	return newWatcher(unix.NETLINK_ROUTE, routeGroups, filter{own.Table}.steers)
}

// NewIPsecWatcher watches what [ReadIPsec] reads. It needs CAP_NET_ADMIN; without it the error
// matches [os.ErrPermission]. On a kernel without IPsec it matches [errors.ErrUnsupported].
func NewIPsecWatcher() (*Watcher, error) {
	return newWatcher(unix.NETLINK_XFRM, 1<<(nl.XFRMNLGRP_POLICY-1), func(uint16, []byte) bool { return true })
}

func newWatcher(protocol int, groups uint32, steers func(uint16, []byte) bool) (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("watch the routes of this host: netlink socket: %w", unsupported(err))
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the routes of this host: join netlink groups %#x: %w", groups, err)
	}
	return &Watcher{socket: os.NewFile(uintptr(fd), "netlink"), steers: steers, changes: make(chan struct{}, 1)}, nil
}

// unsupported makes the kernel's word for a missing protocol match [errors.ErrUnsupported].
func unsupported(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w (%w)", errors.ErrUnsupported, err)
	}
	return err
}

// Changes has a token whenever something may have changed since the last one was taken.
func (w *Watcher) Changes() <-chan struct{} { return w.changes }

// Run reports until ctx ends, which is no error. Otherwise the kernel does not tell of changes any
// longer, and the caller must look by itself. The watcher is closed afterwards.
func (w *Watcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan struct{}, 1)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() {
		m := newMerger(time.Now())
		m.run(ctx, events, w.changes)
	})
	stop := context.AfterFunc(ctx, w.Close) // wakes receive
	defer stop()
	defer w.Close()
	if err := w.receive(events); ctx.Err() == nil {
		return fmt.Errorf("watch the routes of this host: %w", err)
	}
	return nil
}

// Close ends the watch, also that of Run. It may be called more than once.
func (w *Watcher) Close() { _ = w.socket.Close() }

// receive turns messages into events until the socket fails or is closed.
func (w *Watcher) receive(events chan<- struct{}) error {
	conn, err := w.socket.SyscallConn()
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10) // the kernel's messages are shorter
	for {
		var n int
		var from unix.Sockaddr
		var failed error
		err := conn.Read(func(fd uintptr) bool {
			n, from, failed = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return err
		case errors.Is(failed, unix.ENOBUFS):
			notify(events) // more happened than the socket could hold
		case errors.Is(failed, unix.EINTR):
		case failed != nil:
			return failed
		case fromKernel(from) && w.anySteers(b[:n]):
			notify(events)
		}
	}
}

func fromKernel(from unix.Sockaddr) bool {
	a, ok := from.(*unix.SockaddrNetlink)
	return ok && a.Pid == 0
}

// anySteers reports whether one of the messages in b is news. What cannot be read is.
func (w *Watcher) anySteers(b []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return true
	}
	for _, m := range messages {
		if w.steers(m.Header.Type, m.Data) {
			return true
		}
	}
	return false
}

// filter knows which messages are no news.
type filter struct {
	table uint32 // ours; 0 if there is none
}

// steers reports whether a message may change what steers packets; one that cannot be read may.
func (f filter) steers(kind uint16, m []byte) bool {
	switch kind {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return f.routeSteers(kind, m)
	case unix.RTM_NEWRULE:
		r, err := decodeRule(m)
		return err != nil || !f.ours(r.Table, r.Protocol)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return linkSteers(m)
	}
	return true
}

// ours reports whether a route or rule that appeared is one of ours, by all that is known.
func (f filter) ours(table uint32, protocol uint8) bool {
	return f.table != 0 && table == f.table && protocol == policy.ProtocolCulvert
}

// routeSteers leaves out our new routes and the kernel's cached ones, of which it tells with each path
// MTU that it learns.
func (f filter) routeSteers(kind uint16, m []byte) bool {
	if len(m) >= unix.SizeofRtMsg && native.Uint32(m[8:])&unix.RTM_F_CLONED != 0 {
		return false
	}
	if kind == unix.RTM_DELROUTE {
		return true
	}
	var r policy.Route
	_, err := new(routeDecoder).decode(m, &r)
	return err != nil || !f.ours(r.Table, r.Protocol)
}

// linkSteers leaves out what bridges tell of their ports, and wireless drivers of the air, such as the
// end of a scan.
func linkSteers(m []byte) bool {
	fixed, rest, err := header(m, unix.SizeofIfInfomsg)
	if err != nil {
		return true
	}
	wireless := false
	err = attributes(rest, func(kind uint16, _ []byte) error {
		wireless = wireless || kind == unix.IFLA_WIRELESS
		return nil
	})
	return err != nil || fixed[0] != unix.AF_BRIDGE && !wireless
}
