package routefacts

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// attempts is how often the facts are read anew while they change under the reading. A change every
// few milliseconds over that many readings is a routing daemon at its start; the caller's next
// event brings the rest.
const attempts = 5

// Read returns the facts of the calling thread's network namespace. They belong together: if
// something changed while they were read, they are read again. If that does not end, the last
// reading is returned with a warning. An error means that the kernel did not answer at all.
func Read(ctx context.Context) (policy.Facts, error) {
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return policy.Facts{}, fmt.Errorf("read the routes of this host: %w", err)
		}
		facts, steady, err := readOnce()
		if err != nil {
			return policy.Facts{}, fmt.Errorf("read the routes of this host: %w", err)
		}
		if steady {
			return facts, nil
		}
		if try == attempts {
			facts.Warnings = append(facts.Warnings, fmt.Sprintf("the routes changed during each of %d readings; some may be missing", attempts))
			return facts, nil
		}
	}
}

// readOnce makes all dumps; steady reports that nothing is known to have changed in between.
func readOnce() (facts policy.Facts, steady bool, err error) {
	c := collector{steady: true, links: map[int]int{}}
	c.dump("interfaces", unix.RTM_GETLINK, unix.RTM_NEWLINK, unix.AF_UNSPEC, c.link)
	c.dump("addresses", unix.RTM_GETADDR, unix.RTM_NEWADDR, unix.AF_UNSPEC, c.address)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		c.dump("rules", unix.RTM_GETRULE, unix.RTM_NEWRULE, family, c.rule)
		c.dump("routes", unix.RTM_GETROUTE, unix.RTM_NEWROUTE, family, c.route)
	}
	c.checkLinks()
	c.facts.Warnings = append(c.facts.Warnings, c.unread.sentences()...)
	return c.facts, c.steady, c.err
}

// collector gathers the facts of one reading.
type collector struct {
	facts  policy.Facts
	links  map[int]int // interface index -> place in facts.Links
	unread unread
	steady bool
	err    error
}

// dump asks the kernel for one kind of entry and hands each to visit.
func (c *collector) dump(what string, request int, answer uint16, family uint8, visit func([]byte) error) {
	if c.err != nil {
		return
	}
	r := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	if request == unix.RTM_GETLINK {
		r.AddData(nl.NewIfInfomsg(int(family)))
	} else {
		r.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
	}
	err := r.ExecuteIter(unix.NETLINK_ROUTE, answer, func(m []byte) bool {
		if err := visit(m); err != nil {
			c.unread.add(what, err)
		}
		return true
	})
	switch {
	case errors.Is(err, netlink.ErrDumpInterrupted):
		c.steady = false
	case errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP):
		// A kernel without IPv6 or without policy routing has none of these.
	case err != nil:
		c.err = fmt.Errorf("netlink dump of %s: %w", what, err)
	}
}

func (c *collector) link(m []byte) error {
	l, err := decodeLink(m)
	if err == nil {
		c.links[l.Index] = len(c.facts.Links)
		c.facts.Links = append(c.facts.Links, l)
	}
	return err
}

func (c *collector) address(m []byte) error {
	index, p, err := decodeAddress(m)
	if err != nil {
		return err
	}
	if i, ok := c.links[index]; ok {
		c.facts.Links[i].Addresses = append(c.facts.Links[i].Addresses, p)
	} else {
		c.steady = false // an interface that came after the first dump
	}
	return nil
}

func (c *collector) rule(m []byte) error {
	r, err := decodeRule(m)
	if err == nil {
		c.facts.Rules = append(c.facts.Rules, r)
	}
	return err
}

func (c *collector) route(m []byte) error {
	r, use, err := decodeRoute(m)
	if err == nil && use {
		c.facts.Routes = append(c.facts.Routes, r)
	}
	return err
}

// checkLinks notices routes over interfaces that came after the interfaces were read.
func (c *collector) checkLinks() {
	for _, r := range c.facts.Routes {
		for _, h := range r.NextHops {
			if _, ok := c.links[h.Link]; !ok && h.Link != 0 {
				c.steady = false
			}
		}
	}
}

// unread counts the entries that could not be understood and keeps the first reason for each kind.
type unread struct {
	kinds  []string
	first  map[string]error
	counts map[string]int
}

func (u *unread) add(what string, err error) {
	if u.first == nil {
		u.first, u.counts = map[string]error{}, map[string]int{}
	}
	if u.counts[what]++; u.counts[what] == 1 {
		u.kinds = append(u.kinds, what)
		u.first[what] = err
	}
}

func (u *unread) sentences() []string {
	var out []string
	for _, what := range u.kinds {
		out = append(out, fmt.Sprintf("%d of the %s of this host could not be read and are left out of the plan: %v", u.counts[what], what, u.first[what]))
	}
	return out
}
