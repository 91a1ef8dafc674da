package helper

import (
	"cmp"
	"slices"

	"github.com/culvert-dev/culvert/dns/hostdns"
)

// Earlier is a connection on this host whose resolver was hooked up before this one's. What names it
// answers it keeps until it ends.
type Earlier struct {
	// Name is the connection's.
	Name string `json:"name"`
	// Domains are those under which it answers, the reverse zones among them.
	Domains []string `json:"domains,omitempty"`
}

// earlier returns the connections that run and were hooked up before this one, in that order.
func (s *session) earlier() []Earlier {
	names, err := s.store.Names()
	if err != nil {
		s.Log.Warn("other connections are not seen", "err", err)
		return nil
	}
	var records []*hostdns.Record
	for _, name := range names {
		if name == s.Name {
			continue
		}
		if r, running := s.Paths.hooked(name); r != nil && running && s.isBefore(r) {
			records = append(records, r)
		}
	}
	slices.SortFunc(records, compareBegin)
	out := []Earlier{}
	for _, r := range records {
		out = append(out, Earlier{Name: r.Name, Domains: r.Domains})
	}
	return out
}

// isBefore reports whether the connection of another record was hooked up before this one, which is the
// last as long as it is not.
func (s *session) isBefore(other *hostdns.Record) bool {
	return s.journal.Resolver == nil || compareBegin(other, s.journal.Resolver) < 0
}

func compareBegin(a, b *hostdns.Record) int {
	return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Name, b.Name))
}

// noticeEarlier tells the user half when there are other earlier connections than it knows of, or when
// these answer other names.
func (s *session) noticeEarlier() {
	now := s.earlier()
	same := func(a, b Earlier) bool { return a.Name == b.Name && slices.Equal(a.Domains, b.Domains) }
	if slices.EqualFunc(now, s.before, same) {
		return
	}
	s.before = now
	s.Log.Info("the connections that began earlier have changed", "connections", now)
	s.tell(Event{Earlier: &now})
}
