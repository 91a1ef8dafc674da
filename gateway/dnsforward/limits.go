package dnsforward

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what Peers may ask; zero fields take their defaults. A UDP question beyond a limit is
// dropped, as asking again later is what the client's resolver does anyway; over TCP the connection
// is not read further until there is room.
type Limits struct {
	// Rate is in questions per second and Peer; 0 means 2,000. Burst may come at once; 0 means 4,000.
	Rate, Burst int
	// Pending is how many questions of one Peer wait for answers at a time; 0 means 1,024.
	Pending int
	// Conns is how many TCP connections one Peer may hold; 0 means 64.
	Conns int
	// TotalPending is Pending for all Peers together; 0 means 8,192.
	TotalPending int
}

func (l Limits) withDefaults() Limits {
	for v, d := range map[*int]int{&l.Rate: 2000, &l.Burst: 4000, &l.Pending: 1024, &l.Conns: 64, &l.TotalPending: 8192} {
		if *v == 0 {
			*v = d
		}
	}
	return l
}

// clients counts what each Peer has under way.
type clients struct {
	limits Limits

	mu    sync.Mutex // guards what follows
	all   map[netip.Addr]*client
	total int
}

// client is one Peer, by its node address.
type client struct {
	rate           *rate.Limiter
	pending, conns int
	seen           time.Time
}

const (
	forgetAfter = time.Minute // of a Peer with nothing under way; its bucket is full again by then
	forgetAbove = 256         // Peers remembered
)

// get returns the client of addr. It is called with mu held.
func (c *clients) getLocked(addr netip.Addr, now time.Time) *client {
	cl := c.all[addr]
	if cl == nil {
		if len(c.all) >= forgetAbove {
			for a, old := range c.all {
				if old.pending == 0 && old.conns == 0 && now.Sub(old.seen) > forgetAfter {
					delete(c.all, a)
				}
			}
		}
		cl = &client{rate: rate.NewLimiter(rate.Limit(c.limits.Rate), c.limits.Burst)}
		c.all[addr] = cl
	}
	cl.seen = now
	return cl
}

// begin admits a question of addr, which done must end, or refuses it.
func (c *clients) begin(addr netip.Addr, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.getLocked(addr, now)
	if cl.pending >= c.limits.Pending || c.total >= c.limits.TotalPending || !cl.rate.AllowN(now, 1) {
		return false
	}
	cl.pending++
	c.total++
	return true
}

func (c *clients) done(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.getLocked(addr, time.Now()).pending--
	c.total--
}

// connect admits a TCP connection of addr, which disconnect must end, or refuses it.
func (c *clients) connect(addr netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.getLocked(addr, time.Now())
	if cl.conns >= c.limits.Conns {
		return false
	}
	cl.conns++
	return true
}

func (c *clients) disconnect(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.getLocked(addr, time.Now()).conns--
}
