package routefacts

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestMerge plays events at some milliseconds and looks when they are reported. No event falls together
// with a report, where either may come first.
func TestMerge(t *testing.T) {
	every := func(step, until int) (at []int) {
		for ms := 1; ms <= until; ms += step {
			at = append(at, ms)
		}
		return at
	}
	for name, tc := range map[string]struct {
		events  []int
		reports []int
	}{
		"nothing happens":                      {nil, []int{30_000, 60_000}},
		"one event":                            {[]int{100}, []int{150, 30_150, 60_150}},
		"a client at its start":                {[]int{100, 105, 130, 170}, []int{220, 30_220, 60_220}},
		"a pause of just less than is quiet":   {[]int{100, 149}, []int{199, 30_199, 60_199}},
		"two changes":                          {[]int{100, 160}, []int{150, 210, 30_210, 60_210}},
		"a second full of routes":              {every(3, 1000), []int{251, 503, 755, 1007, 31_007, 61_007}},
		"a daemon that never rests":            {every(40, 601), []int{251, 531, 651, 30_651, 60_651}},
		"an event just before the slow resync": {[]int{29_990}, []int{30_040, 60_040}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := play(t, tc.events, 61*time.Second+500*time.Millisecond); !slices.Equal(got, tc.reports) {
					t.Errorf("reported at %v ms, want %v", got, tc.reports)
				}
			})
		})
	}
}

// play runs a merger for some time and returns when it reported, in milliseconds.
func play(t *testing.T, events []int, long time.Duration) (reports []int) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	in, out := make(chan struct{}, 1), make(chan struct{}, 1)
	go func() { // ends with the last event; the bubble waits
		for _, ms := range events {
			time.Sleep(time.Until(start.Add(time.Duration(ms) * time.Millisecond)))
			in <- struct{}{}
		}
	}()
	go func() { // ends with ctx
		m := newMerger(start)
		m.run(ctx, in, out)
		close(out)
	}()
	for range out {
		reports = append(reports, int(time.Since(start).Milliseconds()))
	}
	return reports
}

// TestMergeForASlowReader: what happens while the reader is busy is one report.
func TestMergeForASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		in, out := make(chan struct{}, 1), make(chan struct{}, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			m := newMerger(time.Now())
			m.run(ctx, in, out)
		}()
		for range 5 {
			in <- struct{}{}
			time.Sleep(time.Second)
		}
		<-out
		select {
		case <-out:
			t.Error("a second report of what one reading shows")
		case <-time.After(time.Second):
		}
		cancel()
		<-done
	})
}
