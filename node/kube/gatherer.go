package kube

import (
	"errors"
	"net"
	"sync"
)

// gatherer is a connection whose writes can be held back and sent as one. SPDY writes every frame in
// three pieces, each of which would become a WebSocket message and a TLS record of its own.
type gatherer struct {
	net.Conn
	mu      sync.Mutex
	holding bool   // guarded by mu
	held    []byte // guarded by mu
}

// Write sends p, or keeps a copy until release.
func (g *gatherer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.holding {
		return g.Conn.Write(p)
	}
	g.held = append(g.held, p...)
	return len(p), nil
}

// Close closes the connection. That it was closed before is no error: SPDY would wait a second for
// somebody to hear of it.
func (g *gatherer) Close() error {
	if err := g.Conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// hold begins to gather what is written, by whomever.
func (g *gatherer) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = true
}

// release sends what was gathered.
func (g *gatherer) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holding = false
	if len(g.held) == 0 {
		return nil
	}
	_, err := g.Conn.Write(g.held)
	g.held = g.held[:0]
	return err
}
