package dns

import (
	"sync"
	"time"
)

const (
	deadAfter  = 2 // failures in a row
	retryFirst = time.Second
	retryMost  = 30 * time.Second
)

// health remembers whether a server answers.
//
//	alive ── deadAfter failures in a row ──► dead ── any answer ──► alive
//	                                          │ ▲
//	                                retryAt   ▼ │ failure: later
//	                                         probed
type health struct {
	mu       sync.Mutex
	failures int
	retryAt  time.Time // when dead: not probed before
}

// succeeded notes an answer and reports whether the server was dead before.
func (h *health) succeeded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.failures >= deadAfter
	h.failures = 0
	return was
}

// failed notes silence or an error and reports whether that makes the server dead.
func (h *health) failed(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures++
	wait := min(retryFirst<<min(h.failures-1, 10), retryMost)
	h.retryAt = now.Add(wait)
	return h.failures == deadAfter
}

func (h *health) dead() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures >= deadAfter
}

// probe reports whether a dead server is due to be tried again; if so the next is due only after a while.
func (h *health) probe(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures < deadAfter || now.Before(h.retryAt) {
		return false
	}
	h.retryAt = now.Add(retryMost)
	return true
}
