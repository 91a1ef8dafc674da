package accept

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
)

// failing is a listener that fails in the given ways, then with net.ErrClosed.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) == 0 {
		return nil, net.ErrClosed
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

func TestNextSurvivesShortages(t *testing.T) {
	short := &net.OpError{Op: "accept", Err: syscall.EMFILE}
	l := &failing{errs: []error{short, short, errors.New("for good"), short}}
	if _, err := Next(context.Background(), l); err == nil || err.Error() != "for good" || len(l.errs) != 1 {
		t.Errorf("%v, %d errors left", err, len(l.errs))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Next(ctx, &failing{errs: []error{short, short, short, short, short, short, short, short}}); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("after the end of ctx: %v", err)
	}
}
