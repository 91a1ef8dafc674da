package dnsforward

import (
	"context"
	"net/netip"
	"slices"
	"sync"
)

// A line is shared while fewer than shareBelow questions wait on it; up to linesPer are open to one
// nameserver at a time.
const (
	linesPer   = 4
	shareBelow = 64
)

// upstream is one nameserver and the lines to it over one transport.
type upstream struct {
	server  netip.AddrPort
	network string          // "udp" or "tcp"
	life    context.Context // ends with the Forwarder
	readers *sync.WaitGroup

	mu    sync.Mutex // guards what follows
	lines []*line    // those that are not retired
	next  int
}

// ask sends q on a shared line. A line that ends at that very moment (the nameserver closed an idle
// connection) is replaced once.
func (u *upstream) ask(ctx context.Context, q question) ([]byte, error) {
	for again := true; ; again = false {
		l, fresh, err := u.line(ctx)
		if err != nil {
			return nil, err
		}
		answer, err := l.ask(ctx, q)
		if err == nil || fresh || !again || ctx.Err() != nil {
			return answer, err
		}
	}
}

// line returns a line to use, and whether it was opened for it.
func (u *upstream) line(ctx context.Context) (l *line, fresh bool, err error) {
	if l := u.open(); l != nil {
		return l, false, nil
	}
	l, err = dialLine(ctx, u.life, u.network, u.server, u.readers)
	if err != nil {
		return nil, false, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lines = append(u.lines, l)
	return l, true, nil
}

// open returns one of the open lines in turn; nil asks for another to be opened.
func (u *upstream) open() *line {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lines = slices.DeleteFunc(u.lines, func(l *line) bool {
		usable, _ := l.state()
		return !usable
	})
	if len(u.lines) == 0 {
		return nil
	}
	u.next = (u.next + 1) % len(u.lines)
	l := u.lines[u.next]
	if _, waiting := l.state(); waiting >= shareBelow && len(u.lines) < linesPer {
		return nil
	}
	return l
}
