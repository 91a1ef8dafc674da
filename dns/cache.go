package dns

import (
	"container/list"
	"sync"
	"time"
)

const (
	cacheBytes      = 4 << 20  // of one source's answers
	cacheEntryBytes = 32 << 10 // longer answers are not remembered
	entryOverhead   = 300      // bytes of bookkeeping per answer, about
	addrBytes       = 24       // of a netip.Addr
	stringBytes     = 16       // of a string, whose text is another's
)

// cache remembers the answers of one source until their time is over, the least recently used ones giving way.
type cache struct {
	mu      sync.Mutex
	entries map[string]*list.Element // of *entry
	recent  list.List                // most recently used first
	bytes   int
}

type entry struct {
	key    string
	answer *answer
}

func newCache() *cache { return &cache{entries: make(map[string]*list.Element)} }

// get returns the answer for key if it is still good at now.
func (c *cache) get(key []byte, now time.Time) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[string(key)]
	if el == nil {
		return nil
	}
	e := el.Value.(*entry)
	if now.Sub(e.answer.born) >= e.answer.life {
		c.removeLocked(el)
		return nil
	}
	c.recent.MoveToFront(el)
	return e.answer
}

// put remembers a under key if it may be. No key stands for a question whose answer is nobody else's.
func (c *cache) put(key string, a *answer) {
	if key == "" || a.life < time.Second || len(a.body) > cacheEntryBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.entries[key]; old != nil {
		c.removeLocked(old)
	}
	e := &entry{key: key, answer: a}
	c.entries[key] = c.recent.PushFront(e)
	c.bytes += e.size()
	for c.bytes > cacheBytes {
		c.removeLocked(c.recent.Back())
	}
}

func (c *cache) removeLocked(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.entries, e.key)
	c.bytes -= e.size()
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

func (e *entry) size() int {
	a := e.answer
	bytes := cap(a.body) + len(a.opt) + 2*len(a.ttls) + addrBytes*cap(a.addrs)
	if len(a.addrs) > 0 {
		bytes *= 2 // what clients get of it may be another answer: see shown
	}
	return len(e.key) + len(a.name) + bytes + addrBytes*cap(a.excused) + stringBytes*cap(a.agents) + entryOverhead
}
