package connection

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"

	"github.com/culvert-dev/culvert/node/hostnet"
	"github.com/culvert-dev/culvert/node/routefacts"
	"github.com/culvert-dev/culvert/policy"
)

// watchHost has the session follow the host's routes, rules and interfaces until ctx ends. The host is
// read beside the session's goroutine, since a large routing table takes a while.
func (s *Session) watchHost(ctx context.Context, background *sync.WaitGroup) {
	watcher, err := routefacts.NewWatcher(policy.Own{Interface: s.iface, Table: uint32(hostnet.Table(s.iface))})
	if err != nil {
		s.notice(noticeHostWatch, fmt.Errorf("changes of this host's routes are followed late: %w", err))
		return
	}
	background.Go(func() {
		if err := watcher.Run(ctx); err != nil {
			s.mail.send(ctx, func() {
				s.notice(noticeHostWatch, fmt.Errorf("changes of this host's routes are not followed any more: %w", err))
			})
		}
	})
	background.Go(func() {
		for first := true; ; first = false {
			if !first && !wait(ctx, watcher.Changes()) {
				return
			}
			facts, whole, err := readHost(ctx, s.helper) // the first time for what changed before the watch began
			s.mail.send(ctx, func() { s.hostMoved(facts, whole, err) })
		}
	})
}

// wait takes a token and reports whether there was one before ctx ended.
func wait(ctx context.Context, tokens <-chan struct{}) bool {
	select {
	case <-tokens:
		return true
	case <-ctx.Done():
		return false
	}
}

// hostMoved takes in the host as it is now.
func (s *Session) hostMoved(facts policy.Facts, whole bool, err error) {
	if err != nil {
		s.notice(noticeHost, err)
		return
	}
	before := s.knowledge.facts
	if s.takeFacts(facts, whole); reflect.DeepEqual(before, s.knowledge.facts) && s.notices[noticeHost] == "" {
		return
	}
	s.replan(s.ctx)
	s.followPath()
}

// followPath has the carrier open a new stream at once when its packets leave the host another way: the
// old one may be dead without anybody being told.
func (s *Session) followPath() {
	path := carrierPath(s.knowledge.facts, s.kube.Dialled())
	if path == s.path {
		return
	}
	first := s.path == ""
	s.path = path
	if first || s.tunnel == nil || s.tunnel.keeper == nil {
		return
	}
	s.log.Info("the way to the API server has changed", "path", path)
	s.tunnel.keeper.Kick()
}

// carrierPath describes how packets to the addresses really dialled leave the host: by which routes and
// with which source address.
func carrierPath(facts policy.Facts, dialled []netip.AddrPort) string {
	var out []string
	for _, a := range dialled {
		way := "nowhere"
		if c := policy.Explain(policy.Input{Facts: facts}, a.Addr()).Host; c != nil {
			way = fmt.Sprint(c.Type, c.Interfaces, c.NextHops)
		}
		out = append(out, fmt.Sprintf("%s: %s from %s", a, way, sourceTo(a)))
	}
	return strings.Join(out, "; ")
}

// sourceTo returns the address that the kernel gives to packets to a; no packet is sent. It is not valid
// if there is no way.
func sourceTo(a netip.AddrPort) netip.Addr {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(a))
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}
