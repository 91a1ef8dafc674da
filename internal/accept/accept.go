// Package accept has what all servers of streams share: how to take the next one, and how to serve a bounded number of
// them until the end. It keeps no state and decides nothing about who may connect.
package accept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Next accepts a connection, trying again when the system is short of something (descriptors, memory). It
// returns the listener's last error when ctx ends meanwhile.
func Next(ctx context.Context, listener net.Listener) (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		c, err := listener.Accept()
		var temporary interface{ Temporary() bool }
		if err == nil || !errors.As(err, &temporary) || !temporary.Temporary() {
			return c, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Streams says what [Serve] does with the connections it accepts. All fields but Refused are required.
type Streams struct {
	// What they are, for errors: "carrier streams".
	What string
	// Most is how many there may be at once.
	Most int
	// Handle runs one to its end, which must come soon after ctx has ended, and closes it.
	Handle func(ctx context.Context, stream net.Conn)
	// Refused is told of one too many, which is closed then; nil for nobody.
	Refused func()
}

// Serve handles what comes by listener until ctx ends, then it waits for all and returns nil. Another error is
// the listener's. It closes the listener.
func Serve(ctx context.Context, listener net.Listener, s Streams) error {
	ctx, stop := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop()
	tasks.Go(func() {
		<-ctx.Done()
		listener.Close()
	})
	places := make(chan struct{}, s.Most)
	for {
		stream, err := Next(ctx, listener)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept %s on %s: %w", s.What, listener.Addr(), err)
		}
		select {
		case places <- struct{}{}:
		default:
			if s.Refused != nil {
				s.Refused()
			}
			stream.Close()
			continue
		}
		tasks.Go(func() {
			defer func() { <-places }()
			s.Handle(ctx, stream)
		})
	}
}
