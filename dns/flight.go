package dns

import (
	"sync"
	"time"
)

// waitersPerFlight bounds who waits for one answer.
const waitersPerFlight = 4096

// client is where a reply goes. send may be called from several goroutines and does not keep the message.
type client interface{ send(msg []byte) }

// waiter is a client whose question is being asked.
type waiter struct {
	query  query
	client client
	tcp    bool
	since  time.Time
	trace  chan<- *answer // if not nil, gets the answer in place of client; has room for it
}

// class tells apart equal questions that are asked in different ways: by TCP, or by UDP for a certain size.
func (w *waiter) class() string {
	if w.tcp {
		return "tcp"
	}
	return string([]byte{byte(w.query.udpBytes >> 8), byte(w.query.udpBytes)})
}

// flights are the questions being asked. Equal ones are asked once.
type flights struct {
	mu    sync.Mutex
	byKey map[string][]waiter
}

// join makes w wait for the answer to key and reports whether w is the first, so that somebody has to ask. A flight
// that is full turns w away.
func (f *flights) join(key string, w waiter) (first, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiters, flying := f.byKey[key]
	if len(waiters) >= waitersPerFlight {
		return false, false
	}
	if f.byKey == nil {
		f.byKey = make(map[string][]waiter)
	}
	f.byKey[key] = append(waiters, w)
	return !flying, true
}

// land ends the flight and returns those who wait for its answer.
func (f *flights) land(key string) []waiter {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiters := f.byKey[key]
	delete(f.byKey, key)
	return waiters
}

func (f *flights) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.byKey)
}
