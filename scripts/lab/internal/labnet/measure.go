package labnet

import (
	"slices"
	"sync"
	"time"
)

// Latency sums up durations, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P95 float64 `json:"p95_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// summarize sorts took. Of none it returns zeros.
func summarize(took []time.Duration) Latency {
	if len(took) == 0 {
		return Latency{}
	}
	slices.Sort(took)
	at := func(percent int) float64 {
		return milliseconds(took[min(len(took)-1, len(took)*percent/100)])
	}
	return Latency{P50: at(50), P95: at(95), P99: at(99), Max: milliseconds(took[len(took)-1])}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// tally collects the outcome of many operations from many goroutines.
type tally struct {
	mu     sync.Mutex // guards the rest
	took   []time.Duration
	failed int
	errors map[string]int
}

// Outcome is a tally as printed.
type Outcome struct {
	OK      int            `json:"ok"`
	Failed  int            `json:"failed"`
	Seconds float64        `json:"seconds"`
	Rate    float64        `json:"per_second"`
	Latency                // of those that succeeded
	Errors  map[string]int `json:"errors,omitempty"`
}

func (t *tally) add(took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.took = append(t.took, took)
		return
	}
	t.failed++
	if t.errors == nil {
		t.errors = map[string]int{}
	}
	// A few distinct texts are enough: source ports make each unique.
	if text := err.Error(); t.errors[text] > 0 || len(t.errors) < 5 {
		t.errors[text]++
	}
}

func (t *tally) outcome(total time.Duration) Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Outcome{
		OK: len(t.took), Failed: t.failed, Seconds: total.Seconds(),
		Rate: float64(len(t.took)) / total.Seconds(), Latency: summarize(t.took), Errors: t.errors,
	}
}
