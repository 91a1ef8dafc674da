package vip

// Which of a lease's places a queue uses.
const (
	inFamily = iota
	inHolder
)

// queue orders leases by last use, the longest idle first. Packets mark leases without telling the queue; it learns
// of that when a lease comes to the front. It is a binary heap over lower bounds, so an operation takes O(log n) and
// one more O(log n) per lease that was used since it was last looked at.
type queue struct {
	which int
	items []item
}

type item struct {
	*lease
	key int32 // last use as far as the queue knows: the true one is the same or later
}

func (q *queue) len() int { return len(q.items) }

func (q *queue) push(l *lease) {
	q.items = append(q.items, item{})
	q.up(len(q.items)-1, item{l, l.used.Load()})
}

func (q *queue) remove(l *lease) {
	i, last := int(l.at[q.which]), len(q.items)-1
	moved := q.items[last]
	q.items[last] = item{}
	q.items = q.items[:last]
	if i == last {
		return
	}
	q.up(i, moved)
	q.down(int(moved.at[q.which]), moved)
}

// oldest returns the lease that has been idle longest, and the second of its last use. There must be one.
func (q *queue) oldest() (*lease, int32) {
	for n := 0; ; n++ {
		first := q.items[0]
		used := first.used.Load()
		if used <= first.key {
			return first.lease, used
		}
		if n > len(q.items)/16 {
			q.refresh()
			continue
		}
		q.down(0, item{first.lease, used})
	}
}

// refresh learns of all uses at once, in O(n): less than one by one when most leases were used.
func (q *queue) refresh() {
	for i := range q.items {
		q.items[i].key = q.items[i].used.Load()
	}
	for i := len(q.items)/2 - 1; i >= 0; i-- {
		q.down(i, q.items[i])
	}
}

func (q *queue) set(i int, it item) {
	q.items[i] = it
	it.at[q.which] = int32(i)
}

// up places it at i or nearer to the front.
func (q *queue) up(i int, it item) {
	for i > 0 {
		parent := (i - 1) / 2
		if q.items[parent].key <= it.key {
			break
		}
		q.set(i, q.items[parent])
		i = parent
	}
	q.set(i, it)
}

// down places it at i or further from the front.
func (q *queue) down(i int, it item) {
	for {
		child := 2*i + 1
		if child >= len(q.items) {
			break
		}
		if right := child + 1; right < len(q.items) && q.items[right].key < q.items[child].key {
			child = right
		}
		if q.items[child].key >= it.key {
			break
		}
		q.set(i, q.items[child])
		i = child
	}
	q.set(i, it)
}
