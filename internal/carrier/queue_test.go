package carrier

import (
	"testing"
	"time"

	"github.com/culvert-dev/culvert/internal/frame"
)

// drain returns the first byte of each packet of the queue, in order.
func drain(t *testing.T, q *queue) string {
	t.Helper()
	var got []byte
	for b := q.take(); b != nil; b = q.take() {
		var p frame.Parser
		for rest := b.bytes(); len(rest) > 0; {
			f, n, err := p.Next(rest)
			if err != nil || f.Type != frame.TypeData {
				t.Fatalf("frame of type %d, %v", f.Type, err)
			}
			got = append(got, f.Payload[0])
			rest = rest[n:]
		}
		b.release()
	}
	if q.payload != 0 || q.packets != 0 {
		t.Errorf("an empty queue counts %d bytes in %d packets", q.payload, q.packets)
	}
	return string(got)
}

func TestQueue(t *testing.T) {
	start := time.Now()
	for _, row := range []struct {
		name string
		do   func(q *queue) (dropped int)
		want string
		lost int
	}{
		{"in order", func(*queue) int { return 0 }, "abcdef", 0},
		{"bounded in bytes: the oldest go", func(q *queue) int { return q.trim(35000, 100) }, "def", 3},
		{"bounded in packets", func(q *queue) int { return q.trim(1<<20, 2) }, "ef", 4},
		{"everything", func(q *queue) int { return q.clear() }, "", 6},
		{"the old expire, but not what came later", func(q *queue) int {
			now := start.Add(2 * maxAge)
			q.add([]byte("g"), now)
			return q.expire(now.Add(-maxAge))
		}, "g", 6},
	} {
		t.Run(row.name, func(t *testing.T) {
			var q queue
			for _, first := range "abcdef" { // three packets fit in a block
				p := make([]byte, 10000)
				p[0] = byte(first)
				q.add(p, start)
			}
			if lost := row.do(&q); lost != row.lost {
				t.Errorf("dropped %d, want %d", lost, row.lost)
			}
			if got := drain(t, &q); got != row.want {
				t.Errorf("left %q, want %q", got, row.want)
			}
		})
	}
}

// TestQueueKnowsInitiations: an initiation is known to be there until it is taken or dropped.
func TestQueueKnowsInitiations(t *testing.T) {
	initiation := make([]byte, 148)
	initiation[0] = 1
	var q queue
	q.add(make([]byte, 148), time.Now())
	if q.initiation() {
		t.Error("another packet of that length counts as an initiation")
	}
	q.add(initiation, time.Now())
	if !q.initiation() {
		t.Error("the initiation is not seen")
	}
	q.add(make([]byte, 1000), time.Now())
	if q.trim(1000, 100); q.initiation() || q.packets != 1 {
		t.Error("the initiation is seen after it was dropped")
	}
	if q.clear(); q.initiation() {
		t.Error("the initiation is seen in an empty queue")
	}
}
