package connection

import (
	"maps"
	"slices"
)

// notices are the warnings that last until what they are about is in order, by their subject.
type notices map[string]string

// Subjects of notices.
const (
	noticePolicy    = "policy"
	noticeConsent   = "consent"
	noticeHost      = "host"
	noticePeerWatch = "watch of the Peer"
	noticeTeamWatch = "watch of the Policy"
	noticeConflicts = "conflicts"
	noticeRemember  = "remember"
	noticeNarrowed  = "enforced by the Policy"
	noticeReach     = "reachability"
	noticeHostWatch = "watch of the host"
	noticeTwins     = "memory of virtual addresses"
	noticeAskTwins  = "virtual addresses"
	noticeNoVirtual = "virtual subnets"
	noticeTranslate = "translation of virtual addresses"
	noticeFull      = "virtual addresses in use"
	noticePool      = "pool of virtual addresses"
	noticeContest   = "contest: "
)

// set keeps text as the notice about subject; "" means that it is in order. It reports whether that
// is news.
func (n notices) set(subject, text string) bool {
	if n[subject] == text {
		return false
	}
	if text == "" {
		delete(n, subject)
	} else {
		n[subject] = text
	}
	return true
}

// list returns the texts, in an order that does not change by itself.
func (n notices) list() []string {
	var out []string
	for _, subject := range slices.Sorted(maps.Keys(n)) {
		out = append(out, n[subject])
	}
	return out
}

// notice keeps err as the notice about subject, nil for none, and logs what is news.
func (s *Session) notice(subject string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch news := s.notices.set(subject, text); {
	case news && err != nil:
		s.log.Warn(subject, "err", err)
	case news:
		s.log.Info(subject + ": in order again")
	}
}
