package helper

import (
	"time"

	"github.com/culvert-dev/culvert/dns/hostdns"
)

// watch looks at the resolver file and tells the user half about changed upstreams.
func (s *session) watch(now time.Time) {
	host, changed, err := s.dns.Check(now)
	if err != nil {
		s.Log.Warn("the resolver file cannot be hooked up again", "err", err)
	}
	if changed {
		s.Log.Info("the host's resolvers have changed", "servers", host.Servers)
		s.tell(Event{Host: &host})
	}
}

// journalResolver records the resolver file before it is changed.
func (s *session) journalResolver(r *hostdns.Record) error {
	s.journal.Resolver = r
	return s.store.Save(s.journal)
}

// tell sends an event.
func (s *session) tell(e Event) {
	if err := s.reply(response{Event: &e}); err != nil {
		s.Log.Warn("the user half does not take events", "err", err)
	}
}
