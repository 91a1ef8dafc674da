package carrier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// run is the state of one Keeper.Run; its loop's goroutine owns it.
//
//	           dial ok                       unanswered, or kicked
//	no stream ────────► stream in use ──────────────────────────────► in use, dialling beside it
//	    ▲                 │    ▲                                         │             │
//	    └──────ended──────┘    └──────────answered, or dial ok───────────┘             │
//	    └──────────────────────────────────────────ended───────────────────────────────┘
type run struct {
	*Keeper
	hello    Hello
	timing   Timing
	endpoint *Endpoint
	log      *slog.Logger
	stop     context.CancelFunc

	current  *link              // in use; nil: none
	dialling context.CancelFunc // of the dial under way; nil: none
	dialled  time.Time          // when the last dial began
	used     time.Time          // when the current link came into use
	kicked   bool               // a new stream is wanted although the current one may be well
	stale    bool               // a kick came during the dial under way
	failures int                // dials that failed, or gave a short-lived stream, since one was well
	retry    *time.Timer        // when to dial next
	results  chan result
	drained  chan struct{}  // a replaced link has ended
	tasks    sync.WaitGroup // dials, and links no longer in use
}

// kickPatience is the time a dial has although it began before a kick.
const kickPatience = time.Second

// loop runs until ctx ends or the gateway turns out to be incompatible.
func (r *run) loop(ctx context.Context) error {
	for {
		var ended, changed <-chan struct{}
		if r.current != nil {
			ended, changed = r.current.done, r.current.changed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			r.lost()
		case <-changed:
			r.weigh()
		case <-r.kick:
			r.kickNow()
		case <-r.retry.C:
			r.dialNow(ctx)
		case <-r.drained: // its last packets may have led the gateway back to it
			r.switched()
		case res := <-r.results:
			r.dialling()
			r.dialling = nil
			if errors.Is(res.err, ErrIncompatible) {
				r.update(func(s *State) { s.Err = res.err })
				return res.err
			}
			r.take(ctx, res)
		}
	}
}

// wanted reports whether a new stream is needed.
func (r *run) wanted() bool { return r.current == nil || r.kicked || r.current.suspect() }

// take uses the outcome of a dial.
func (r *run) take(ctx context.Context, res result) {
	if r.stale { // whatever came of it, the way has changed since
		r.stale, r.kicked = false, false
		defer func() { r.kicked = true; r.plan() }()
	}
	switch {
	case errors.Is(res.err, context.Canceled):
		// given up by us: the current stream answered, or a kick asked for another
	case res.err != nil:
		r.failed(res.err)
	case !r.wanted():
		r.retire(ctx, res.link, 0)
	default:
		r.use(ctx, res.link)
	}
	r.plan()
}

// failed counts a dial that came to nothing. With a current stream that is well, a kick is then done with.
func (r *run) failed(err error) {
	r.failures++
	r.kicked = false
	r.log.Debug("carrier: dial failed", "attempt", r.failures, "error", err)
	if r.wanted() {
		r.update(func(s *State) { s.Err = err })
	}
}

// use moves the endpoint to a new link.
func (r *run) use(ctx context.Context, l *link) {
	old := r.current
	r.current, r.used, r.kicked = l, time.Now(), false
	r.endpoint.attach(l, old == nil || old.suspect())
	if old != nil {
		r.retire(ctx, old, r.timing.Drain)
	}
	r.log.Debug("carrier: stream in use", "gateway", l.peer.Version, "instead of another", old != nil)
	r.mu.Lock()
	r.link = l
	if r.state.Peer != (Hello{}) {
		r.state.Redials++
	}
	r.mu.Unlock()
	r.update(func(s *State) { s.Connected, s.Peer, s.Err = true, l.peer, nil })
	r.switched()
}

func (r *run) switched() {
	if r.OnSwitch != nil {
		r.OnSwitch()
	}
}

// retire closes a link after a while in which it is still read.
func (r *run) retire(ctx context.Context, l *link, after time.Duration) {
	r.tasks.Go(func() {
		timer := time.NewTimer(after)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-l.done:
		}
		l.bye("not needed any more", errReplaced)
		l.wait()
		select {
		case r.drained <- struct{}{}:
		case <-ctx.Done():
		}
	})
}

// lost handles the end of the link in use.
func (r *run) lost() {
	l := r.current
	r.current = nil
	r.endpoint.detach(l)
	r.tasks.Go(l.wait)
	if !r.settled() {
		r.failures++ // a gateway that closes every stream at once is not dialled in a tight loop
	}
	r.log.Debug("carrier: stream lost", "error", l.reason())
	r.mu.Lock()
	r.link = nil
	r.mu.Unlock()
	r.update(func(s *State) { s.Connected, s.Err = false, l.reason() })
	r.plan()
}

// settled reports whether the current link has lived long enough to forget earlier failures, and does.
func (r *run) settled() bool {
	if time.Since(r.used) < r.timing.MaxWait {
		return false
	}
	r.failures = 0
	return true
}

// weigh handles that the link in use became suspect, or answers again.
func (r *run) weigh() {
	r.settled()
	suspect := r.current.suspect()
	if !suspect && r.dialling != nil && !r.kicked {
		r.dialling()
	}
	r.log.Debug("carrier: stream answers", "now", !suspect)
	r.update(func(s *State) {
		s.Connected, s.Err = !suspect, nil
		if suspect {
			s.Err = fmt.Errorf("%w for %v", errSilent, r.timing.Miss)
		}
	})
	r.plan()
}

// kickNow asks the link in use whether it is well and dials beside it.
func (r *run) kickNow() {
	if r.current != nil {
		r.current.sendEcho(time.Now())
	}
	r.kicked, r.failures = true, 0
	if r.dialling != nil {
		r.stale = true // its packets may go the old way, but in a storm of kicks one must get through
		r.retry.Reset(max(kickPatience-time.Since(r.dialled), 0))
		return
	}
	r.plan()
}

// update changes the state and tells OnChange.
func (r *run) update(change func(*State)) {
	r.mu.Lock()
	before := r.state.Connected
	change(&r.state)
	if r.state.Connected != before {
		r.state.Since = time.Now()
	}
	r.mu.Unlock()
	if r.OnChange != nil {
		r.OnChange(r.State())
	}
}

// shutdown closes everything and waits.
func (r *run) shutdown() {
	r.stop()
	r.retry.Stop()
	if l := r.current; l != nil {
		l.bye("node is leaving", errClosed)
		r.tasks.Go(l.wait)
	}
	if r.dialling != nil {
		r.dialling()
		if res := <-r.results; res.link != nil {
			res.link.close(errClosed)
			r.tasks.Go(res.link.wait)
		}
	}
	r.endpoint.close()
	r.mu.Lock()
	r.link = nil
	r.state.Connected = false
	r.mu.Unlock()
	r.tasks.Wait()
}
