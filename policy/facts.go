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
	// IPsec are the outbound IPsec policies. Reading them takes a right that the user half has not; an
	// empty list may also mean that nobody could look, and Warnings then says so.
	IPsec []IPsecPolicy `json:"ipsec,omitempty"`
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
	// TOS limits an IPv4 route to packets of that type of service; 0 means any. Ordinary packets have none.
	TOS uint8 `json:"tos,omitempty"`
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
	// Goto is the priority of the rule to go on with. If there is none, the rule does nothing.
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
	Kind string `json:"kind,omitempty"`
	// Alias is what somebody has written on the interface for people (ifAlias in RFC 2863). Every Culvert
	// connection writes [ConnectionAlias] and its name.
	Alias        string `json:"alias,omitempty"`
	Up           bool   `json:"up,omitempty"`
	Loopback     bool   `json:"loopback,omitempty"`
	PointToPoint bool   `json:"pointToPoint,omitempty"`
	MTU          int    `json:"mtu,omitempty"`
	// Master is the index of the bridge, bond or VRF that the interface belongs to; 0 if none.
	Master int `json:"master,omitempty"`
	// VRFTable is the routing table of a VRF (Kind "vrf"), 0 for every other interface. Only packets of
	// the VRF's members and of sockets bound to them consult it, by an L3MDev rule; the connected
	// networks of the members (their Master is the VRF) are in it, and so not in reach of others.
	VRFTable  uint32         `json:"vrfTable,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// IPsecAction is what an IPsec policy does with a packet; the words of RFC 4301, section 4.4.1.
type IPsecAction string

const (
	// IPsecProtect sends the packet through a security association: whatever interface its route
	// names, it leaves inside another packet, or not at all while there is no association.
	IPsecProtect IPsecAction = "protect"
	// IPsecBypass leaves the packet to its route, which is how VPNs exempt LANs and other tunnels.
	IPsecBypass IPsecAction = "bypass"
	// IPsecDiscard drops the packet.
	IPsecDiscard IPsecAction = "discard"
)

// IPsecPolicy is one outbound entry of the kernel's security policy database (ip-xfrm(8), "dir
// out"). It is consulted after the route was chosen, and unseen by routes: a policy on Dst takes what
// is routed to any interface, but not what goes out by one with the sysctl disable_xfrm. Of the
// policies that fit a packet the one with the lowest Priority holds, of equals the one listed first.
// Inbound, forwarding and per-socket policies are left out.
type IPsecPolicy struct {
	// Src and Dst are valid and of one family; /0 means any.
	Src netip.Prefix `json:"src"`
	Dst netip.Prefix `json:"dst"`
	// Action is never "".
	Action   IPsecAction `json:"action"`
	Priority uint32      `json:"priority"`
	// Mark selects packets whose fwmark equals Mark.Value under Mark.Mask; a zero mask means any.
	Mark Mark `json:"mark,omitzero"`
	// IfID limits the policy to packets routed to the xfrm interface with this id, whose route is then
	// what steers; 0 is for all other packets.
	IfID uint32 `json:"ifID,omitempty"`
	// Link is the index of the interface that the packet must be routed to; 0 means any.
	Link int `json:"link,omitempty"`
	// Partial says the policy has further selectors (protocol, ports), so that it catches only some of
	// the packets that the fields above describe.
	Partial bool `json:"partial,omitempty"`
	// Peer is the other end of the IPsec tunnel: where protected packets go. It is zero in transport
	// mode and for other actions.
	Peer netip.Addr `json:"peer,omitzero"`
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
