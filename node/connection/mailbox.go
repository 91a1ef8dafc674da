package connection

import "context"

// mailbox carries events to the goroutine that owns the session.
type mailbox chan func()

func newMailbox() mailbox { return make(mailbox, 16) }

// send hands f to the owner, unless ctx ends before. The owner waits for some of those who send (a
// carrier that it replaces), so each sends with the context that ends itself.
func (m mailbox) send(ctx context.Context, f func()) {
	select {
	case m <- f:
	case <-ctx.Done():
	}
}
