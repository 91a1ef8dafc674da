package carrier

import "time"

// Timing holds the intervals of a Keeper or Server. A zero field means its default.
type Timing struct {
	Hello   time.Duration // a stream whose other side has not said hello by then is given up; 5 s
	Echo    time.Duration // between echoes; 5 s
	Miss    time.Duration // unanswered this long, a stream is suspect and the node opens another beside it; 2.5 s
	Dead    time.Duration // unanswered this long, a stream is closed; 30 s
	Dial    time.Duration // for a dial and the hello that follows, together; 5 s
	MinWait time.Duration // between the starts of two dials, at first; doubled after each failure; 100 ms
	MaxWait time.Duration // between the starts of two dials, at most; 5 s
	Drain   time.Duration // how long a replaced stream is still read; 1 s
	Bye     time.Duration // how long a stream may take to say goodbye; 100 ms
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Hello, 5 * time.Second},
		{&t.Echo, 5 * time.Second},
		{&t.Miss, 2500 * time.Millisecond},
		{&t.Dead, 30 * time.Second},
		{&t.Dial, 5 * time.Second},
		{&t.MinWait, 100 * time.Millisecond},
		{&t.MaxWait, 5 * time.Second},
		{&t.Drain, time.Second},
		{&t.Bye, 100 * time.Millisecond},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return t
}
