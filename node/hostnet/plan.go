package hostnet

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Actual is what is on the host of a [Scope]: nothing but what is marked as ours.
type Actual struct {
	// Link is the interface; nil means there is none, or that the one of that name is not ours.
	Link *Link
	// Routes of our table with our mark.
	Routes []Route
	// Rules that lead to our table with our mark.
	Rules []Rule
	// Filter is the version of the filter found in place, "" when it is missing or not whole.
	Filter string
	// FilterTable says that there is a table of the filter's name, whole or not.
	FilterTable bool
}

// Link is our interface as it is.
type Link struct {
	MTU       int
	Up        bool
	Addresses []netip.Prefix
	// Settings of the kernel for this interface, of those named in [settings]; missing ones do not
	// exist on this kernel.
	Settings map[string]string
}

// Kind of a change. The order of the constants is the order of execution: what protects comes before
// what carries traffic, additions before removals, and of the removals the rule, which ends the use of
// the rest, first and the filter last.
type Kind int

const (
	AddFilter Kind = iota
	SetSetting
	SetMTU
	AddAddress
	SetUp
	ReplaceRoute
	AddRule
	DeleteRule
	DeleteRoute
	DeleteAddress
	DeleteLink
	DeleteFilter
)

// Change is one step. Of the fields after Scope only those of its Kind are set.
type Change struct {
	Kind    Kind
	Scope   Scope
	MTU     int
	Address netip.Prefix
	Route   Route
	Rule    Rule
	Setting string
	Value   string
	// Source is the preferred source address of a route, the interface's own.
	Source netip.Addr
}

// String returns the command that does the same.
func (c Change) String() string {
	dev, family := c.Scope.Interface, ""
	if c.Rule.IPv6 {
		family = "-6 "
	}
	rule := fmt.Sprintf("priority %d %s lookup %d proto %d", c.Rule.Priority, c.Rule.selector(), c.Scope.Table(), Protocol)
	switch c.Kind {
	case AddFilter:
		return "nft add table inet " + filterTable(dev) + " (replies only)"
	case SetSetting:
		return fmt.Sprintf("sysctl -w net/%s=%s", settingPath(c.Setting, dev), c.Value)
	case SetMTU:
		return fmt.Sprintf("ip link set dev %s mtu %d", dev, c.MTU)
	case AddAddress:
		return fmt.Sprintf("ip address add %s dev %s noprefixroute", c.Address, dev)
	case SetUp:
		return fmt.Sprintf("ip link set dev %s up", dev)
	case ReplaceRoute:
		return "ip route replace " + c.route()
	case AddRule:
		return "ip " + family + "rule add " + rule
	case DeleteRule:
		return "ip " + family + "rule del " + rule
	case DeleteRoute:
		return "ip route del " + c.route()
	case DeleteAddress:
		return fmt.Sprintf("ip address del %s dev %s", c.Address, dev)
	case DeleteLink:
		return "ip link del dev " + dev
	case DeleteFilter:
		return "nft delete table inet " + filterTable(dev)
	}
	return fmt.Sprintf("unknown change %d", c.Kind)
}

// Object returns what the change is about, for people.
func (c Change) Object() string {
	dev, family := c.Scope.Interface, "IPv4"
	if c.Rule.IPv6 {
		family = "IPv6"
	}
	switch c.Kind {
	case AddFilter, DeleteFilter:
		return "the filter of " + dev
	case SetSetting:
		return fmt.Sprintf("the setting %s of %s", c.Setting, dev)
	case SetMTU:
		return "the MTU of " + dev
	case AddAddress, DeleteAddress:
		return fmt.Sprintf("the address %s of %s", c.Address.Addr(), dev)
	case AddRule, DeleteRule:
		return fmt.Sprintf("the %s rule at priority %d", family, c.Rule.Priority)
	case ReplaceRoute, DeleteRoute:
		return fmt.Sprintf("the route to %s in table %d", c.Route.Prefix, c.Scope.Table())
	}
	return "the state of " + dev
}

// route renders the change's route as ip route shows it.
func (c Change) route() string {
	if c.Route.Throw {
		return fmt.Sprintf("throw %s table %d proto %d", c.Route.Prefix, c.Scope.Table(), Protocol)
	}
	return fmt.Sprintf("%s dev %s table %d proto %d", c.Route.Prefix, c.Scope.Interface, c.Scope.Table(), Protocol)
}

// adds reports whether the change adds to the host.
func (k Kind) adds() bool { return k < DeleteRule }

// Plan returns the changes that lead from actual to desired, in the order in which to make them. The
// zero State leads to nothing of ours.
func Plan(scope Scope, desired State, actual Actual) []Change {
	p := planner{scope: scope}
	if desired.Interface != "" {
		p.filter(actual)
		p.link(desired, actual.Link)
	}
	p.routes(desired, actual.Routes)
	p.rules(desired, actual.Rules)
	if desired.Interface == "" {
		p.leave(actual)
	}
	slices.SortStableFunc(p.changes, func(a, b Change) int { return cmp.Compare(a.Kind, b.Kind) })
	return p.changes
}

// planner collects changes.
type planner struct {
	scope   Scope
	changes []Change
}

// add appends one change, of this scope.
func (p *planner) add(c Change) {
	c.Scope = p.scope
	p.changes = append(p.changes, c)
}

// filter asks for the filter where it is missing or not whole.
func (p *planner) filter(actual Actual) {
	if actual.Filter != FilterVersion {
		p.add(Change{Kind: AddFilter})
	}
}

// leave removes the interface and the filter.
func (p *planner) leave(actual Actual) {
	if actual.Link != nil {
		p.add(Change{Kind: DeleteLink})
	}
	if actual.FilterTable {
		p.add(Change{Kind: DeleteFilter})
	}
}

// link brings the interface to the desired settings, MTU and addresses.
func (p *planner) link(desired State, link *Link) {
	if link == nil {
		link = &Link{} // gone: the changes will fail and say so
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if name == disableIPv6 && !slices.ContainsFunc(desired.Addresses, isIPv6) {
			continue
		}
		if value, exists := link.Settings[name]; exists && value != settings[name] {
			p.add(Change{Kind: SetSetting, Setting: name, Value: settings[name]})
		}
	}
	if link.MTU != desired.MTU {
		p.add(Change{Kind: SetMTU, MTU: desired.MTU})
	}
	for _, a := range missing(desired.Addresses, link.Addresses) {
		p.add(Change{Kind: AddAddress, Address: a})
	}
	for _, a := range missing(link.Addresses, desired.Addresses) {
		p.add(Change{Kind: DeleteAddress, Address: a})
	}
	if !link.Up {
		p.add(Change{Kind: SetUp})
	}
}

// isIPv6 reports whether p is an IPv6 prefix.
func isIPv6(p netip.Prefix) bool { return p.Addr().Is6() }

// routes brings our table to the desired routes. A prefix has one route, so a changed kind replaces.
func (p *planner) routes(desired State, actual []Route) {
	have := make(map[netip.Prefix]Route, len(actual))
	for _, r := range actual {
		have[r.Prefix] = r
	}
	want := make(map[netip.Prefix]bool, len(desired.Routes))
	for _, r := range desired.Routes {
		want[r.Prefix] = true
		if old, exists := have[r.Prefix]; !exists || old != r {
			p.add(Change{Kind: ReplaceRoute, Route: r, Source: source(desired.Addresses, r)})
		}
	}
	for _, r := range actual {
		if !want[r.Prefix] {
			p.add(Change{Kind: DeleteRoute, Route: r})
		}
	}
}

// source returns the interface's address that fits a route through it; throw routes have none.
func source(addresses []netip.Prefix, r Route) netip.Addr {
	for _, a := range addresses {
		if !r.Throw && a.Addr().Is4() == r.Prefix.Addr().Is4() {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// rules brings the rules that lead to our table to the desired ones.
func (p *planner) rules(desired State, actual []Rule) {
	var want []Rule
	if n := desired.Priority.V4; n != 0 {
		want = append(want, newRule(false, n, desired.SkipMarks.V4))
	}
	if n := desired.Priority.V6; n != 0 {
		want = append(want, newRule(true, n, desired.SkipMarks.V6))
	}
	for _, r := range missing(want, actual) {
		p.add(Change{Kind: AddRule, Rule: r})
	}
	for _, r := range missing(actual, want) {
		p.add(Change{Kind: DeleteRule, Rule: r})
	}
}

// missing returns the elements of want that have lacks, in want's order.
func missing[T comparable](want, have []T) []T {
	var out []T
	for _, w := range want {
		if !slices.Contains(have, w) {
			out = append(out, w)
		}
	}
	return out
}
