package carrier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// result is the outcome of a dial.
type result struct {
	link *link
	err  error
}

// plan sets the timer for the next dial if one is needed and none is under way: after failures each
// begins twice as long after the one before, with jitter so that the nodes of a restarted gateway do not
// come all at once.
func (r *run) plan() {
	if r.dialling != nil || !r.wanted() {
		return
	}
	wait := time.Duration(0)
	switch {
	case r.kicked: // kicks may come in bursts
		wait = max(r.timing.MinWait-time.Since(r.dialled), 0)
	case r.failures > 0:
		gap := min(r.timing.MinWait<<min(r.failures-1, 20), r.timing.MaxWait)
		gap = gap/2 + rand.N(gap/2+1)
		wait = max(gap-time.Since(r.dialled), r.timing.MinWait/2)
	}
	r.retry.Reset(wait)
}

// dialNow starts a dial, unless none is needed any more. It gives up one that went the old way: its outcome
// starts the next.
func (r *run) dialNow(ctx context.Context) {
	if r.dialling != nil {
		if r.stale {
			r.dialling()
		}
		return
	}
	if !r.wanted() {
		return
	}
	ctx, r.dialling = context.WithTimeout(ctx, r.timing.Dial)
	r.dialled = time.Now()
	r.tasks.Go(func() {
		l, err := r.connect(ctx)
		r.results <- result{l, err}
	})
}

// connect opens a stream and exchanges hellos.
func (r *run) connect(ctx context.Context) (*link, error) {
	stream, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	l, err := newLink(stream, r.Bind, r.endpoint, r.hello, r.timing)
	if err != nil {
		stream.Close()
		return nil, err
	}
	peer, err := l.hello(ctx.Done())
	switch {
	case err == nil:
		err = compatible(r.hello, peer)
	case ctx.Err() != nil:
		err = r.timedOut(ctx)
	}
	if err != nil {
		l.close(err)
		r.tasks.Go(l.wait)
		return nil, err
	}
	return l, nil
}

// open calls Dial and holds it to the end of ctx: a stream that comes later is closed.
func (r *run) open(ctx context.Context) (io.ReadWriteCloser, error) {
	type opened struct {
		stream io.ReadWriteCloser
		err    error
	}
	result := make(chan opened)
	r.tasks.Go(func() {
		stream, err := r.Dial(ctx)
		select {
		case result <- opened{stream, err}:
		case <-ctx.Done():
			if err == nil {
				stream.Close()
			}
		}
	})
	select {
	case o := <-result:
		return o.stream, o.err
	case <-ctx.Done():
		return nil, r.timedOut(ctx)
	}
}

// timedOut names the reason why a dial's ctx ended.
func (r *run) timedOut(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w from the gateway within %v", errHello, r.timing.Dial)
	}
	return ctx.Err()
}
