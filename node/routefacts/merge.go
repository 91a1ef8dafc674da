package routefacts

import (
	"context"
	"time"
)

const (
	// quiet is how long nothing may happen before a burst of events counts as over. A VPN client sets up
	// its interface, routes and rules by one command after another, some milliseconds apart.
	quiet = 50 * time.Millisecond
	// longest is how long after its first event a burst is reported even if it goes on, so that the plan
	// settles within a second whatever a routing daemon does.
	longest = 250 * time.Millisecond
	// resyncEvery is the time after which a change is reported without any event, because what steers
	// packets may change without one (a sysctl).
	resyncEvery = 30 * time.Second
)

// merger makes of many events few reports.
//
//	events   | || |        |||||||||||||||||||||||||||
//	reports            ^                  ^          ^          (resync) ^
//	           quiet ──┘      longest ────┘   quiet ─┘   resyncEvery ────┘
type merger struct {
	first time.Time // the first event that was not reported; zero if there is none
	due   time.Time // when to report
}

// newMerger begins without events.
func newMerger(now time.Time) merger { return merger{due: now.Add(resyncEvery)} }

func (m *merger) event(now time.Time) {
	if m.first.IsZero() {
		m.first = now
	}
	m.due = now.Add(quiet)
	if latest := m.first.Add(longest); latest.Before(m.due) {
		m.due = latest
	}
}

// reported notes that everything so far was reported.
func (m *merger) reported(now time.Time) { *m = newMerger(now) }

// run reports events until ctx ends. reports has a capacity of one: a report that nobody has taken
// yet stands for all later ones.
func (m *merger) run(ctx context.Context, events <-chan struct{}, reports chan<- struct{}) {
	timer := time.NewTimer(time.Until(m.due))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			m.event(time.Now())
		case <-timer.C:
			notify(reports)
			m.reported(time.Now())
		}
		timer.Reset(time.Until(m.due))
	}
}

// notify puts a token into c, which has a capacity of one, unless one is there.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
