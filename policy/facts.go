package policy

import (
	"net/netip"
	"strconv"
)

// Facts are everything that steers a packet on the host, as package node/routefacts reads it. The
// order within the lists carries no meaning, except that rules of one family and priority are
// consulted in the order given.
type Facts struct {
	Routes []Route `json:"routes,omitempty"`
	Rules  []Rule  `json:"rules,omitempty"`
	Links  []Link  `json:"links,omitempty"`
	// Warnings name what could not be read; the plan repeats them.
	Warnings []string `json:"warnings,omitempty"`
}

// RouteType is what a route does with a packet; the words of ip-route(8).
type RouteType string

// Route types. Others that a kernel may know are passed on under their number, such as "type 11".
const (
	Unicast     RouteType = "unicast"
	Local       RouteType = "local"
	Broadcast   RouteType = "broadcast"
	Anycast     RouteType = "anycast"
	Multicast   RouteType = "multicast"
	Blackhole   RouteType = "blackhole"
	Unreachable RouteType = "unreachable"
	Prohibit    RouteType = "prohibit"
	Throw       RouteType = "throw"
)

// Numbers of the kernel that the planner needs to know (linux/rtnetlink.h).
const (
	TableDefault uint32 = 253
	TableMain    uint32 = 254
	TableLocal   uint32 = 255

	// ProtocolKernel marks routes the kernel made itself, such as those of connected networks.
	ProtocolKernel uint8 = 2
	// ProtocolCulvert marks our routes and rules. Another Culvert connection uses it too.
	ProtocolCulvert uint8 = 202

	// ScopeLink marks routes to destinations directly on the link.
	ScopeLink uint8 = 253
)

// Route is one entry of a routing table.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Table  uint32       `json:"table"`
	// Type "" means unicast.
	Type RouteType `json:"type,omitempty"`
	// NextHops is empty for blackhole and its kin, has several entries for multipath.
	NextHops []NextHop `json:"nextHops,omitempty"`
	// Metric is the kernel's priority: the lowest of equal prefixes wins.
	Metric   uint32 `json:"metric,omitempty"`
	Protocol uint8  `json:"protocol,omitempty"`
	Scope    uint8  `json:"scope,omitempty"`
	// Source limits an IPv6 route to packets from these addresses; the zero value means any.
	Source netip.Prefix `json:"source,omitzero"`
	// PreferredSource is the address the kernel gives to packets without one; zero means none.
	PreferredSource netip.Addr `json:"preferredSource,omitzero"`
}

// NextHop is where a route sends packets.
type NextHop struct {
	// Addr is the router; the zero value means the destination is on the link itself.
	Addr netip.Addr `json:"addr,omitzero"`
	// Link is the index of the interface; 0 means unknown.
	Link int `json:"link,omitempty"`
}

// Family is an address family.
type Family uint8

// The two families. The zero value is neither.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) String() string { return "IPv" + strconv.Itoa(int(f)) }

// familyOf returns the family of a valid, unmapped address.
func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// RuleAction is what a policy routing rule does; the words of ip-rule(8).
type RuleAction string

// Rule actions; "" means lookup.
const (
	ActionLookup      RuleAction = "lookup"
	ActionGoto        RuleAction = "goto"
	ActionNop         RuleAction = "nop"
	ActionBlackhole   RuleAction = "blackhole"
	ActionUnreachable RuleAction = "unreachable"
	ActionProhibit    RuleAction = "prohibit"
)

// Rule is one policy routing rule. Zero selectors match everything.
type Rule struct {
	Family   Family `json:"family"`
	Priority uint32 `json:"priority"`
	// Action "" means lookup.
	Action RuleAction `json:"action,omitempty"`
	// Table is what lookup consults.
	Table uint32 `json:"table,omitempty"`
	// Goto is the priority of the rule to go on with.
	Goto uint32 `json:"goto,omitempty"`
	// Invert turns the outcome of all selectors round ("not").
	Invert bool `json:"invert,omitempty"`

	// Mark selects packets whose fwmark equals Mark.Value under Mark.Mask; a zero mask means any.
	Mark Mark         `json:"mark,omitzero"`
	Src  netip.Prefix `json:"src,omitzero"`
	Dst  netip.Prefix `json:"dst,omitzero"`
	// IIF "lo" means packets of the host's own programs.
	IIF string `json:"iif,omitempty"`
	// OIF selects sockets bound to that interface.
	OIF string `json:"oif,omitempty"`
	// UIDs limits the rule to sockets of these users; nil means all.
	UIDs *UIDRange `json:"uids,omitempty"`
	// L3MDev makes the rule consult the table of the VRF a packet belongs to.
	L3MDev bool `json:"l3mdev,omitempty"`
	// Partial says the rule has further selectors (protocol, ports, TOS, ...), so that it catches only
	// some of the packets that the fields above describe.
	Partial bool `json:"partial,omitempty"`

	// MinPrefixLen is suppress_prefixlength plus one: shorter routes of the table do not count for
	// this rule. 0 means all count.
	MinPrefixLen int   `json:"minPrefixLen,omitempty"`
	Protocol     uint8 `json:"protocol,omitempty"`
}

// UIDRange is an inclusive range of user ids.
type UIDRange struct {
	First uint32 `json:"first"`
	Last  uint32 `json:"last"`
}

// Mark is a packet mark under a mask.
type Mark struct {
	Value uint32 `json:"value"`
	Mask  uint32 `json:"mask"`
}

func (m Mark) String() string {
	s := "0x" + strconv.FormatUint(uint64(m.Value), 16)
	if m.Mask == ^uint32(0) {
		return s
	}
	return s + "/0x" + strconv.FormatUint(uint64(m.Mask), 16)
}

// Link is a network interface.
type Link struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	// Kind is the driver's name as `ip -d link` prints it, such as "tun", "wireguard", "bridge";
	// "" for physical devices.
	Kind         string         `json:"kind,omitempty"`
	Up           bool           `json:"up,omitempty"`
	Loopback     bool           `json:"loopback,omitempty"`
	PointToPoint bool           `json:"pointToPoint,omitempty"`
	MTU          int            `json:"mtu,omitempty"`
	Master       int            `json:"master,omitempty"`
	Addresses    []netip.Prefix `json:"addresses,omitempty"`
}

// DefaultRules are the rules a Linux kernel starts with (ip-rule(8)), for facts read on a system
// that does not list rules.
func DefaultRules() []Rule {
	return []Rule{
		{Family: IPv4, Priority: 0, Table: TableLocal, Protocol: ProtocolKernel},
		{Family: IPv4, Priority: 32766, Table: TableMain, Protocol: ProtocolKernel},
		{Family: IPv4, Priority: 32767, Table: TableDefault, Protocol: ProtocolKernel},
		{Family: IPv6, Priority: 0, Table: TableLocal, Protocol: ProtocolKernel},
		{Family: IPv6, Priority: 32766, Table: TableMain, Protocol: ProtocolKernel},
	}
}

// tableName is the name ip-route(8) gives to a table.
func tableName(t uint32) string {
	switch t {
	case TableDefault:
		return "default"
	case TableMain:
		return "main"
	case TableLocal:
		return "local"
	}
	return strconv.FormatUint(uint64(t), 10)
}
