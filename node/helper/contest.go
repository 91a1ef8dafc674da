package helper

import (
	"time"

	"golang.org/x/time/rate"
)

// What other programs undo is put back this often at most, and our rules move forward this often.
const (
	putBackEvery = 10 * time.Second
	putBackBurst = 6
)

// contest decides how long to compete with another program. It makes no I/O and reads no clock.
//
//	quiet ──limit reached──► contested ──no move for putBackEvery──► quiet
//
// Contested, a move is still allowed every putBackEvery.
type contest struct {
	kind  Contest
	limit *rate.Limiter
	what  string    // what the other program does
	since time.Time // zero while quiet
	moved time.Time // when the other program was last seen to act
}

func newContest(kind Contest) contest {
	return contest{kind: kind, limit: rate.NewLimiter(rate.Every(putBackEvery), putBackBurst)}
}

// contested reports whether a fight is under way.
func (c *contest) contested() bool { return !c.since.IsZero() }

// move notes that another program did what, and reports whether to answer now. The event, if not
// nil, is news.
func (c *contest) move(now time.Time, what string) (answer bool, news *Contested) {
	c.moved = now
	if c.limit.AllowN(now, 1) {
		return true, nil
	}
	if c.contested() {
		return false, nil
	}
	c.what, c.since = what, now
	return false, c.event()
}

// calm notes that all is as it should be; the event, if not nil, is news.
func (c *contest) calm(now time.Time) *Contested {
	if !c.contested() || now.Sub(c.moved) < putBackEvery {
		return nil
	}
	return c.end()
}

// end ends a fight, if one is under way; the event, if not nil, is news.
func (c *contest) end() *Contested {
	if !c.contested() {
		return nil
	}
	e := c.event()
	e.Over = true
	c.since, c.what = time.Time{}, ""
	return e
}

// forgive forgets the moves so far and ends a fight; the event, if not nil, is news.
func (c *contest) forgive() *Contested {
	c.limit = newContest(c.kind).limit
	return c.end()
}

// event describes the fight.
func (c *contest) event() *Contested {
	return &Contested{Kind: c.kind, What: c.what, Since: c.since, RetryEvery: putBackEvery}
}
