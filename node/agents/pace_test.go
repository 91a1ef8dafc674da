package agents

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/enrol"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/kube"
)

func TestPause(t *testing.T) {
	for _, row := range []struct {
		trouble time.Duration
		spent   int
		final   bool
		want    time.Duration
	}{
		{0, 0, false, minPause},
		{5 * time.Second, 0, false, 500 * time.Millisecond},
		{time.Minute, 1, false, 6 * time.Second},
		{time.Hour, 0, false, maxPause},
		{0, 2, false, 2 * time.Second},
		{0, 5, false, 16 * time.Second},
		{time.Hour, 5, false, maxPause},
		{0, 100, false, maxSpentPause},
		{0, 0, true, finalPause},
		{time.Hour, 100, true, finalPause},
	} {
		if got := pause(row.trouble, row.spent, row.final); got != row.want {
			t.Errorf("pause(%v, %d, %v) = %v, want %v", row.trouble, row.spent, row.final, got, row.want)
		}
	}
}

func TestJitterIsBounded(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 1000 {
		d := jitter(time.Second)
		if seen[d] = true; d < time.Second/2 || d > time.Second {
			t.Fatalf("%v", d)
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d values", len(seen))
	}
}

func TestWhatAnErrorMeans(t *testing.T) {
	refusal := func(reason string) error {
		return explain(kube.Agent{Namespace: "shop", Pod: "a"}, fmt.Errorf("enrol: %w", &enrol.Refusal{Reason: reason}))
	}
	code := func(c failure.Code) error { return fmt.Errorf("wrapped: %w", failure.Newf(c, "text")) }
	for _, row := range []struct {
		name                                     string
		err                                      error
		final, finalAgain, blamesPod, repeatable bool
	}{
		{"not any", nil, false, false, true, true},
		{"plain", errors.New("lost"), false, false, true, true},
		{"pod gone", fmt.Errorf("pod: %w", kube.ErrPodGone), false, false, false, false},
		{"general", code(failure.General), false, false, true, true},
		{"unreachable", code(failure.Unreachable), false, false, true, true},
		{"usage", code(failure.Usage), true, true, false, false},
		{"permission", code(failure.Permission), true, true, false, false},
		{"refused", code(failure.Refused), true, true, false, false},
		{"invalid", refusal(enrol.Invalid), true, true, false, false},
		{"malformed", refusal(enrol.Malformed), true, true, false, false},
		{"incompatible", refusal(enrol.Incompatible), false, true, true, false},
		{"conflict", refusal(enrol.Conflict), false, false, true, false},
		{"full", refusal(enrol.TooManyNodes), false, false, true, false},
		{"stopping", refusal(enrol.Stopping), false, false, true, true},
		{"failed", refusal(enrol.Failed), false, false, true, true},
	} {
		got := [4]bool{isFinal(row.err, false), isFinal(row.err, true), blamesPod(row.err), repeatable(row.err)}
		if want := [4]bool{row.final, row.finalAgain, row.blamesPod, row.repeatable}; got != want {
			t.Errorf("%s: final, again, blames the pod, repeatable: %v, want %v", row.name, got, want)
		}
	}
}
