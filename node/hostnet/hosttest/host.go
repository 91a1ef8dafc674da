package hosttest

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// Errors as a kernel gives them.
var (
	ErrNoDevice = errors.New("no such device")
	ErrDown     = errors.New("network is down")
)

// Host is a host in memory. The zero value has no interface, rule or route, and has IPv6.
type Host struct {
	// Around is called before and after each change that a [hostnet.Host] makes, with what it is. An
	// error from the call before is the change's. Optional; not to be set while the host is in use.
	Around func(step string, after bool) error

	mu       sync.Mutex // guards the fields below
	state    State
	index    int // of the interface created last
	reads    int
	watchers map[chan struct{}]hostnet.Scope
}

var _ hostnet.Host = (*Host)(nil)

// State is what is on the host, in the order in which it came.
type State struct {
	Links  map[string]Link
	Rules  []Rule
	Routes []Route
	// Filters are the versions of nftables tables, by the interface in their name; "" is one that
	// somebody flushed.
	Filters map[string]string
}

// Link is an interface.
type Link struct {
	hostnet.Link
	Index int
	// Connection is the one in the interface's alias; "" is another program's interface.
	Connection string
}

// Rule is a policy rule.
type Rule struct {
	hostnet.Rule
	Table, Protocol int
}

// Route is a route of any table. Dev is "" for one that needs no interface.
type Route struct {
	hostnet.Route
	Dev             string
	Table, Protocol int
}

// clone returns a copy that shares nothing with s.
func (s State) clone() State {
	out := State{Links: make(map[string]Link), Rules: slices.Clone(s.Rules), Routes: slices.Clone(s.Routes), Filters: make(map[string]string)}
	for name, l := range s.Links {
		l.Addresses, l.Settings = slices.Clone(l.Addresses), maps.Clone(l.Settings)
		out.Links[name] = l
	}
	maps.Copy(out.Filters, s.Filters)
	return out
}

// State returns what is on the host now, a copy.
func (h *Host) State() State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state.clone()
}

// New returns a host with a state, which it copies.
func New(s State) *Host {
	h := &Host{state: s.clone(), index: 100}
	return h
}

// Change is another program that changes the host; who watches is told.
func (h *Host) Change(change func(*State)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = h.state.clone()
	change(&h.state)
	h.tell()
}

// RemoveLink removes an interface and what goes with it, as the kernel does when its last descriptor
// is closed.
func (s *State) RemoveLink(name string) {
	delete(s.Links, name)
	s.Routes = slices.DeleteFunc(s.Routes, func(r Route) bool { return r.Dev == name })
}

// tell signals everybody who watches. The lock is held.
func (h *Host) tell() {
	for c := range h.watchers {
		select {
		case c <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// Watch signals every change, also those outside of the scope.
func (h *Host) Watch(scope hostnet.Scope) (<-chan struct{}, func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan struct{}, 1)
	if h.watchers == nil {
		h.watchers = make(map[chan struct{}]hostnet.Scope)
	}
	h.watchers[c] = scope
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, c)
	}, nil
}

// Watchers returns how many watch.
func (h *Host) Watchers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.watchers)
}

// Reads returns how often the host was read.
func (h *Host) Reads() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads
}

// CreateTUN creates an interface as a kernel does that has IPv6 and strict reverse-path filtering.
func (h *Host) CreateTUN(scope hostnet.Scope) (*os.File, int, error) {
	index := 0
	err := h.step("create "+scope.Interface, func() error {
		if _, exists := h.state.Links[scope.Interface]; exists {
			return hostnet.ErrForeign
		}
		h.index++
		index = h.index
		h.state = h.state.clone()
		h.state.Links[scope.Interface] = Link{
			Index: index, Connection: scope.Name,
			Link: hostnet.Link{MTU: 1500, Settings: map[string]string{"ipv4/rp_filter": "1", "ipv6/accept_ra": "1", "ipv6/disable_ipv6": "0"}},
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	file, err := os.Open(os.DevNull)
	return file, index, err
}

// step makes one change, with the calls around it.
func (h *Host) step(what string, change func() error) error {
	if h.Around != nil {
		if err := h.Around(what, false); err != nil {
			return err
		}
	}
	h.mu.Lock()
	err := change()
	if err == nil {
		h.tell()
	}
	h.mu.Unlock()
	if h.Around != nil && err == nil {
		err = h.Around(what, true)
	}
	return err
}

// link returns the scope's interface if it is ours.
func (h *Host) link(scope hostnet.Scope) (Link, bool) {
	l, exists := h.state.Links[scope.Interface]
	return l, exists && (l.Connection != "" && l.Connection == scope.Name || scope.Index != 0 && scope.Index == l.Index)
}

// Read returns what carries our marks.
func (h *Host) Read(scope hostnet.Scope) (hostnet.Actual, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	s := h.state.clone()
	var a hostnet.Actual
	if _, ours := h.link(scope); ours {
		l := s.Links[scope.Interface].Link
		a.Link = &l
	}
	for _, r := range s.Routes {
		if r.Protocol == hostnet.Protocol && r.Table == scope.Table() {
			a.Routes = append(a.Routes, r.Route)
		}
	}
	for _, r := range s.Rules {
		if r.Protocol == hostnet.Protocol && r.Table == scope.Table() {
			a.Rules = append(a.Rules, r.Rule)
		}
	}
	a.Filter, a.FilterTable = s.Filters[scope.Interface], hasKey(s.Filters, scope.Interface)
	return a, nil
}

func hasKey(m map[string]string, key string) bool {
	_, ok := m[key]
	return ok
}

// Marked returns nothing: cleaning up without a journal is for tests with a kernel.
func (h *Host) Marked() ([]hostnet.Scope, error) { return nil, nil }

// HasIPv6 is true.
func (h *Host) HasIPv6() bool { return true }

// DestroySockets finds none.
func (h *Host) DestroySockets(hostnet.Sockets) (int, error) { return 0, nil }

// Do makes one change.
func (h *Host) Do(c hostnet.Change) error {
	return h.step(c.String(), func() error {
		h.state = h.state.clone()
		return h.do(c)
	})
}

// do makes the changes that need no interface of ours.
func (h *Host) do(c hostnet.Change) error {
	s, table := &h.state, c.Scope.Table()
	switch c.Kind {
	case hostnet.AddFilter:
		s.Filters[c.Scope.Interface] = hostnet.FilterVersion
	case hostnet.DeleteFilter:
		delete(s.Filters, c.Scope.Interface)
	case hostnet.AddRule:
		s.addRule(Rule{c.Rule, table, hostnet.Protocol})
	case hostnet.DeleteRule:
		s.deleteRule(Rule{c.Rule, table, hostnet.Protocol})
	case hostnet.DeleteRoute:
		s.Routes = slices.DeleteFunc(s.Routes, func(r Route) bool {
			return r.Route == c.Route && r.Table == table && r.Protocol == hostnet.Protocol
		})
	case hostnet.ReplaceRoute:
		return h.replaceRoute(c)
	case hostnet.DeleteLink:
		if _, ours := h.link(c.Scope); ours {
			s.RemoveLink(c.Scope.Interface)
		}
	default:
		return h.doLink(c)
	}
	return nil
}

// addRule adds a rule behind those of its priority, unless there is such a one (fib_nl_newrule of
// net/core/fib_rules.c).
func (s *State) addRule(r Rule) {
	if !slices.Contains(s.Rules, r) {
		s.Rules = append(s.Rules, r)
	}
}

// deleteRule deletes the oldest rule that has what is asked for: a rule without a mark asks for any, and
// whether the selector is inverted is not asked (rule_find of net/core/fib_rules.c).
func (s *State) deleteRule(want Rule) {
	i := slices.IndexFunc(s.Rules, func(r Rule) bool {
		if want.Mark.Value == 0 {
			r.Mark.Value = 0
		}
		if want.Mark.Mask == 0 {
			r.Mark.Mask = 0
		}
		r.Not = want.Not
		return r == want
	})
	if i >= 0 {
		s.Rules = slices.Delete(s.Rules, i, i+1)
	}
}

// replaceRoute replaces what our table has for the prefix, and needs the interface, up.
func (h *Host) replaceRoute(c hostnet.Change) error {
	r := Route{Route: c.Route, Table: c.Scope.Table(), Protocol: hostnet.Protocol}
	if !c.Route.Throw {
		link, ours := h.link(c.Scope)
		switch {
		case !ours:
			return hostnet.ErrGone
		case !link.Up:
			return ErrDown
		}
		r.Dev = c.Scope.Interface
	}
	same := func(o Route) bool { return o.Prefix == r.Prefix && o.Table == r.Table }
	h.state.Routes = append(slices.DeleteFunc(h.state.Routes, same), r)
	return nil
}

// doLink changes our interface.
func (h *Host) doLink(c hostnet.Change) error {
	link, ours := h.link(c.Scope)
	if !ours {
		return ErrNoDevice
	}
	switch c.Kind {
	case hostnet.SetSetting:
		link.Settings[c.Setting] = c.Value
	case hostnet.SetMTU:
		link.MTU = c.MTU
	case hostnet.SetUp:
		link.Up = true
	case hostnet.AddAddress:
		link.Addresses = append(link.Addresses, c.Address)
	case hostnet.DeleteAddress:
		link.Addresses = slices.DeleteFunc(link.Addresses, func(p netip.Prefix) bool { return p == c.Address })
	default:
		return fmt.Errorf("unknown change %d", c.Kind)
	}
	h.state.Links[c.Scope.Interface] = link
	return nil
}
