package routefacts

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/policy"
)

// attempts is how often the facts are read anew while they change under the reading. A change every
// few milliseconds over that many readings is a routing daemon at its start; the caller's next
// event brings the rest.
const attempts = 5

// Read returns the facts of the calling thread's network namespace, all but the IPsec policies. They
// belong together: if something changed while they were read, they are read again. If that does not
// end, the last reading is returned with a warning. An error means that the kernel did not answer at all.
func Read(ctx context.Context) (policy.Facts, error) {
	var facts policy.Facts
	settled, err := untilSteady(ctx, func() (steady bool, err error) {
		facts, steady, err = readOnce()
		return steady, err
	})
	if err != nil {
		return policy.Facts{}, fmt.Errorf("read the routes of this host: %w", err)
	}
	if !settled {
		facts.Warnings = append(facts.Warnings, fmt.Sprintf("the routes changed during each of %d readings; some may be missing", attempts))
	}
	return facts, nil
}

// untilSteady calls read until nothing changed under it; settled is false if that did not happen.
func untilSteady(ctx context.Context, read func() (steady bool, err error)) (settled bool, err error) {
	for range attempts {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if settled, err = read(); settled || err != nil {
			return settled, err
		}
	}
	return false, nil
}

// readOnce makes all dumps; steady reports that nothing is known to have changed in between.
func readOnce() (facts policy.Facts, steady bool, err error) {
	c := collector{steady: true, links: map[int]int{}}
	c.each("interfaces", c.dump("interfaces", linkRequest(), unix.RTM_NEWLINK), c.link)
	c.each("addresses", c.dump("addresses", familyRequest(unix.RTM_GETADDR, unix.AF_UNSPEC), unix.RTM_NEWADDR), c.address)
	var routes [][]byte
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		c.each("rules", c.dump("rules", familyRequest(unix.RTM_GETRULE, family), unix.RTM_NEWRULE), c.rule)
		routes = append(routes, c.dump("routes", familyRequest(unix.RTM_GETROUTE, family), unix.RTM_NEWROUTE)...)
	}
	c.routes(routes)
	if len(c.unresolved) > 0 {
		c.each("next hops", c.dump("next hops", nexthopRequest(), unix.RTM_NEWNEXTHOP), c.nexthop)
		c.resolve()
	}
	c.checkLinks()
	c.facts.Warnings = append(c.facts.Warnings, c.unread.sentences()...)
	return c.facts, c.steady, c.err
}

func linkRequest() *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	return r
}

func familyRequest(request int, family uint8) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	r.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
	return r
}

func nexthopRequest() *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP)
	r.AddRawData(make([]byte, unix.SizeofNhmsg))
	return r
}

// collector gathers the facts of one reading.
type collector struct {
	facts      policy.Facts
	links      map[int]int // interface index -> place in facts.Links
	nexthops   nexthops
	unresolved []objectRoute
	unread     unread
	steady     bool
	err        error
}

// objectRoute is a route that says where it leads by the number of a next hop object only.
type objectRoute struct {
	route   int // place in facts.Routes
	nexthop uint32
}

// dump asks the kernel for one kind of entry.
func (c *collector) dump(what string, r *nl.NetlinkRequest, answer uint16) (messages [][]byte) {
	if c.err != nil {
		return nil
	}
	messages, steady, err := dump(r, unix.NETLINK_ROUTE, answer)
	c.steady = c.steady && steady
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP):
		// A kernel without IPv6 or without policy routing has none of these.
	case err != nil:
		c.err = fmt.Errorf("netlink dump of %s: %w", what, err)
	}
	return messages
}

// dump sends a request and returns the answers; steady is false if the kernel says that something
// changed while it wrote them.
func dump(r *nl.NetlinkRequest, protocol int, answer uint16) (messages [][]byte, steady bool, err error) {
	err = r.ExecuteIter(protocol, answer, func(m []byte) bool {
		messages = append(messages, m) // each has memory of its own
		return true
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return messages, false, nil
	}
	return messages, true, err
}

// each hands all entries to visit and counts those that it does not understand.
func (c *collector) each(what string, messages [][]byte, visit func([]byte) error) {
	for _, m := range messages {
		if err := visit(m); err != nil {
			c.unread.add(what, err)
		}
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

// routes decodes each route into its place in the facts.
func (c *collector) routes(messages [][]byte) {
	var d routeDecoder
	routes := make([]policy.Route, len(messages))
	n := 0
	c.each("routes", messages, func(m []byte) error {
		use, err := d.decode(m, &routes[n])
		switch {
		case err != nil || !use:
			routes[n] = policy.Route{}
			return err
		case d.nexthop != 0 && routes[n].NextHops == nil && !leadsNowhere(routes[n].Type):
			c.unresolved = append(c.unresolved, objectRoute{n, d.nexthop})
		}
		n++
		return nil
	})
	c.facts.Routes = routes[:n]
}

func (c *collector) nexthop(m []byte) error {
	id, n, err := decodeNexthop(m)
	if err == nil {
		if c.nexthops == nil {
			c.nexthops = nexthops{}
		}
		c.nexthops[id] = n
	}
	return err
}

// resolve completes the routes that only name a next hop object, and drops those that lead nowhere.
func (c *collector) resolve() {
	dead := map[int]bool{}
	for _, o := range c.unresolved {
		use, known := c.nexthops.resolve(&c.facts.Routes[o.route], o.nexthop)
		dead[o.route] = !use
		c.steady = c.steady && known
	}
	place := -1
	c.facts.Routes = slices.DeleteFunc(c.facts.Routes, func(policy.Route) bool {
		place++
		return dead[place]
	})
}

// checkLinks notices routes over interfaces that came after the interfaces were read.
func (c *collector) checkLinks() {
	for i := range c.facts.Routes {
		for _, h := range c.facts.Routes[i].NextHops {
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
