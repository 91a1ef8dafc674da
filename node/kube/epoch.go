package kube

import (
	"context"
	"sync"
)

// epoch is a stretch of time in which the way to the API server stays the same. Its context ends with it.
type epoch struct {
	mu  sync.Mutex
	ctx context.Context    // guarded by mu
	end context.CancelFunc // guarded by mu
}

func newEpoch() *epoch {
	e := &epoch{}
	e.ctx, e.end = context.WithCancel(context.Background())
	return e
}

func (e *epoch) current() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ctx
}

// next ends the present one.
func (e *epoch) next() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.end()
	e.ctx, e.end = context.WithCancel(context.Background())
}

// Reconnect makes all requests and watches use new connections, at once: the path to the API server
// was away, and old connections may be dead without anybody having said so (HTTP/2 notices after 45
// seconds, TCP's retransmissions may come much later than the path is back). Requests under way fail.
// Streams of [Client.DialPod] stay.
func (c *Client) Reconnect() {
	c.connections.CloseAll()
	c.epoch.next()
}
