package helper

import (
	"context"
	"fmt"
	"time"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// startWatch has the kernel tell of changes. Without it the comparison every resyncEvery remains.
func (s *session) startWatch() {
	changed, stop, err := s.Host.Watch(s.scope())
	if err != nil {
		s.Log.Warn("changes by other programs will be noticed late", "after", resyncEvery, "err", err)
		return
	}
	s.changed, s.unwatch = changed, stop
}

// resync compares the network from time to time, whether the kernel told of a change or not.
func (s *session) resync(ctx context.Context, now time.Time) error {
	if s.applied.Interface == "" || now.Sub(s.synced) < resyncEvery {
		return nil
	}
	if err := s.release(ctx, now); err != nil {
		s.Log.Warn("a rule that was held back cannot be moved", "err", err)
	}
	intact, err := s.compare(ctx, now)
	if intact && !s.idle && s.Idle != nil {
		s.idle = true
		s.Idle()
	}
	return err
}

// compare puts back what other programs undid: systemd-networkd removes rules that are not its own, a
// firewall that reloads flushes all tables. It gives way for a while to one that does so again and
// again. An interface that was removed is not made again; the error ends the session.
func (s *session) compare(ctx context.Context, now time.Time) (intact bool, err error) {
	if s.applied.Interface == "" {
		return false, nil
	}
	s.synced = now
	actual, err := s.Host.Read(s.scope())
	if err != nil {
		s.Log.Warn("the network cannot be compared with what it should be", "err", err)
		return false, nil
	}
	if actual.Link == nil {
		return false, fmt.Errorf("%s: %w", s.applied.Interface, hostnet.ErrGone)
	}
	changes := hostnet.Plan(s.scope(), s.applied, actual)
	if len(changes) == 0 {
		s.report(s.repairs.calm(now))
		return true, nil
	}
	answer, news := s.repairs.move(now, "keeps undoing "+changes[0].Object())
	s.report(news)
	if !answer {
		return false, nil
	}
	s.Log.Warn("another program changed the tunnel's network; putting it back", "changes", len(changes), "first", changes[0].String())
	if err := s.set(ctx, s.applied); err != nil {
		s.Log.Warn("not all of it could be put back", "err", err)
	}
	return false, nil
}

// hold returns what to make of a state: the same, except that rules which were asked to move further
// forward again and again stay where they are for a while. Whose rules may move back ends the fight.
func (s *session) hold(state hostnet.State, now time.Time) hostnet.State {
	if retreats(s.applied.Priority, state.Priority) {
		s.report(s.forward.forgive())
	}
	if !advances(s.applied.Priority, state.Priority) {
		return state
	}
	answer, news := s.forward.move(now, "keeps moving its rules in front of ours")
	s.report(news)
	if answer {
		return state
	}
	state.Priority.V4 = behind(s.applied.Priority.V4, state.Priority.V4)
	state.Priority.V6 = behind(s.applied.Priority.V6, state.Priority.V6)
	return state
}

// release moves rules forward that were held back, once that is allowed again.
func (s *session) release(ctx context.Context, now time.Time) error {
	if s.applied.Priority == s.wanted.Priority {
		s.report(s.forward.calm(now))
		return nil
	}
	next := s.applied
	next.Priority = s.hold(s.wanted, now).Priority
	if next.Priority == s.applied.Priority {
		return nil
	}
	if err := s.set(ctx, next); err != nil {
		return err
	}
	s.applied = next
	return nil
}

// advances reports whether a rule moves forward: to a lower number.
func advances(from, to hostnet.Priority) bool {
	return behind(from.V4, to.V4) != to.V4 || behind(from.V6, to.V6) != to.V6
}

// retreats reports whether a rule moves back, or goes.
func retreats(from, to hostnet.Priority) bool {
	back := func(from, to int) bool { return from != 0 && (to == 0 || to > from) }
	return back(from.V4, to.V4) || back(from.V6, to.V6)
}

// behind returns the priority that comes later, of a rule that is there and is to stay.
func behind(from, to int) int {
	if to == 0 {
		return 0
	}
	return max(from, to)
}

// report tells of a fight that began or ended; nil is no news.
func (s *session) report(c *Contested) {
	switch {
	case c == nil:
		return
	case c.Over:
		s.Log.Info("another program has given up", "it", c.What)
	default:
		s.Log.Warn("giving way for a while: another program "+c.What, "retryEvery", c.RetryEvery)
	}
	s.tell(Event{Contested: c})
}
