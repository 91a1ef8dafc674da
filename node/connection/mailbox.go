package connection

import "context"

// mailbox carries events to the goroutine that owns the session. Senders give up when the session
// has ended, so that none of them outlives it.
type mailbox struct {
	events chan func()
	done   <-chan struct{} // closed when nobody reads any more
}

func newMailbox(ctx context.Context) *mailbox {
	return &mailbox{events: make(chan func(), 16), done: ctx.Done()}
}

// send hands f to the owner; it reports whether the owner will run it.
func (m *mailbox) send(f func()) bool {
	select {
	case m.events <- f:
		return true
	case <-m.done:
		return false
	}
}
