package helper

import (
	"context"
	"fmt"
	"time"

	"github.com/culvert-dev/culvert/dns/hostdns"
	"github.com/culvert-dev/culvert/node/hostnet"
)

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
