// Package accept has what all servers of streams share: how to take the next one. It keeps no state and decides nothing
// about who may connect.
package accept

import (
	"context"
	"errors"
	"net"
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
